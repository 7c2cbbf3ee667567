// Tensors: a block of a device's arena seen with a shape. Views cost one object; memory is owned by counting, never by the garbage collector.
import type { Block } from './allocator.ts';
import type { Memory, Region } from './backend.ts';
import type { Device } from './device.ts';
import type { DType } from './dtype.ts';
import { sizeOf } from './dtype.ts';
import { LomoError, shapeError } from './errors.ts';
import { numel } from './shape.ts';

/** A contiguous row-major array on a device. */
export class Tensor implements Region, Disposable {
  readonly device: Device;
  readonly shape: readonly number[];
  readonly dtype: DType;
  protected held: Block;
  protected start: number;
  protected owning: boolean;

  /** Made by a Device; `owning` handles give their share of the block back when disposed, views do not. */
  constructor(device: Device, block: Block, spec: { shape: readonly number[]; dtype: DType; offset?: number; owning?: boolean }) {
    this.device = device;
    this.held = block;
    this.shape = spec.shape;
    this.dtype = spec.dtype;
    this.start = spec.offset ?? block.offset;
    this.owning = spec.owning ?? false;
  }

  /** The piece of the arena it lies in. */
  get block(): Block {
    return this.held;
  }

  /** Bytes from the start of the device's memory. */
  get offset(): number {
    return this.start;
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
    this.device.arena.release(this.held);
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  toString(): string {
    return `${this.dtype} [${this.shape.join(', ')}]`;
  }
}

/** Where a parameter's bytes are while it is not on the device: raw elements, `position` in bytes from its start. Both move all or throw. */
export interface Home {
  read(into: Uint8Array, position: number): Promise<void>;
  write(from: Uint8Array, position: number): Promise<void>;
}

const nowhere: Block = { offset: 0, bytes: 0, category: 'weights', owners: 0 };

/**
 * A trainable (or frozen) weight. `path` is its name in the checkpoint: 'model.layers.3.mlp.up_proj.weight'. It owns a share of the block it
 * is on; one that is `away` is on none, and whoever reads it as a tensor is told so.
 */
export class Parameter extends Tensor {
  readonly path: string;
  readonly trainable: boolean;
  /** Counts settles; every op walked back asserts that it meets the version it recorded. */
  version = 0;
  /** Where its bytes are while it is away; null for a parameter that stays. */
  home: Home | null = null;

  /** `block` null: it begins away. */
  constructor(device: Device, block: Block | null, spec: { shape: readonly number[]; dtype: DType; path: string; trainable: boolean }) {
    super(device, block ?? nowhere, { ...spec, owning: block !== null });
    this.path = spec.path;
    this.trainable = spec.trainable;
  }

  /** True while it is on no block of the device. */
  get away(): boolean {
    return !this.owning;
  }

  /** From now on it is at byte `offset` of the memory, in `block`, of which it takes a share. */
  arrive(block: Block, offset: number = block.offset): void {
    if (!this.away) throw new LomoError('ParameterHere', `${this.path} is on the device already`, { path: this.path });
    this.device.arena.retain(block);
    this.held = block;
    this.start = offset;
    this.owning = true;
  }

  /** Gives its share of the block back: it is away. */
  leave(): void {
    this.dispose();
    this.held = nowhere;
  }

  override get block(): Block {
    return this.here(this.held);
  }

  override get offset(): number {
    return this.here(this.start);
  }

  private here<T>(value: T): T {
    if (this.owning) return value;
    throw new LomoError('ParameterAway', `${this.path} is not on the device: its stage is not gathered`, { path: this.path });
  }
}
