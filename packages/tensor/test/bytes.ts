// A backend on plain bytes, as a stranger might write it: every kernel is the op's reference, rounded into storage. Tests plant faults in it.
import { decode, encode, LomoError, numel, sizeOf, snakeCase, typedArray } from '../src/index.ts';
import type { Backend, Event, Kernel, KernelSignature, Memory, Op, Operands, Queue, Region, View } from '../src/index.ts';

interface Bytes extends Memory {
  readonly raw: Uint8Array;
}

export interface Faults {
  /** Combinations it has no kernel for. */
  readonly missing?: (name: string, signature: KernelSignature) => boolean;
  /** Scratch bytes it asks for. */
  readonly workspace?: number | ((kernel: Kernel, operands: Operands) => number);
  /** Runs after a kernel, with its operands and a view of the memory's bytes: the place for mischief. */
  readonly after?: (op: Op, operands: Operands, raw: Uint8Array) => void;
  /** Outputs that are never written. */
  readonly forgets?: (op: Op, output: number) => boolean;
  readonly leaks?: boolean;
}

function bytesOf(region: Region): Uint8Array {
  return (region.memory as Bytes).raw.subarray(region.offset, region.offset + numel(region.shape) * sizeOf(region.dtype));
}

export class ByteBackend implements Backend {
  readonly name = 'bytes';
  readonly traits = { chunk: 512 };
  private readonly ops: ReadonlyMap<string, Op>;
  private readonly faults: Faults;
  private readonly memories = new Set<Memory>();
  private ticket = 0;

  constructor(ops: readonly Op[], faults: Faults = {}) {
    this.ops = new Map(ops.map((op) => [op.name, op]));
    this.faults = faults;
  }

  memory(place: 'device' | 'pinned', bytes: number): Bytes {
    const memory: Bytes = {
      place,
      bytes,
      id: this.ticket++,
      raw: new Uint8Array(bytes),
      free: () => {
        if (this.faults.leaks !== true) this.memories.delete(memory);
      },
    };
    this.memories.add(memory);
    return memory;
  }

  kernel(name: string, signature: KernelSignature): Kernel | null {
    const op = this.ops.get(name);
    if (op === undefined || this.faults.missing?.(name, signature) === true) return null;
    return { name, signature, attributes: op.attributes.map(snakeCase) };
  }

  supported(name: string): readonly string[] {
    return this.ops.has(name) ? ['f32'] : [];
  }

  workspace(kernel: Kernel, operands: Operands): number {
    const { workspace = 0 } = this.faults;
    return typeof workspace === 'number' ? workspace : workspace(kernel, operands);
  }

  launch(kernel: Kernel, operands: Operands, attributes: readonly number[], queue: Queue): Event {
    const op = this.ops.get(kernel.name);
    if (op === undefined) throw new LomoError('MissingKernel', kernel.name);
    const open = (region: Region): View => {
      const bytes = Uint8Array.from(bytesOf(region));
      const values = decode(region.dtype, typedArray(region.dtype, bytes.buffer));
      return { shape: region.shape, dtype: region.dtype, data: region.dtype === 'i32' ? Int32Array.from(values) : values };
    };
    const views = { ins: operands.ins.map(open), inouts: operands.inouts.map(open), outs: operands.outs.map(open) };
    op.reference(views, Object.fromEntries(op.attributes.map((name, i) => [name, attributes[i]!])), this.traits);
    const close = (view: View, region: Region): void => {
      const raw = encode(region.dtype, view.data);
      bytesOf(region).set(new Uint8Array(raw.buffer, raw.byteOffset, raw.byteLength));
    };
    views.inouts.forEach((view, i) => close(view, operands.inouts[i]!));
    views.outs.forEach((view, i) => {
      if (this.faults.forgets?.(op, i) !== true) close(view, operands.outs[i]!);
    });
    const any = operands.outs[0] ?? operands.inouts[0];
    if (any !== undefined) this.faults.after?.(op, operands, (any.memory as Bytes).raw);
    return { queue, ticket: ++this.ticket };
  }

  copy(to: Region, from: Region, queue: Queue): Event {
    bytesOf(to).set(bytesOf(from));
    return { queue, ticket: ++this.ticket };
  }

  wait(): void {}

  write(to: Region, from: ArrayBufferView): void {
    bytesOf(to).set(new Uint8Array(from.buffer, from.byteOffset, from.byteLength));
  }

  async read(from: Region): Promise<ArrayBuffer> {
    return Uint8Array.from(bytesOf(from)).buffer;
  }

  reserved(): number {
    return [...this.memories].reduce((sum, memory) => sum + memory.bytes, 0);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.memories.clear();
  }
}
