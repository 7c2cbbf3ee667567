// What a checkpoint holds, as tensors to write: read from the device as it stands, or from a copy in host memory that was taken between two steps.
import type { LanguageModel, TensorSource } from '@lomo/models';
import { modelSources, sourceBytes } from '@lomo/models';
import type { Optimizer } from '@lomo/optim';
import type { Device, Tensor } from '@lomo/tensor';
import { LomoError, numel, sizeOf } from '@lomo/tensor';

/** Bytes of one slice between device and file. */
const slice = 2 ** 24;

/** What is trained. */
export interface Training {
  readonly device: Device;
  readonly model: LanguageModel;
  readonly optimizer: Optimizer;
}

/** The tensors of a checkpoint. */
export interface Contents {
  readonly weights: readonly TensorSource[];
  readonly optimizer: readonly TensorSource[];
}

/** What the device holds when it is read: nothing may be trained until the checkpoint is written. */
export function contentsOf({ device, model, optimizer }: Training): Contents {
  const state = [...optimizer.state()].map(({ path, name, tensor }): TensorSource => ({
    name: `${path}.${name}`,
    shape: tensor.shape,
    dtype: 'F32',
    async *slices() {
      for (const part of pieces(tensor, slice)) {
        const values = await device.read(part);
        yield new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
      }
    },
  }));
  return { weights: modelSources(model), optimizer: state };
}

/** Bytes of all tensors. */
export function contentBytes({ weights, optimizer }: Contents): number {
  return [...weights, ...optimizer].reduce((n, source) => n + sourceBytes(source), 0);
}

/** Host memory for one copy of a checkpoint's tensors: taken by the first copy, filled anew by every later one. */
export class Snapshot {
  private readonly rooms: Uint8Array[][] = [];

  /** Whether the memory is taken. */
  get taken(): boolean {
    return this.rooms.length > 0;
  }

  /** Copies everything. What it returns holds these values until the next call. Throws RangeError where there is no memory for it. */
  async take({ weights, optimizer }: Contents): Promise<Contents> {
    const copied: TensorSource[] = [];
    for (const [i, source] of [...weights, ...optimizer].entries()) {
      const room = (this.rooms[i] ??= []);
      let at = 0;
      for await (const bytes of source.slices()) {
        if (room[at]?.byteLength !== bytes.byteLength) room[at] = new Uint8Array(bytes.byteLength);
        room[at++]!.set(bytes);
      }
      const { name, shape, dtype } = source;
      copied.push({ name, shape, dtype, slices: () => room.slice(0, at) });
    }
    return { weights: copied.slice(0, weights.length), optimizer: copied.slice(weights.length) };
  }

  /** Gives the memory up, to whenever the garbage collector runs. */
  drop(): void {
    this.rooms.length = 0;
  }
}

/** Share of the free memory that a copy may fill. */
const copyShare = 0.8;

/** Whether `free` bytes have room for a copy of `bytes`, with some to spare. */
export function copyFits(bytes: number, free: number): boolean {
  return bytes <= copyShare * free;
}

/** A tensor as flat pieces of at most `bytes` bytes, in order. */
export function* pieces(tensor: Tensor, bytes: number): Generator<Tensor, undefined> {
  const flat = tensor.reshape([numel(tensor.shape)]);
  const count = bytes / sizeOf(tensor.dtype);
  for (let at = 0; at < flat.shape[0]!; at += count) yield flat.rows(at, Math.min(flat.shape[0]!, at + count));
}

/** Bits of an exponent that is all ones: infinity or no number. */
const exponents: Readonly<Partial<Record<TensorSource['dtype'], number>>> = { F32: 0x7f800000, BF16: 0x7f80, F16: 0x7c00 };

/** The same source; it throws LomoError 'NonFiniteWeight' when it comes to a number that is not finite. */
export function finite(source: TensorSource): TensorSource {
  const mask = exponents[source.dtype];
  if (mask === undefined) return source;
  return {
    ...source,
    async *slices() {
      for await (const bytes of source.slices()) {
        const words = source.dtype === 'F32' ? new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4) : new Uint16Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 2);
        for (let i = 0; i < words.length; i++) {
          if ((words[i]! & mask) !== mask) continue;
          throw new LomoError('NonFiniteWeight', `${source.name} holds a number that is not finite; nothing is saved, the last checkpoint stands: resume from it with a lower learning_rate`, { tensor: source.name });
        }
        yield bytes;
      }
    },
  };
}
