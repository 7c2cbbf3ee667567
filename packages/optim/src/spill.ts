// Spilled gradients: held from the one backward pass until the whole of it is judged, then applied in the order in which they settled.
import type { Device, Grad, Parameter, Term, Tensor } from '@lomo/tensor';
import { Dense, Grad as Gradient, numel, sizeOf } from '@lomo/tensor';

/** Bytes outside the device; positions are absolute. Both move all the bytes or throw LomoError 'FileError', naming the place. */
export interface SpillStore {
  write(from: Uint8Array, position: number): Promise<void>;
  read(into: Uint8Array, position: number): Promise<void>;
}

/** Where gradients wait: in the device's own arena (category 'spill'), or in a store. */
export type Spill = 'memory' | SpillStore;

/** Bytes of one slice between device and store. */
export const spillSlice = 2 ** 24;

interface Entry {
  readonly p: Parameter;
  readonly order: number;
  /** What is on the device now; empty once it is in the store. */
  operands: readonly Tensor[];
  readonly specs: readonly { readonly shape: readonly number[]; readonly dtype: Tensor['dtype'] }[];
  /** Of the first operand, in the store. */
  position: number;
  remake(operands: readonly Tensor[]): readonly Term[];
}

/** The gradients of one step on their way: `hold` each, `drain` after every walk, then `replay`. */
export class SpilledGradients {
  private readonly device: Device;
  private readonly spill: Spill;
  private readonly entries: Entry[] = [];
  private drained = 0;
  private total = 0;
  /** One slice on its way back; made at first use, and anew only for a step that holds more than any before. */
  private slice = new Uint8Array(0);

  constructor(device: Device, spill: Spill) {
    this.device = device;
    this.spill = spill;
  }

  /** Bytes held since the last `clear`: f32 gradients, or the rows of an embedding where these are fewer. */
  get bytes(): number {
    return this.total;
  }

  /**
   * Takes `g` in and shows it to `look` in the form in which it is held. A gradient that is one f32 tensor already is taken over as it
   * is; rows stay rows where they are the smaller form.
   */
  hold(p: Parameter, g: Grad, at: { readonly order: number; readonly look: (g: Grad) => void }): void {
    const compact = g.terms.length === 1 ? g.terms[0]!.compact?.() : undefined;
    const rows = compact !== undefined && bytesOf(compact.operands) < 4 * numel(p.shape);
    if (rows) at.look(g);
    const held = this.form(g, rows ? compact.operands : null);
    if (!rows) {
      const dense = new Gradient(this.device, p.shape, held.map((t) => new Dense(t.share())));
      at.look(dense);
      dense.release();
    }
    const remake = rows ? (operands: readonly Tensor[]) => [compact.remake(operands)] : (operands: readonly Tensor[]) => operands.map((t) => new Dense(t));
    this.entries.push({ p, order: at.order, operands: held, specs: held.map(({ shape, dtype }) => ({ shape, dtype })), position: this.total, remake });
    this.total += bytesOf(held);
  }

  /** Moves what the walk left on the device into the store; nothing to do where the arena is the place. */
  async drain(): Promise<void> {
    if (this.spill === 'memory') return;
    for (; this.drained < this.entries.length; this.drained++) {
      const entry = this.entries[this.drained]!;
      let at = entry.position;
      for (const tensor of entry.operands) {
        for (const part of slices(tensor)) {
          const bytes = await this.device.read(part);
          await this.spill.write(new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength), at);
          at += bytes.byteLength;
        }
        tensor.dispose();
      }
      entry.operands = [];
    }
  }

  /** Gives every gradient to `apply`, in the order in which they settled, each after `present` brought its parameter in. With `last`, each is freed after it. */
  async replay(apply: (p: Parameter, g: Grad, order: number) => void, options: { readonly last: boolean; readonly present: (p: Parameter) => Promise<void> }): Promise<void> {
    for (const entry of this.entries) {
      await options.present(entry.p);
      const inArena = this.spill === 'memory';
      const operands = inArena ? entry.operands.map((t) => t.share()) : await this.fetch(entry);
      const grad = new Gradient(this.device, entry.p.shape, entry.remake(operands));
      try {
        apply(entry.p, grad, entry.order);
      } finally {
        grad.release();
      }
      if (!options.last) continue;
      for (const tensor of entry.operands) tensor.dispose();
      entry.operands = [];
    }
  }

  /** Forgets everything: the next step begins. */
  clear(): void {
    for (const { operands } of this.entries) for (const tensor of operands) tensor.dispose();
    this.entries.length = 0;
    this.drained = 0;
    this.total = 0;
  }

  private form(g: Grad, operands: readonly Tensor[] | null): Tensor[] {
    // A gradient without terms is zero: nothing is kept, and nothing is zero again.
    const held = operands === null ? (g.terms.length === 0 ? [] : [g.value()]) : operands.map((t) => t.share());
    // Token ids belong to the batch, which outlives the step.
    for (const { block } of held) if (block.category !== 'io') this.device.arena.assign(block, 'spill');
    return held;
  }

  private async fetch(entry: Entry): Promise<Tensor[]> {
    const operands = entry.specs.map((spec) => this.device.allocate(spec, 'spill'));
    const room = Math.min(spillSlice, this.total);
    if (this.slice.byteLength < room) this.slice = new Uint8Array(room);
    let at = entry.position;
    for (const tensor of operands) {
      for (const part of slices(tensor)) {
        const bytes = this.slice.subarray(0, part.bytes);
        if (this.spill !== 'memory') await this.spill.read(bytes, at);
        this.device.write(part, bytes);
        at += part.bytes;
      }
    }
    return operands;
  }
}

function bytesOf(tensors: readonly Tensor[]): number {
  return tensors.reduce((sum, { bytes }) => sum + bytes, 0);
}

function* slices(tensor: Tensor): Generator<Tensor> {
  const flat = tensor.reshape([numel(tensor.shape)]);
  const count = spillSlice / sizeOf(tensor.dtype);
  for (let at = 0; at < flat.shape[0]!; at += count) yield flat.rows(at, Math.min(flat.shape[0]!, at + count));
}
