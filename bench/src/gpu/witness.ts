// A backend that passes everything on and takes down the bytes that are read from it, so that two devices' results can be told equal by a hash.
import type { Hash } from 'node:crypto';
import type { Backend, BackendTraits, Event, Kernel, KernelSignature, Memory, Operands, Place, Queue, Region } from '@lomo/tensor';

/** `target`, whose reads go into `hash`, in order. Reads of a whole memory as bytes are not results and are left out. */
export class Witness implements Backend {
  readonly name: string;
  readonly traits: BackendTraits;
  private readonly target: Backend;
  private readonly hash: Hash;
  private readonly pending: Promise<unknown>[] = [];

  constructor(target: Backend, hash: Hash) {
    this.target = target;
    this.hash = hash;
    this.name = target.name;
    this.traits = target.traits;
  }

  memory(place: Place, bytes: number): Memory {
    return this.target.memory(place, bytes);
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

  launch(kernel: Kernel, operands: Operands, attributes: readonly number[], queue: Queue): Event {
    return this.target.launch(kernel, operands, attributes, queue);
  }

  copy(to: Region, from: Region, queue: Queue): Event {
    return this.target.copy(to, from, queue);
  }

  wait(queue: Queue, event: Event): void {
    this.target.wait(queue, event);
  }

  write(to: Region, from: ArrayBufferView): void {
    this.target.write(to, from);
  }

  async read(from: Region): Promise<ArrayBuffer> {
    // Several reads may be under way; they are taken down as they were asked for.
    const reading = this.target.read(from);
    const before = this.pending.at(-1);
    const noted = (async () => {
      await before;
      const bytes = await reading.catch(() => null);
      if (bytes !== null && from.dtype !== 'u8') this.hash.update(new Uint8Array(bytes));
    })();
    this.pending.push(noted);
    const bytes = await reading;
    await noted;
    return bytes;
  }

  reserved(): number {
    return this.target.reserved();
  }

  /** The target lives on: it is another's. */
  async [Symbol.asyncDispose](): Promise<void> {}
}
