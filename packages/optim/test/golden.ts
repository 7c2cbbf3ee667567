// Reference values made with PyTorch, if they are here: JSON, and tensors of float64. Tests that read them are skipped, visibly, where they are not.
import { existsSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const folder = new URL('../../../../shared/golden/', import.meta.url);

/** True where the golden file is on this machine. */
export function hasGolden(name: string): boolean {
  return existsSync(fileURLToPath(new URL(name, folder)));
}

/** The JSON of a golden file. */
export function golden<T>(name: string): T {
  return JSON.parse(readFileSync(new URL(name, folder), 'utf8')) as T;
}

export interface GoldenTensor {
  readonly shape: readonly number[];
  readonly values: Float64Array;
}

/** The float64 tensors of a safetensors file by name. Throws where one is of another dtype. */
export function goldenTensors(name: string): ReadonlyMap<string, GoldenTensor> {
  const file = readFileSync(new URL(name, folder));
  const start = 8 + Number(file.readBigUInt64LE(0));
  const header = JSON.parse(file.toString('utf8', 8, start)) as Record<string, { readonly dtype: string; readonly shape: number[]; readonly data_offsets: [number, number] }>;
  const tensors = new Map<string, GoldenTensor>();
  for (const [key, entry] of Object.entries(header)) {
    if (key === '__metadata__') continue;
    const { dtype, shape, data_offsets: [from, to] } = entry;
    if (dtype !== 'F64') throw new Error(`${name}: ${key} is ${dtype}, not F64`);
    tensors.set(key, { shape, values: Float64Array.from({ length: (to - from) / 8 }, (_, i) => file.readDoubleLE(start + from + 8 * i)) });
  }
  return tensors;
}
