// The backend without data: it answers for another backend's kernels and workspaces, moves nothing, and so lets a plan be the program itself.
import type { Backend, BackendTraits, Event, Kernel, KernelSignature, Memory, Operands, Place, Queue, Region } from '../backend.ts';
import { sizeOf } from '../dtype.ts';
import { numel } from '../shape.ts';

/** Bytes from which on a read's zeros are kept. */
const sharedFrom = 2 ** 16;

/** Stands in for `target`: same kernels, same workspaces, no memory and no time. */
export class DryBackend implements Backend {
  readonly name: string;
  readonly traits: BackendTraits;
  private readonly target: Backend;
  private ticket = 0;
  private readonly zeros = new Map<number, ArrayBuffer>();

  constructor(target: Backend) {
    this.target = target;
    this.name = `dry ${target.name}`;
    this.traits = target.traits;
  }

  memory(place: Place, bytes: number): Memory {
    const nothing = new Uint8Array(0);
    return { place, bytes, id: 0, free: () => {}, host: () => nothing };
  }

  kernel(name: string, signature: KernelSignature): Kernel | null {
    return this.target.kernel(name, signature);
  }

  supported(name: string): readonly string[] {
    return this.target.supported(name);
  }

  workspace(kernel: Kernel, operands: Operands, attributes: readonly number[]): number {
    return this.target.workspace(kernel, operands, attributes);
  }

  launch(_kernel: Kernel, _operands: Operands, _attributes: readonly number[], queue: Queue): Event {
    return { queue, ticket: ++this.ticket };
  }

  copy(_to: Region, _from: Region, queue: Queue): Event {
    return { queue, ticket: ++this.ticket };
  }

  wait(): void {}

  write(): void {}

  /**
   * Zeros: a dry step has an open gate and a loss of 0. Large ones are one buffer for every read of that size, which nobody may write into:
   * fresh ones would pile up until V8 collects them, and a run begins with that heap.
   */
  async read(from: Region): Promise<ArrayBuffer> {
    const bytes = numel(from.shape) * sizeOf(from.dtype);
    const known = this.zeros.get(bytes);
    if (known !== undefined) return known;
    const made = new ArrayBuffer(bytes);
    if (bytes >= sharedFrom) this.zeros.set(bytes, made);
    return made;
  }

  reserved(): number {
    return 0;
  }

  async [Symbol.asyncDispose](): Promise<void> {}
}
