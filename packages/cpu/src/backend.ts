// The CPU backend: the verbs of @lomo/tensor over the native addon.
import { LomoError } from '@lomo/tensor';
import type { BackendTraits, Event, Memory, Place, Queue, Stopwatch } from '@lomo/tensor';
import { AddonBackend, AddonStopwatch, HostMemory } from '@lomo/tensor/addon';
import type { Counters, Library } from '@lomo/tensor/addon';
import { loadCpuAddon } from './native.ts';
import type { NativeBackend } from './native.ts';
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

/** The native CPU backend. All four queues are one first-in first-out queue, worked off by one thread and its OpenMP team. */
export class CpuBackend extends AddonBackend<NativeBackend> {
  readonly name = 'cpu';
  readonly traits: BackendTraits = { chunk: 512 };
  /** OpenMP threads kernels use. */
  readonly threads: number;
  /** The instruction set of our own kernels. */
  readonly isa: string;
  /** What was opened at run time. */
  readonly libraries: readonly Library[];
  readonly stopwatch: Stopwatch;

  /** Throws MissingAddon, MissingLibrary, WrongLibrary or UnsupportedIsa; each says what to do. */
  constructor(options: CpuOptions = {}) {
    const threads = options.threads ?? availableCores();
    if (!Number.isInteger(threads) || threads < 1 || threads > 1024) throw new LomoError('BadOption', `cpu: threads is ${threads}; give a whole number from 1 to 1024`);
    const addon = loadCpuAddon(options.addon);
    super((packet) => new addon.NativeBackend(packet, { threads, isa: options.isa ?? '', oneDnn: options.oneDnn ?? '' }), options.debug);
    const facts = this.native.facts();
    this.threads = facts.threads;
    this.isa = facts.isa;
    this.libraries = facts.libraries;
    this.stopwatch = new AddonStopwatch(this.native);
  }

  override memory(place: Place, bytes: number): Memory {
    const { id } = super.memory(place, bytes);
    return new HostMemory(this.native, place, bytes, id);
  }

  /** Nothing to do: every queue is the same one here, so what is enqueued later runs later. */
  wait(_queue: Queue, _event: Event): void {
    this.live();
  }

  /** Launches and native allocations since the backend was made; for tests and plans. */
  counters(): Counters {
    this.live();
    return this.native.counters();
  }
}

/** Makes a CPU backend; dispose of it with `await using` or `[Symbol.asyncDispose]()`. */
export function cpu(options: CpuOptions = {}): CpuBackend {
  return new CpuBackend(options);
}
