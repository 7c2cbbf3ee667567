// A backend whose verbs are a native addon's: what backends on different devices have in common, which is nearly all.
import { hostWindow, LomoError } from '../src/index.ts';
import type { Backend, BackendTraits, Event, Kernel, KernelSignature, Memory, Operands, Place, Queue, Region } from '../src/index.ts';
import type { NativeVerbs } from './native.ts';
import { guarded, translate } from './native.ts';
import { bytesOf, dtypeIndex, pack, packetLength, queueIndex } from './packet.ts';

/** Memory that an addon reserved. */
export class AddonMemory implements Memory {
  constructor(
    protected readonly native: NativeVerbs,
    readonly place: Place,
    readonly bytes: number,
    readonly id: number,
  ) {}

  free(): void {
    guarded(() => this.native.release(this.id));
  }
}

/** Memory whose bytes this process sees. */
export class HostMemory extends AddonMemory {
  private readonly windows: (ArrayBuffer | undefined)[] = [];

  host(offset: number, bytes: number): Uint8Array {
    const window = Math.floor(offset / hostWindow);
    const from = window * hostWindow;
    const buffer = (this.windows[window] ??= guarded(() => this.native.view(this.id, from, Math.min(hostWindow, this.bytes - from)))!);
    return new Uint8Array(buffer, offset - from, bytes);
  }
}

class AddonKernel implements Kernel {
  constructor(
    readonly owner: object,
    readonly id: number,
    readonly name: string,
    readonly signature: KernelSignature,
    readonly attributes: readonly string[],
  ) {}
}

function spell(operands: Operands): string {
  const list = (regions: readonly Region[]): string => regions.map((r) => `${r.dtype}[${r.shape.join(', ')}]`).join(', ');
  return `${list(operands.ins)}${operands.inouts.length > 0 ? ` | ${list(operands.inouts)}` : ''}${operands.outs.length > 0 ? ` -> ${list(operands.outs)}` : ''}`;
}

/** The verbs of @lomo/tensor over a native addon. A backend adds its name, its traits, how its queues wait for each other, and what it counts. */
export abstract class AddonBackend<N extends NativeVerbs> implements Backend {
  abstract readonly name: string;
  abstract readonly traits: BackendTraits;
  protected readonly native: N;
  private readonly packet = new Float64Array(packetLength);
  private readonly sync: boolean;
  private readonly kernels = new Map<string, AddonKernel | null>();
  private readonly onExit: () => void;
  private closing: Promise<void> | null = null;

  /** `make` makes the native side over the packet; `debug` 'sync' waits after every launch and throws at once, also where a kernel wrote a NaN. */
  constructor(make: (packet: Float64Array) => N, debug?: 'sync') {
    this.native = guarded(() => make(this.packet));
    this.sync = debug === 'sync';
    // process.exit() runs no native clean-up hooks: without this the executor would still be inside a call while libraries unload.
    const { native } = this;
    this.onExit = () => native.stop();
    process.on('exit', this.onExit);
  }

  abstract wait(queue: Queue, event: Event): void;

  memory(place: Place, bytes: number): Memory {
    this.live();
    return new AddonMemory(this.native, place, bytes, guarded(() => this.native.reserve(place === 'device' ? 0 : 1, bytes)));
  }

  kernel(name: string, signature: KernelSignature): Kernel | null {
    this.live();
    const key = `${name} ${signature.ins.join()}|${signature.inouts.join()}|${signature.outs.join()}`;
    const known = this.kernels.get(key);
    if (known !== undefined) return known;
    const numbers = [...signature.ins, ...signature.inouts, ...signature.outs].map((d) => dtypeIndex[d]);
    const id = this.native.find(name, numbers, signature.ins.length, signature.inouts.length);
    const kernel = id < 0 ? null : new AddonKernel(this, id, name, signature, this.native.attributes(id).split(' ').filter((word) => word !== ''));
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

  async reached(event: Event): Promise<void> {
    this.live();
    try {
      await this.native.reached(queueIndex[event.queue], event.ticket);
    } catch (error) {
      throw translate(error, 'reached');
    }
  }

  reserved(): number {
    return this.native.reserved();
  }

  /** Finishes the queued work, then gives back all memory and ends the thread. Every later verb throws BackendClosed. */
  [Symbol.asyncDispose](): Promise<void> {
    this.closing ??= this.native.close().finally(() => process.off('exit', this.onExit));
    return this.closing;
  }

  /** Throws BackendClosed after disposal. */
  protected live(): void {
    if (this.closing !== null) throw new LomoError('BackendClosed', `${this.name}: the backend was disposed of; make a new one with ${this.name}()`);
  }

  private idOf(kernel: Kernel): number {
    if (kernel instanceof AddonKernel && kernel.owner === this) return kernel.id;
    throw new LomoError('BadKernel', `${kernel.name}: the kernel was looked up on another backend`);
  }
}
