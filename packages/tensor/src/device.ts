// A device: a backend, one arena in one memory, and whoever records what runs. Ops run here, tensors live here.
import type { Block, Category } from './allocator.ts';
import { Arena } from './allocator.ts';
import type { Backend, Event, Kernel, Memory, Operands, Queue } from './backend.ts';
import { decode, encode, isReal, typedArray } from './dtype.ts';
import type { TypedArray } from './dtype.ts';
import { LomoError } from './errors.ts';
import { Kernels } from './kernels.ts';
import type { Launched, LaunchObserver } from './observer.ts';
import type { Application, Attributes, Op } from './op.ts';
import { bytesOf, numel } from './shape.ts';
import type { Spec } from './shape.ts';
import { Parameter, Tensor } from './tensor.ts';

/** Hears of every differentiable application: a tape that keeps, or one that only counts. */
export interface Recorder {
  record<A>(application: Application<A>): void;
}

export interface DeviceOptions {
  /** Bytes of the one memory: a plan's `extent`. */
  readonly bytes: number;
  /** Largest gradient tile, bytes; 64 MiB unless given. Results do not depend on it. */
  readonly tileBytes?: number;
}

export interface Launch {
  readonly ins?: readonly Tensor[];
  readonly inouts?: readonly Tensor[];
  /** Given, the results go here instead of into new tensors. */
  readonly outs?: readonly Tensor[];
}

/** A launch that waits until it is known whether anybody reads its results. */
interface Postponed {
  readonly op: Op;
  readonly kernel: Kernel;
  readonly operands: Operands;
  readonly values: readonly number[];
  readonly tensors: Omit<Launched, 'event'>;
  readonly attributes: Attributes;
  /** It writes into what was there before: it runs whoever reads it. */
  readonly writes: boolean;
}

const mebibyte = 2 ** 20;

export class Device {
  readonly backend: Backend;
  readonly arena: Arena;
  readonly memory: Memory;
  readonly tileBytes: number;
  recorder: Recorder | null = null;
  observer: LaunchObserver | null = null;
  /** What new tensors are counted as. */
  category: Category = 'workspace';
  private readonly kernels: Kernels;
  private scopes: Tensor[][] = [];
  private postponed: Postponed[] | null = null;
  private launches = 0;

  constructor(backend: Backend, options: DeviceOptions) {
    this.backend = backend;
    this.kernels = new Kernels(backend);
    this.arena = new Arena(options.bytes);
    this.memory = backend.memory('device', Number.isFinite(options.bytes) ? options.bytes : 0);
    this.tileBytes = options.tileBytes ?? 64 * mebibyte;
  }

  /** Launches so far. */
  get launchCount(): number {
    return this.launches;
  }

  /** Rows of a gradient tile for a matrix of this size. */
  tileRows(rows: number, columns: number): number {
    return Math.max(1, Math.min(rows, Math.floor(this.tileBytes / (4 * Math.max(1, columns)))));
  }

  /** A new tensor the caller owns; its bytes hold anything. `name` says what, where that is not plain from the op that asks. */
  allocate(spec: Spec, category: Category, name?: string): Tensor {
    const { shape, dtype } = spec; // a tensor is a spec too: its place is not taken over
    return new Tensor(this, this.arena.allocate(bytesOf(spec), category, name), { shape, dtype, owning: true });
  }

  /** A new parameter, owned by the module that asked; `away`: without a byte of the arena, until it arrives on a block. */
  parameter(path: string, spec: Spec & { readonly trainable?: boolean; readonly away?: boolean }): Parameter {
    if (!isReal(spec.dtype)) throw new LomoError('DTypeError', `${path}: a parameter cannot be ${spec.dtype}`);
    const block = spec.away === true ? null : this.arena.allocate(bytesOf(spec), 'weights', path);
    return new Parameter(this, block, { shape: spec.shape, dtype: spec.dtype, path, trainable: spec.trainable ?? true });
  }

  /** Runs `body`; tensors that ops made inside are given back at its end, except those it returns and those a tape keeps. */
  scope<T extends Tensor | readonly Tensor[] | void>(body: () => T): T {
    const made: Tensor[] = [];
    this.scopes.push(made);
    try {
      const result = body();
      const kept = new Set<Tensor>(result instanceof Tensor ? [result] : Array.isArray(result) ? (result as readonly Tensor[]) : []);
      const outer = this.scopes.at(-2);
      const left: Tensor[] = [];
      for (const tensor of made) {
        if (!kept.has(tensor)) left.push(tensor);
        else outer?.push(tensor);
      }
      for (const tensor of left) tensor.dispose();
      return result;
    } catch (error) {
      for (const tensor of made) tensor.dispose();
      throw error;
    } finally {
      this.scopes.pop();
    }
  }

  /** As `scope`, but what `body` returns belongs to the caller alone. */
  own<T>(body: () => { readonly result: T; readonly keep: readonly Tensor[] }): T {
    const made: Tensor[] = [];
    this.scopes.push(made);
    try {
      const { result, keep } = body();
      const kept = new Set(keep);
      for (const tensor of made) if (!kept.has(tensor)) tensor.dispose();
      return result;
    } catch (error) {
      for (const tensor of made) tensor.dispose();
      throw error;
    } finally {
      this.scopes.pop();
    }
  }

  /** Runs `body` with `category` for new tensors and `recorder` listening. */
  under<T>(mode: { readonly category: Category; readonly recorder: Recorder | null }, body: () => T): T {
    const { category, recorder } = this;
    this.category = mode.category;
    this.recorder = mode.recorder;
    try {
      return body();
    } finally {
      this.category = category;
      this.recorder = recorder;
    }
  }

  /** Applies a differentiable op: runs it, makes its outputs, tells the recorder. The caller (or the scope) owns the outputs. */
  apply<A extends Attributes>(op: Op<A>, ins: readonly Tensor[], attributes: A): Tensor[] {
    const outs = this.run(op, { ins }, attributes);
    this.recorder?.record({ op, ins, outs, attributes });
    return outs;
  }

  /** Runs an op without recording it. Throws ShapeError, MissingKernel, OutOfMemory, or the error that poisoned the backend. */
  run<A extends Attributes>(op: Op<A>, launch: Launch, attributes: A): Tensor[] {
    const ins = launch.ins ?? [];
    const inouts = launch.inouts ?? [];
    this.observer?.launching?.(op as unknown as Op, { ins, inouts });
    const outs = launch.outs === undefined ? this.outputs(op, ins, inouts, attributes) : [...launch.outs];
    const kernel = this.kernels.of(op, { ins, inouts, outs });
    const values = op.attributes.map((name) => attributes[name] as number);
    const operands = { ins, inouts, outs, workspace: null };
    const scratch = this.backend.workspace(kernel, operands, values);
    const workspace = scratch > 0 ? this.allocate({ shape: [scratch], dtype: 'u8' }, 'workspace', 'scratch') : null;
    const ready: Postponed = {
      op: op as unknown as Op,
      kernel,
      operands: workspace === null ? operands : { ins, inouts, outs, workspace },
      values,
      tensors: { ins, inouts, outs },
      attributes,
      writes: inouts.length > 0 || launch.outs !== undefined,
    };
    this.observer?.prepared?.(ready.op, ready.tensors);
    if (this.postponed === null) this.launch(ready);
    else this.postponed.push(ready);
    workspace?.dispose();
    return outs;
  }

  /**
   * Runs `body`, and of the launches it asked for only those that `read` of its result needs, directly or through others, in their order.
   * Memory is laid out as if all of them ran. A recomputed stage so leaves out what only its result depends on.
   */
  pruned<T>(body: () => T, read: (result: T) => Iterable<Tensor>): T {
    if (this.postponed !== null) throw new LomoError('DeviceError', 'pruned launches do not nest');
    const postponed: Postponed[] = (this.postponed = []);
    try {
      const result = body();
      this.postponed = null;
      const needed = new Set<Block>();
      for (const tensor of read(result)) needed.add(tensor.block);
      const kept = postponed.toReversed().filter(({ tensors: { ins, inouts, outs }, writes }) => {
        if (!writes && !outs.some(({ block }) => needed.has(block))) return false;
        for (const { block } of [...ins, ...inouts]) needed.add(block);
        return true;
      });
      for (const ready of kept.toReversed()) this.launch(ready);
      return result;
    } finally {
      this.postponed = null;
    }
  }

  private launch({ op, kernel, operands, values, tensors, attributes }: Postponed): void {
    const event = this.backend.launch(kernel, operands, values, 'compute');
    this.launches++;
    this.observer?.launched(op, { ...tensors, event }, attributes);
  }

  /** What moves bytes without an op comes after the launches asked for so far. */
  private catchUp(): void {
    for (const ready of this.postponed?.splice(0) ?? []) this.launch(ready);
  }

  /** Enqueues a copy of equal bytes. */
  copy(to: Tensor, from: Tensor, queue: Queue = 'compute'): Event {
    if (to.bytes !== from.bytes || to.dtype !== from.dtype) {
      throw new LomoError('ShapeError', `copy: ${String(from)} does not fit ${String(to)}`);
    }
    this.catchUp();
    const event = this.backend.copy(to, from, queue);
    this.observer?.copied?.(to, from);
    return event;
  }

  /** Writes raw elements (bf16 and f16 as their 16 bits). */
  write(to: Tensor, from: ArrayBufferView): void {
    if (from.byteLength !== to.bytes) throw new LomoError('ShapeError', `write: ${from.byteLength} bytes do not fit ${String(to)}`);
    this.catchUp();
    this.backend.write(to, from);
  }

  /** Writes numbers, rounded to the tensor's dtype. */
  writeNumbers(to: Tensor, from: ArrayLike<number>): void {
    if (from.length !== numel(to.shape)) throw new LomoError('ShapeError', `write: ${from.length} numbers do not fit ${String(to)}`);
    this.catchUp();
    this.backend.write(to, encode(to.dtype, from));
  }

  /** Raw elements after all work enqueued so far. */
  async read(from: Tensor): Promise<TypedArray> {
    this.catchUp();
    return typedArray(from.dtype, await this.backend.read(from));
  }

  /** Values as numbers after all work enqueued so far. */
  async readNumbers(from: Tensor): Promise<Float64Array> {
    return decode(from.dtype, await this.read(from));
  }

  /** Resolves when everything enqueued so far has been done; rejects with what poisoned the backend. */
  async reached(): Promise<void> {
    await this.backend.read({ memory: this.memory, offset: 0, shape: [1], dtype: 'u8' });
  }

  /** Gives the memory back. */
  free(): void {
    this.memory.free();
  }

  private outputs<A extends Attributes>(op: Op<A>, ins: readonly Tensor[], inouts: readonly Tensor[], attributes: A): Tensor[] {
    const scope = this.scopes.at(-1);
    return op.infer(ins, attributes, inouts).map((spec) => {
      const tensor = this.allocate(spec, this.category);
      scope?.push(tensor);
      return tensor;
    });
  }
}
