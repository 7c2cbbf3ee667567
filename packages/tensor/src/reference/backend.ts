// The slow backend that is the definition: every kernel is `op.reference`, every f32 is held as a float64 unless asked otherwise.
import type { Backend, Event, Kernel, KernelSignature, Memory, Operands, Place, Queue, Region, Stopwatch, TimedWork } from '../backend.ts';
import type { DType } from '../dtype.ts';
import { fromBf16, fromF16, isReal, sizeOf, toBf16, toF16 } from '../dtype.ts';
import { LomoError } from '../errors.ts';
import { snakeCase } from '../kernels.ts';
import type { Op, View } from '../op.ts';
import { numel } from '../shape.ts';

export interface ReferenceOptions {
  /** Ops it can run: every op of this package, and those of the packages in use. */
  readonly ops: readonly Op[];
  /** What an f32 element is held as; 'f64' unless given. */
  readonly precision?: 'f64' | 'f32';
  readonly chunk?: number;
}

class ReferenceMemory implements Memory {
  readonly place: Place;
  readonly bytes: number;
  readonly id: number;
  readonly raw: Uint8Array;
  /** f32 element at byte offset o is wide[o / 4]. */
  readonly wide: Float64Array | Float32Array;
  private readonly onFree: (memory: ReferenceMemory) => void;

  constructor(place: Place, bytes: number, owner: { readonly id: number; readonly precision: 'f64' | 'f32'; readonly onFree: (memory: ReferenceMemory) => void }) {
    this.place = place;
    this.bytes = bytes;
    this.id = owner.id;
    this.onFree = owner.onFree;
    this.raw = new Uint8Array(bytes);
    // Held as f32, running sums round at every term, as on a device: where a launch ends cannot be seen.
    this.wide = new (owner.precision === 'f32' ? Float32Array : Float64Array)(Math.ceil(bytes / 4));
  }

  free(): void {
    this.onFree(this);
  }
}

/** What ran since it was started; everything here runs at once, so times are those of the call. */
class ReferenceStopwatch implements Stopwatch {
  private readonly work: TimedWork[] = [];
  private capacity = 0;
  private noted = 0;

  get running(): boolean {
    return this.capacity > 0;
  }

  start(capacity: number): void {
    if (this.running) throw new LomoError('StopwatchRunning', 'reference: the stopwatch is running: stop it first');
    [this.capacity, this.noted] = [capacity, 0];
  }

  note(kind: TimedWork['kind'], ticket: number, start: number): void {
    this.work.push({ kind, ticket, start, end: performance.now() });
    this.noted++;
    if (this.work.length > this.capacity) this.work.shift();
  }

  async stop(): Promise<{ readonly work: readonly TimedWork[]; readonly lost: number }> {
    this.capacity = 0;
    const work = this.work.splice(0);
    return { work, lost: this.noted - work.length };
  }
}

interface ReferenceKernel extends Kernel {
  readonly op: Op;
}

/** Runs at launch, in order; events are already past. */
export class ReferenceBackend implements Backend {
  readonly name = 'reference';
  readonly traits: { readonly chunk: number };
  readonly stopwatch = new ReferenceStopwatch();
  private readonly ops: ReadonlyMap<string, Op>;
  private readonly precision: 'f64' | 'f32';
  private readonly memories = new Set<ReferenceMemory>();
  private poison: LomoError | null = null;
  private ticket = 0;

  constructor(options: ReferenceOptions) {
    this.ops = new Map(options.ops.map((op) => [op.name, op]));
    this.precision = options.precision ?? 'f64';
    this.traits = { chunk: options.chunk ?? 512 };
  }

  memory(place: Place, bytes: number): Memory {
    const memory = new ReferenceMemory(place, bytes, { id: this.ticket++, precision: this.precision, onFree: (m) => this.memories.delete(m) });
    this.memories.add(memory);
    return memory;
  }

  kernel(name: string, signature: KernelSignature): ReferenceKernel | null {
    const op = this.ops.get(name);
    return op === undefined ? null : { name, signature, attributes: op.attributes.map(snakeCase), op };
  }

  supported(name: string): readonly string[] {
    return this.ops.has(name) ? ['every dtype'] : [];
  }

  workspace(): number {
    return 0;
  }

  launch(kernel: Kernel, operands: Operands, attributes: readonly number[], queue: Queue): Event {
    if (this.poison !== null) throw this.poison;
    const start = this.stopwatch.running ? performance.now() : 0;
    const { op } = kernel as ReferenceKernel;
    const written: { view: View; region: Region }[] = [];
    const open = (region: Region, writes: boolean): View => {
      const view = this.view(region);
      if (writes) written.push({ view, region });
      return view;
    };
    const named = Object.fromEntries(op.attributes.map((name, i) => [name, attributes[i]!]));
    try {
      const views = {
        ins: operands.ins.map((r) => open(r, false)),
        inouts: operands.inouts.map((r) => open(r, true)),
        outs: operands.outs.map((r) => open(r, true)),
      };
      op.reference(views, named, this.traits);
    } catch (error) {
      this.poison = error instanceof LomoError ? error : new LomoError('KernelError', `${op.name}: ${String(error)}`, { op: op.name }, error);
      throw this.poison;
    }
    for (const { view, region } of written) this.store(view, region);
    const ticket = ++this.ticket;
    if (this.stopwatch.running) this.stopwatch.note('launch', ticket, start);
    return { queue, ticket };
  }

  copy(to: Region, from: Region, queue: Queue): Event {
    const start = this.stopwatch.running ? performance.now() : 0;
    const bytes = numel(from.shape) * sizeOf(from.dtype);
    const [target, source] = [to.memory as ReferenceMemory, from.memory as ReferenceMemory];
    target.raw.set(source.raw.subarray(from.offset, from.offset + bytes), to.offset);
    if (from.dtype === 'f32') target.wide.set(source.wide.subarray(from.offset / 4, (from.offset + bytes) / 4), to.offset / 4);
    const ticket = ++this.ticket;
    if (this.stopwatch.running) this.stopwatch.note('copy', ticket, start);
    return { queue, ticket };
  }

  wait(): void {}

  write(to: Region, from: ArrayBufferView): void {
    const memory = to.memory as ReferenceMemory;
    if (to.dtype === 'f32') {
      const values = new Float32Array(from.buffer, from.byteOffset, from.byteLength / 4);
      memory.wide.set(values, to.offset / 4);
    } else memory.raw.set(new Uint8Array(from.buffer, from.byteOffset, from.byteLength), to.offset);
  }

  /** Writes float64 values into an f32 region without rounding. */
  writeExact(to: Region, values: ArrayLike<number>): void {
    (to.memory as ReferenceMemory).wide.set(values, to.offset / 4);
  }

  /** The float64 values behind an f32 region. */
  readExact(from: Region): Float64Array {
    const at = from.offset / 4;
    return Float64Array.from((from.memory as ReferenceMemory).wide.subarray(at, at + numel(from.shape)));
  }

  async read(from: Region): Promise<ArrayBuffer> {
    if (this.poison !== null) throw this.poison;
    const memory = from.memory as ReferenceMemory;
    const count = numel(from.shape);
    if (from.dtype === 'f32') return Float32Array.from(memory.wide.subarray(from.offset / 4, from.offset / 4 + count)).buffer;
    return memory.raw.slice(from.offset, from.offset + count * sizeOf(from.dtype)).buffer;
  }

  reserved(): number {
    let bytes = 0;
    for (const memory of this.memories) bytes += memory.bytes;
    return bytes;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.memories.clear();
  }

  /** f32 and i32 are seen in place; other dtypes as a decoded copy. */
  private view(region: Region): View {
    const memory = region.memory as ReferenceMemory;
    const { shape, dtype, offset } = region;
    const count = numel(shape);
    if (dtype === 'f32') return { shape, dtype, data: memory.wide.subarray(offset / 4, offset / 4 + count) };
    if (dtype === 'i32') return { shape, dtype, data: new Int32Array(memory.raw.buffer, offset, count) };
    if (!isReal(dtype)) return { shape, dtype, data: Float64Array.from(memory.raw.subarray(offset, offset + count)) };
    const bits = new Uint16Array(memory.raw.buffer, offset, count);
    return { shape, dtype, data: Float64Array.from(bits, dtype === 'bf16' ? fromBf16 : fromF16) };
  }

  private store(view: View, region: Region): void {
    const memory = region.memory as ReferenceMemory;
    const { dtype, offset } = region;
    if (dtype !== 'f32' && dtype !== 'i32') encodeInto(dtype, view.data, memory.raw.buffer as ArrayBuffer, offset);
  }
}

function encodeInto(dtype: DType, values: View['data'], buffer: ArrayBuffer, offset: number): void {
  if (dtype === 'u8') {
    new Uint8Array(buffer, offset, values.length).set(values);
    return;
  }
  const bits = new Uint16Array(buffer, offset, values.length);
  const convert = dtype === 'bf16' ? toBf16 : toF16;
  for (let i = 0; i < values.length; i++) bits[i] = convert(values[i]!);
}
