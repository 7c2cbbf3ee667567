// The CPU backend: the verbs of @lomo/tensor over the native addon.
import { hostWindow, LomoError } from '@lomo/tensor';
import type { Backend, BackendTraits, Event, Kernel, KernelSignature, Memory, Operands, Place, Queue, Region, Stopwatch } from '@lomo/tensor';
import { loadAddon, translate } from './native.ts';
import type { Counters, Facts, Library, NativeBackend } from './native.ts';
import { bytesOf, dtypeIndex, pack, packetLength, queueIndex } from './packet.ts';
import { CpuStopwatch } from './stopwatch.ts';
import { availableCores } from './threads.ts';

/** Instruction sets the kernels are compiled for; 'portable' runs anywhere. */
export type Isa = 'portable' | 'avx2' | 'avx512' | 'avx512_bf16';

export interface CpuOptions {
  /** OpenMP threads; by default the physical cores this process may use. */
  readonly threads?: number;
  /** Kernels of a plainer instruction set than the machine's best. oneDNN chooses its own. */
  readonly isa?: Isa;
  /** 'sync': wait after every launch and throw at once, also where a kernel wrote a NaN. Slow. */
  readonly debug?: 'sync';
  /** Path of oneDNN's shared library, instead of searching for it. */
  readonly oneDnn?: string;
  /** Path of a lomo_cpu.node built elsewhere, instead of this package's. */
  readonly addon?: string;
}

class CpuMemory implements Memory {
  private readonly windows: (ArrayBuffer | undefined)[] = [];

  constructor(
    private readonly native: NativeBackend,
    readonly place: Place,
    readonly bytes: number,
    readonly id: number,
  ) {}

  free(): void {
    guarded(() => this.native.release(this.id));
  }

  host(offset: number, bytes: number): Uint8Array {
    const window = Math.floor(offset / hostWindow);
    const from = window * hostWindow;
    const buffer = (this.windows[window] ??= guarded(() => this.native.view(this.id, from, Math.min(hostWindow, this.bytes - from)))!);
    return new Uint8Array(buffer, offset - from, bytes);
  }
}

class CpuKernel implements Kernel {
  constructor(
    readonly owner: CpuBackend,
    readonly id: number,
    readonly name: string,
    readonly signature: KernelSignature,
    readonly attributes: readonly string[],
  ) {}
}

function guarded<T>(verb: () => T): T {
  try {
    return verb();
  } catch (error) {
    throw translate(error);
  }
}

function spell(operands: Operands): string {
  const list = (regions: readonly Region[]): string => regions.map((r) => `${r.dtype}[${r.shape.join(', ')}]`).join(', ');
  return `${list(operands.ins)}${operands.inouts.length > 0 ? ` | ${list(operands.inouts)}` : ''}${operands.outs.length > 0 ? ` -> ${list(operands.outs)}` : ''}`;
}

/** The native CPU backend. All four queues are one first-in first-out queue, worked off by one thread and its OpenMP team. */
export class CpuBackend implements Backend {
  readonly name = 'cpu';
  readonly traits: BackendTraits = { chunk: 512 };
  /** OpenMP threads kernels use. */
  readonly threads: number;
  /** The instruction set of our own kernels. */
  readonly isa: string;
  /** What was opened at run time. */
  readonly libraries: readonly Library[];
  readonly stopwatch: Stopwatch;
  private readonly packet = new Float64Array(packetLength);
  private readonly native: NativeBackend;
  private readonly sync: boolean;
  private readonly kernels = new Map<string, CpuKernel | null>();
  private readonly onExit: () => void;
  private closing: Promise<void> | null = null;

  /** Throws MissingAddon, MissingLibrary, WrongLibrary or UnsupportedIsa; each says what to do. */
  constructor(options: CpuOptions = {}) {
    const threads = options.threads ?? availableCores();
    if (!Number.isInteger(threads) || threads < 1 || threads > 1024) throw new LomoError('BadOption', `cpu: threads is ${threads}; give a whole number from 1 to 1024`);
    const addon = loadAddon(options.addon);
    this.native = guarded(() => new addon.NativeBackend(this.packet, { threads, isa: options.isa ?? '', oneDnn: options.oneDnn ?? '' }));
    const facts: Facts = this.native.facts();
    this.threads = facts.threads;
    this.isa = facts.isa;
    this.libraries = facts.libraries;
    this.sync = options.debug === 'sync';
    this.stopwatch = new CpuStopwatch(this.native);
    // process.exit() runs no native clean-up hooks: without this the executor would still be inside a kernel while libraries unload.
    const { native } = this;
    this.onExit = () => native.stop();
    process.on('exit', this.onExit);
  }

  memory(place: Place, bytes: number): Memory {
    this.live();
    return new CpuMemory(this.native, place, bytes, guarded(() => this.native.reserve(place === 'device' ? 0 : 1, bytes)));
  }

  kernel(name: string, signature: KernelSignature): Kernel | null {
    this.live();
    const key = `${name} ${signature.ins.join()}|${signature.inouts.join()}|${signature.outs.join()}`;
    const known = this.kernels.get(key);
    if (known !== undefined) return known;
    const numbers = [...signature.ins, ...signature.inouts, ...signature.outs].map((d) => dtypeIndex[d]);
    const id = this.native.find(name, numbers, signature.ins.length, signature.inouts.length);
    const kernel = id < 0 ? null : new CpuKernel(this, id, name, signature, this.native.attributes(id).split(' ').filter((word) => word !== ''));
    this.kernels.set(key, kernel);
    return kernel;
  }

  supported(name: string): readonly string[] {
    this.live();
    return this.native.supported(name);
  }

  workspace(kernel: Kernel, operands: Operands, attributes: readonly number[]): number {
    this.live();
    pack(this.packet, operands, { kernel: this.idOf(kernel), attributes, queue: 'compute', check: false });
    try {
      return this.native.workspace();
    } catch (error) {
      throw translate(error, kernel.name, spell(operands));
    }
  }

  launch(kernel: Kernel, operands: Operands, attributes: readonly number[], queue: Queue): Event {
    this.live();
    pack(this.packet, operands, { kernel: this.idOf(kernel), attributes, queue, check: this.sync });
    try {
      const ticket = this.native.launch();
      if (this.sync) this.native.drain();
      return { queue, ticket };
    } catch (error) {
      throw translate(error, kernel.name, spell(operands));
    }
  }

  copy(to: Region, from: Region, queue: Queue): Event {
    this.live();
    const bytes = bytesOf(from);
    if (bytesOf(to) !== bytes) throw new LomoError('SizeMismatch', `copy: ${bytes} bytes [${from.shape.join(', ')}] do not fill ${bytesOf(to)} bytes [${to.shape.join(', ')}]`);
    return { queue, ticket: guarded(() => this.native.copy(to.memory.id, to.offset, from.memory.id, from.offset, bytes, queueIndex[queue])) };
  }

  /** Nothing to do: every queue is the same one here, so what is enqueued later runs later. */
  wait(_queue: Queue, _event: Event): void {
    this.live();
  }

  write(to: Region, from: ArrayBufferView): void {
    this.live();
    if (from.byteLength !== bytesOf(to)) throw new LomoError('SizeMismatch', `write: ${from.byteLength} bytes do not fill ${to.dtype}[${to.shape.join(', ')}] of ${bytesOf(to)} bytes`);
    guarded(() => this.native.write(to.memory.id, to.offset, new Uint8Array(from.buffer, from.byteOffset, from.byteLength)));
  }

  async read(from: Region): Promise<ArrayBuffer> {
    this.live();
    try {
      return await this.native.read(from.memory.id, from.offset, bytesOf(from));
    } catch (error) {
      throw translate(error, 'read', `${from.dtype}[${from.shape.join(', ')}]`);
    }
  }

  reserved(): number {
    return this.native.reserved();
  }

  /** Launches and native allocations since the backend was made; for tests and plans. */
  counters(): Counters {
    this.live();
    return this.native.counters();
  }

  /** Finishes the queued work, then gives back all memory and ends the thread. Every later verb throws BackendClosed. */
  [Symbol.asyncDispose](): Promise<void> {
    this.closing ??= this.native.close().finally(() => process.off('exit', this.onExit));
    return this.closing;
  }

  private live(): void {
    if (this.closing !== null) throw new LomoError('BackendClosed', 'cpu: the backend was disposed of; make a new one with cpu()');
  }

  private idOf(kernel: Kernel): number {
    if (kernel instanceof CpuKernel && kernel.owner === this) return kernel.id;
    throw new LomoError('BadKernel', `${kernel.name}: the kernel was looked up on another backend`);
  }
}

/** Makes a CPU backend; dispose of it with `await using` or `[Symbol.asyncDispose]()`. */
export function cpu(options: CpuOptions = {}): CpuBackend {
  return new CpuBackend(options);
}
