// Golden tensors on the host: f32, f64 and bf16 safetensors files as numbers, whole files at a time.
import { SafetensorsFile } from '@lomo/models';
import { decode } from '@lomo/tensor';

/** A golden tensor. */
export interface GoldenTensor {
  readonly shape: readonly number[];
  readonly values: Float64Array;
}

/** Every tensor of the file at `path`, by name. Throws LomoError for a corrupt file, an Error for types other than F32, F64 and BF16. */
export async function readTensors(path: string): Promise<ReadonlyMap<string, GoldenTensor>> {
  await using file = await SafetensorsFile.open(path);
  const tensors = new Map<string, GoldenTensor>();
  for (const [name, { dtype, shape, bytes }] of file.entries) {
    if (dtype !== 'F32' && dtype !== 'F64' && dtype !== 'BF16') throw new Error(`${path}: ${name} is ${dtype}; golden values are F32, F64 or BF16`);
    const raw = new Uint8Array(bytes);
    await file.read(name, raw);
    const values = dtype === 'F64' ? new Float64Array(raw.buffer) : dtype === 'F32' ? Float64Array.from(new Float32Array(raw.buffer)) : decode('bf16', new Uint16Array(raw.buffer));
    tensors.set(name, { shape, values });
  }
  return tensors;
}

/** The tensors whose names start with `prefix`, under the rest of their names. */
export function under(tensors: ReadonlyMap<string, GoldenTensor>, prefix: string): ReadonlyMap<string, GoldenTensor> {
  return new Map([...tensors].filter(([name]) => name.startsWith(prefix)).map(([name, tensor]) => [name.slice(prefix.length), tensor]));
}
