// The narrow waist: what a backend can do. Verbs only; which ops exist is no business of this interface.
import type { DType } from './dtype.ts';

/** Device memory, or host memory a device can copy from without staging. */
export type Place = 'device' | 'pinned';

/** In-order queues; work on different queues is ordered only by events. */
export type Queue = 'compute' | 'receive' | 'send' | 'offload';

/** Bytes of a memory that JavaScript can see in one piece: its buffers end at 4 GiB. */
export const hostWindow = 2 ** 30;

/** One reservation. Few and large: the allocator hands out offsets inside it. */
export interface Memory {
  readonly place: Place;
  readonly bytes: number;
  /** Small integer that names this memory at the language border. */
  readonly id: number;
  /** Gives the reservation back; work already enqueued on it finishes first. */
  free(): void;
  /**
   * Bytes [offset, offset + bytes) in place, where they are this process's own; no multiple of `hostWindow` may lie between them. What goes
   * through them is ordered with no queue: whoever uses them waits for the queue first, and is done before `free`. Absent where the host
   * cannot see them.
   */
  host?(offset: number, bytes: number): Uint8Array;
}

/** Where a kernel reads or writes: a contiguous row-major tensor at a byte offset of a memory. */
export interface Region {
  readonly memory: Memory;
  readonly offset: number;
  readonly shape: readonly number[];
  readonly dtype: DType;
}

/** A point in a queue's work. */
export interface Event {
  readonly queue: Queue;
  readonly ticket: number;
}

export interface Operands {
  readonly ins: readonly Region[];
  readonly inouts: readonly Region[];
  readonly outs: readonly Region[];
  /** Scratch of at least `workspace(...)` bytes, or null where that is 0. */
  readonly workspace: Region | null;
}

export interface KernelSignature {
  readonly ins: readonly DType[];
  readonly inouts: readonly DType[];
  readonly outs: readonly DType[];
}

/** A kernel of one backend for one combination of dtypes. */
export interface Kernel {
  readonly name: string;
  readonly signature: KernelSignature;
  /** Attribute names in the order their values are passed. */
  readonly attributes: readonly string[];
}

/** Sizes the kernel contract leaves to the backend; plans and tests print them. */
export interface BackendTraits {
  /** Tokens per partial sum in every sum over tokens. */
  readonly chunk: number;
}

/** A piece of work as the device did it; milliseconds as performance.now() counts them. */
export interface TimedWork {
  readonly kind: 'launch' | 'copy' | 'write' | 'read';
  /** Of the event that enqueueing it returned. */
  readonly ticket: number;
  readonly start: number;
  readonly end: number;
}

/**
 * Tells when a device did what, in the order it did it. While it is off a backend does nothing for it; while it is on, results are the
 * same bit for bit and nothing is reserved.
 */
export interface Stopwatch {
  /** Times everything that runs from now on, and keeps the latest `capacity` pieces. Throws StopwatchRunning. */
  start(capacity: number): void;
  /** After all work enqueued so far: what was done since `start`, oldest first, and how many older pieces were not kept. */
  stop(): Promise<{ readonly work: readonly TimedWork[]; readonly lost: number }>;
}

/**
 * The verbs of a backend. Enqueueing never waits; the first failure poisons the backend: queued work is skipped, every pending
 * `read` rejects with that error and the next `launch` throws it.
 */
export interface Backend extends AsyncDisposable {
  readonly name: string;
  readonly traits: BackendTraits;
  /** Reserves zero-filled memory. Throws OutOfMemory with the size asked for. */
  memory(place: Place, bytes: number): Memory;
  /** The kernel of that name for these dtypes, or null when the backend has none. */
  kernel(name: string, signature: KernelSignature): Kernel | null;
  /** The dtype combinations `name` exists in, for error messages, e.g. ['f32, f32 -> f32']. */
  supported(name: string): readonly string[];
  /** Scratch bytes a launch with these shapes needs; data is not looked at. */
  workspace(kernel: Kernel, operands: Operands, attributes: readonly number[]): number;
  /** Enqueues; `attributes` in the order of `kernel.attributes`. */
  launch(kernel: Kernel, operands: Operands, attributes: readonly number[], queue: Queue): Event;
  /** Enqueues a copy of equal byte counts. */
  copy(to: Region, from: Region, queue: Queue): Event;
  /** Work enqueued on `queue` from now on starts after `event`. */
  wait(queue: Queue, event: Event): void;
  /** Copies host bytes into `to`, in order with the compute queue; `from` may be reused at once. */
  write(to: Region, from: ArrayBufferView): void;
  /** The bytes of `from` after all work enqueued so far on the compute queue. */
  read(from: Region): Promise<ArrayBuffer>;
  /**
   * Resolves once the work up to `event` is done, of its own queue only. Needed where the host cannot see device memory: weights and
   * boundaries come and go through pinned memory on queues of their own.
   */
  reached?(event: Event): Promise<void>;
  /** Bytes reserved by this backend's memories now. */
  reserved(): number;
  /** Where the backend can tell when it did what; traces are made of it. */
  readonly stopwatch?: Stopwatch;
}
