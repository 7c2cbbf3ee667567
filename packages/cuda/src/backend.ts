// The CUDA backend: the verbs of @lomo/tensor over the native addon.
import { LomoError } from '@lomo/tensor';
import type { Backend, BackendTraits, Event, Kernel, KernelSignature, Memory, Operands, Place, Queue, Region } from '@lomo/tensor';
import { loadAddon, translate } from './native.ts';
import type { Counters, Facts, NativeBackend } from './native.ts';
import { bytesOf, dtypeIndex, pack, packetLength, queueIndex } from './packet.ts';

export interface CudaOptions {
  /** Which GPU of those the driver sees, from 0; 0 unless given. */
  readonly device?: number;
  /** 'sync': wait after every launch and throw at once, also where a kernel wrote a NaN. Slow. */
  readonly debug?: 'sync';
  /** Path of libcuda.so.1, instead of searching for it. */
  readonly driver?: string;
  /** Path of cuBLASLt's shared library, instead of searching for it. */
  readonly cublasLt?: string;
  /** Folders searched for libraries besides the loader's own and the system's, such as `$CUDA_HOME/lib64`. */
  readonly folders?: readonly string[];
  /** Path of a lomo_cuda.node built elsewhere, instead of this package's. */
  readonly addon?: string;
}

class CudaMemory implements Memory {
  constructor(
    private readonly native: NativeBackend,
    readonly place: Place,
    readonly bytes: number,
    readonly id: number,
  ) {}

  free(): void {
    guarded(() => this.native.release(this.id));
  }
}

class CudaKernel implements Kernel {
  constructor(
    readonly owner: CudaBackend,
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

/** The native CUDA backend: one GPU, four streams, one thread that feeds them. */
export class CudaBackend implements Backend {
  readonly name = 'cuda';
  readonly traits: BackendTraits = { chunk: 512 };
  /** The GPU, and what was opened at run time. */
  readonly facts: Facts;
  private readonly packet = new Float64Array(packetLength);
  private readonly native: NativeBackend;
  private readonly sync: boolean;
  private readonly kernels = new Map<string, CudaKernel | null>();
  private readonly onExit: () => void;
  private closing: Promise<void> | null = null;

  /**
   * Throws MissingAddon, MissingDriver, DriverTooOld, DriverMismatch, NoDevice, DeviceUnavailable, WrongArchitecture, MissingDeviceCode,
   * MissingLibrary, WrongLibrary or BadOption; each says what to do.
   */
  constructor(options: CudaOptions = {}) {
    const device = options.device ?? 0;
    if (!Number.isInteger(device) || device < 0) throw new LomoError('BadOption', `cuda: device is ${device}; GPUs are counted from 0`);
    const addon = loadAddon(options.addon);
    this.native = guarded(() => new addon.NativeBackend(this.packet, { device, driver: options.driver ?? '', cublasLt: options.cublasLt ?? '', folders: options.folders ?? [] }));
    this.facts = this.native.facts();
    this.sync = options.debug === 'sync';
    // process.exit() runs no native clean-up hooks: without this the executor would still be inside a call while libraries unload.
    const { native } = this;
    this.onExit = () => native.stop();
    process.on('exit', this.onExit);
  }

  memory(place: Place, bytes: number): Memory {
    this.live();
    return new CudaMemory(this.native, place, bytes, guarded(() => this.native.reserve(place === 'device' ? 0 : 1, bytes)));
  }

  kernel(name: string, signature: KernelSignature): Kernel | null {
    this.live();
    const key = `${name} ${signature.ins.join()}|${signature.inouts.join()}|${signature.outs.join()}`;
    const known = this.kernels.get(key);
    if (known !== undefined) return known;
    const numbers = [...signature.ins, ...signature.inouts, ...signature.outs].map((d) => dtypeIndex[d]);
    const id = this.native.find(name, numbers, signature.ins.length, signature.inouts.length);
    const kernel = id < 0 ? null : new CudaKernel(this, id, name, signature, this.native.attributes(id).split(' ').filter((word) => word !== ''));
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

  wait(queue: Queue, event: Event): void {
    this.live();
    guarded(() => this.native.wait(queueIndex[queue], queueIndex[event.queue], event.ticket));
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

  /** Launches, native allocations and waits since the backend was made; for tests and plans. */
  counters(): Counters {
    this.live();
    return { ...this.native.counters(), waits: this.native.facts().waits };
  }

  /** Finishes the queued work, then gives back all memory and ends the thread. Every later verb throws BackendClosed. */
  [Symbol.asyncDispose](): Promise<void> {
    this.closing ??= this.native.close().finally(() => process.off('exit', this.onExit));
    return this.closing;
  }

  private live(): void {
    if (this.closing !== null) throw new LomoError('BackendClosed', 'cuda: the backend was disposed of; make a new one with cuda()');
  }

  private idOf(kernel: Kernel): number {
    if (kernel instanceof CudaKernel && kernel.owner === this) return kernel.id;
    throw new LomoError('BadKernel', `${kernel.name}: the kernel was looked up on another backend`);
  }
}

/** Makes a CUDA backend; dispose of it with `await using` or `[Symbol.asyncDispose]()`. */
export function cuda(options: CudaOptions = {}): CudaBackend {
  return new CudaBackend(options);
}
