// The activations at stages' borders while a step runs: on the device, or, where there is time between forward and backward, in a store.
import type { Device, Spec, Tensor } from '@lomo/tensor';
import { alignment, LomoError } from '@lomo/tensor';
import type { Carrier } from './carrier.ts';
import type { Transfer } from './schedule.ts';

/** A stage's boundary in the store: one place a micro-batch. */
interface Away {
  readonly specs: readonly Spec[];
  readonly positions: readonly number[];
  stored: Promise<void> | null;
  landed: Promise<void> | null;
}

/** What arrives at every stage, of every micro-batch. */
export class Boundaries {
  private readonly device: Device;
  private readonly carrier: Carrier | null;
  private readonly slots: (Tensor | null)[][];
  private readonly away: (Away | null)[];
  private end = 0;

  /** Without a carrier everything stays on the device. */
  constructor(device: Device, sizes: { readonly stages: number; readonly microBatches: number }, carrier: Carrier | null) {
    this.device = device;
    this.carrier = carrier;
    this.slots = Array.from({ length: sizes.stages }, () => Array.from({ length: sizes.microBatches }, () => null));
    this.away = Array.from({ length: sizes.stages }, () => null);
  }

  /** Null where nothing arrives, or nothing any more. */
  at(stage: number, microBatch: number): Tensor | null {
    return this.slots[stage]![microBatch]!;
  }

  /** Takes `tensor` over. */
  put(stage: number, microBatch: number, tensor: Tensor): void {
    this.slots[stage]![microBatch] = tensor;
  }

  /** Nobody will read it again. */
  drop(stage: number, microBatch: number): void {
    this.slots[stage]![microBatch]?.dispose();
    this.slots[stage]![microBatch] = null;
  }

  /** Does one transfer of a boundary. */
  async transfer({ kind, stage }: Transfer): Promise<void> {
    if (kind === 'gather') this.gather(stage);
    else if (kind === 'store') this.store(stage);
    else {
      await this.away[stage]?.stored;
      for (const m of this.slots[stage]!.keys()) this.drop(stage, m);
    }
  }

  /** Resolves when what arrives at `stage` is on the device. */
  async present(stage: number): Promise<void> {
    await this.away[stage]?.landed;
  }

  /** Gives everything back. */
  dispose(): void {
    for (const [stage, row] of this.slots.entries()) for (const m of row.keys()) this.drop(stage, m);
  }

  private store(stage: number): void {
    const tensors = this.slots[stage]!.map((tensor) => {
      if (tensor === null) throw new LomoError('StageError', `the boundary of stage ${stage} is to be stored, and is not there`, { stage });
      return tensor;
    });
    const positions = tensors.map(({ bytes }) => {
      const position = this.end;
      this.end += Math.ceil(bytes / alignment) * alignment;
      return position;
    });
    const specs = tensors.map(({ shape, dtype }) => ({ shape, dtype }));
    const stored = this.carrier!.deliver(tensors.map(({ offset, bytes, dtype }, m) => ({ offset, bytes, dtype, position: positions[m]! })));
    this.away[stage] = { specs, positions, stored, landed: null };
  }

  private gather(stage: number): void {
    const away = this.away[stage]!;
    const tensors = away.specs.map((spec) => this.device.allocate(spec, 'boundary'));
    tensors.forEach((tensor, m) => this.put(stage, m, tensor));
    away.landed = this.carrier!.fetch(tensors.map(({ offset, bytes, dtype }, m) => ({ offset, bytes, dtype, position: away.positions[m]! })));
  }
}
