// Tensors: a block of a device's arena seen with a shape. Views cost one object; memory is owned by counting, never by the garbage collector.
import type { Block } from './allocator.ts';
import type { Memory, Region } from './backend.ts';
import type { Device } from './device.ts';
import type { DType } from './dtype.ts';
import { sizeOf } from './dtype.ts';
import { shapeError } from './errors.ts';
import { numel } from './shape.ts';

/** A contiguous row-major array on a device. `offset` is in bytes from the start of the device's memory. */
export class Tensor implements Region, Disposable {
  readonly device: Device;
  readonly block: Block;
  readonly shape: readonly number[];
  readonly dtype: DType;
  readonly offset: number;
  private owning: boolean;

  /** Made by a Device; `owning` handles give their share of the block back when disposed, views do not. */
  constructor(device: Device, block: Block, spec: { shape: readonly number[]; dtype: DType; offset?: number; owning?: boolean }) {
    this.device = device;
    this.block = block;
    this.shape = spec.shape;
    this.dtype = spec.dtype;
    this.offset = spec.offset ?? block.offset;
    this.owning = spec.owning ?? false;
  }

  get memory(): Memory {
    return this.device.memory;
  }

  /** True for a handle that must be disposed. */
  get owns(): boolean {
    return this.owning;
  }

  get bytes(): number {
    return numel(this.shape) * sizeOf(this.dtype);
  }

  /** Rows [from, to) of the first dimension, the same bytes. */
  rows(from: number, to: number): Tensor {
    const height = this.shape[0] ?? 0;
    if (from < 0 || to > height || from > to) throw shapeError('rows', `a range inside 0..${height}, not ${from}..${to}`, [this.shape]);
    const stride = (numel(this.shape) / Math.max(1, height)) * sizeOf(this.dtype);
    return new Tensor(this.device, this.block, {
      shape: [to - from, ...this.shape.slice(1)],
      dtype: this.dtype,
      offset: this.offset + from * stride,
    });
  }

  /** The same bytes under another shape of equal element count. */
  reshape(shape: readonly number[]): Tensor {
    if (numel(shape) !== numel(this.shape)) throw shapeError('reshape', `${numel(this.shape)} elements`, [this.shape, shape]);
    return new Tensor(this.device, this.block, { shape, dtype: this.dtype, offset: this.offset });
  }

  /** A handle that owns a share of the block: the bytes stay until it is disposed, whoever else lets go. */
  share(): Tensor {
    this.device.arena.retain(this.block);
    return new Tensor(this.device, this.block, { shape: this.shape, dtype: this.dtype, offset: this.offset, owning: true });
  }

  /** Gives this handle's share back; on a view, and a second time, it does nothing. */
  dispose(): void {
    if (!this.owning) return;
    this.owning = false;
    this.device.arena.release(this.block);
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  toString(): string {
    return `${this.dtype} [${this.shape.join(', ')}]`;
  }
}

/** A trainable (or frozen) weight. `path` is its name in the checkpoint: 'model.layers.3.mlp.up_proj.weight'. */
export class Parameter extends Tensor {
  readonly path: string;
  readonly trainable: boolean;
  /** Counts settles; every op walked back asserts that it meets the version it recorded. */
  version = 0;

  constructor(device: Device, block: Block, spec: { shape: readonly number[]; dtype: DType; path: string; trainable: boolean }) {
    super(device, block, { ...spec, owning: true });
    this.path = spec.path;
    this.trainable = spec.trainable;
  }
}
