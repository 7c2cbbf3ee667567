// Weights between a Hugging Face folder and a device, or the homes of parameters that are away, slice by slice: no tensor is ever whole on the host.
import type { Device, Home, Parameter } from '@lomo/tensor';
import { LomoError, numel, sizeOf } from '@lomo/tensor';
import { openCheckpoint } from './checkpoint.ts';
import type { Sums } from './confined.ts';
import { readConfig } from './family.ts';
import type { Files } from './files.ts';
import { closing, nodeFiles } from './files.ts';
import type { CreateModelOptions, LanguageModel } from './languageModel.ts';
import { createModel } from './languageModel.ts';
import { matchTensors } from './match.ts';
import type { RealDiskType } from './safetensors/diskType.ts';
import { convert, diskTypeBytes, diskTypeOf, isRealDiskType, largestHalf, overflowedHalf } from './safetensors/diskType.ts';
import type { Stretch } from './safetensors/read.ts';
import type { TensorSource } from './safetensors/write.ts';
import { sidecarsOf } from './sidecars.ts';

/** Bytes of a slice on its way from a device to a file. */
const sliceBytes = 2 ** 24;
/** Bytes of a slice on its way from a file to a device. */
const readBytes = 2 ** 21;

export interface LoadModelOptions extends CreateModelOptions {
  readonly files?: Files;
}

/**
 * The model of a Hugging Face folder, its weights converted to `options.dtype`. Checks everything before the first weight is written:
 * 'UnsupportedConfig', 'WeightsMismatch' (all differences), 'CorruptFile', 'OutsideFolder', 'FileError'. While they are written:
 * 'Overflow', a weight that f16 cannot hold.
 */
export async function loadModel(folder: string, device: Device, options: LoadModelOptions = {}): Promise<LanguageModel> {
  const files = options.files ?? nodeFiles;
  const json = await readConfig(folder, files);
  // A link that saving would refuse to copy is better refused before training than after it.
  await sidecarsOf(files, folder);
  const model = createModel(json, device, options);
  try {
    await loadWeights(model, folder, { files });
    return model;
  } catch (error) {
    model.dispose();
    throw error;
  }
}

export interface LoadWeightsOptions {
  readonly files?: Files;
  /** What a checkpoint's manifest says of the folder's files: each byte is hashed as it is read, and nothing else is opened. */
  readonly sums?: Sums;
}

/**
 * Fills the parameters made on this rank from the checkpoint in `folder`, in the order of its files, each byte read once; the whole model's
 * tensors are compared first. After an error the parameters hold nothing that is to be used.
 */
export async function loadWeights(model: LanguageModel, folder: string, options: LoadWeightsOptions = {}): Promise<void> {
  await closing(await openCheckpoint(folder, options), async (checkpoint) => {
    await matchTensors(checkpoint, model.tensors, { ties: model.aliases });
    const parameters = new Map(model.parameters.map((parameter) => [parameter.path, parameter]));
    const room: Room = { read: new Uint8Array(readBytes), converted: new ArrayBuffer(2 * readBytes) };
    for (const file of checkpoint.files) {
      for await (const { entry, at, bytes } of file.walk(room.read, (name) => parameters.has(name))) {
        await writeStretch(parameters.get(entry.name)!, { file: file.path, entry, at, bytes, converted: room.converted });
      }
    }
  });
}

/** Buffers that every parameter passes through: fresh ones would pile up until V8 collects them, and training begins with that heap. */
interface Room {
  readonly read: Uint8Array;
  readonly converted: ArrayBuffer;
}

async function writeStretch(parameter: Parameter, stretch: Stretch & { readonly file: string; readonly converted: ArrayBuffer }): Promise<void> {
  const { file, entry, at, converted } = stretch;
  const { name, dtype: from } = entry;
  if (!isRealDiskType(from)) throw new LomoError('DTypeError', `${file}: ${name} is ${from}; expected F32, BF16 or F16`);
  const to = diskTypeOf(parameter.dtype);
  const bytes = convert(stretch.bytes, from, to, { room: converted });
  if (to === 'F16' && overflowedHalf(new Uint16Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 2))) {
    throw new LomoError('Overflow', `${file}: ${name} holds a number above ${largestHalf}, or none at all, which f16 cannot keep; load it as bf16 or f32`, { path: file, tensor: name });
  }
  const first = at / diskTypeBytes[from];
  const count = bytes.byteLength / sizeOf(parameter.dtype);
  if (parameter.away) await homeOf(parameter).write(bytes, first * sizeOf(parameter.dtype));
  else parameter.device.write(parameter.reshape([numel(parameter.shape)]).rows(first, first + count), bytes);
}

/** Throws 'ParameterAway' for a parameter that is neither on the device nor anywhere else. */
function homeOf({ home, path }: Parameter): Home {
  if (home === null) throw new LomoError('ParameterAway', `${path} was made away and has no home: give the model a residency before its weights`, { path });
  return home;
}

/** A parameter as a tensor to write, read slice by slice from the device, or from its home while it is away, and converted to `dtype` (its own unless given). */
export function parameterSource(parameter: Parameter, dtype?: RealDiskType): TensorSource {
  const from = diskTypeOf(parameter.dtype);
  const to = dtype ?? from;
  return {
    name: parameter.path,
    shape: parameter.shape,
    dtype: to,
    async *slices() {
      if (parameter.away) {
        const room = new Uint8Array(Math.min(sliceBytes, parameter.bytes));
        for (let at = 0; at < parameter.bytes; at += room.byteLength) {
          const slice = room.subarray(0, Math.min(room.byteLength, parameter.bytes - at));
          await homeOf(parameter).read(slice, at);
          yield convert(slice, from, to);
        }
        return;
      }
      const flat = parameter.reshape([numel(parameter.shape)]);
      const step = sliceBytes / sizeOf(parameter.dtype);
      for (let at = 0; at < flat.shape[0]!; at += step) {
        const values = await parameter.device.read(flat.rows(at, Math.min(flat.shape[0]!, at + step)));
        yield convert(new Uint8Array(values.buffer, values.byteOffset, values.byteLength), from, to);
      }
    },
  };
}

/** Every tensor of the model, in order. A model of which this rank has only some stages: LomoError 'PartialModel'. */
export function modelSources(model: LanguageModel, dtype?: RealDiskType): readonly TensorSource[] {
  const byPath = new Map(model.parameters.map((p) => [p.path, p]));
  return model.tensors.map(({ name }) => {
    const parameter = byPath.get(name);
    if (parameter === undefined) throw new LomoError('PartialModel', `${name} is on another rank; gather the model before it is saved`, { tensor: name });
    return parameterSource(parameter, dtype);
  });
}
