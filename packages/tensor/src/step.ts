// The step tensor: everything that changes from step to step, on the device, so that kernels' attributes stay static and no host sync is needed.
import type { Device } from './device.ts';
import { LomoError } from './errors.ts';
import { fill } from './ops/fill.ts';
import type { Tensor } from './tensor.ts';

/** What the host sets before a step. */
export interface StepValues {
  /** From 1. */
  readonly step: number;
  readonly seed: number;
  readonly lr: number;
  /** Tokens with a label in the whole step, over all micro-batches and ranks; 0 is allowed and gives zero gradients. */
  readonly trained: number;
  /** fp16 only; 1 otherwise. */
  readonly lossScale?: number;
}

/** What the host reads after it. */
export interface StepOutcome {
  /** Sum of token losses. */
  readonly lossSum: number;
  /** Global gradient norm, where a pass measured it; else 0. */
  readonly gradNorm: number;
  /** The coefficient that global-norm clipping applied; 1 without. */
  readonly clipCoefficient: number;
  /** 'open', or who closed it: the index given to the check (-1: the loss). */
  readonly gate: 'open' | { readonly at: number };
}

/** Index that the loss check reports. */
export const lossIndex = -1;

export class StepTensor {
  /** f32 [8]: lr, 1 / trained tokens, clip coefficient, loss scale, 0... */
  readonly scalars: Tensor;
  /** i32 [8]: step, seed low, seed high, gate, at, 0... */
  readonly counters: Tensor;
  /** f32 [2, 1]: the step's loss as a sum over tokens (closed chunks, open chunk). */
  readonly loss: Tensor;
  /** f32 [2]: the squared gradient norm as high and low part. */
  readonly norm: Tensor;
  private readonly device: Device;

  constructor(device: Device) {
    this.device = device;
    this.scalars = device.allocate({ shape: [8], dtype: 'f32' }, 'io');
    this.counters = device.allocate({ shape: [8], dtype: 'i32' }, 'io');
    this.loss = device.allocate({ shape: [2, 1], dtype: 'f32' }, 'io');
    this.norm = device.allocate({ shape: [2], dtype: 'f32' }, 'io');
  }

  /** Opens the gate and sets the step's numbers. Seeds are split at 2^32. */
  begin(values: StepValues): void {
    if (!(values.trained >= 0)) throw new LomoError('StepError', `step ${values.step}: ${values.trained} trained tokens`);
    const low = values.seed >>> 0;
    const high = Math.floor(values.seed / 2 ** 32) >>> 0;
    this.device.writeNumbers(this.scalars, [values.lr, values.trained > 0 ? 1 / values.trained : 0, 1, values.lossScale ?? 1, 0, 0, 0, 0]);
    this.device.writeNumbers(this.counters, [values.step, low | 0, high | 0, 0, 0, 0, 0, 0]);
    fill(this.norm, 0);
  }

  /** Zeroes the loss: each pass over the step's tokens sums it anew. */
  clearLoss(): void {
    fill(this.loss, 0);
  }

  async outcome(): Promise<StepOutcome> {
    const [scalars, counters, loss, norm] = await Promise.all([
      this.device.readNumbers(this.scalars),
      this.device.readNumbers(this.counters),
      this.device.readNumbers(this.loss),
      this.device.readNumbers(this.norm),
    ]);
    const scale = scalars[3] ?? 1;
    return {
      lossSum: (loss[0] ?? 0) + (loss[1] ?? 0),
      gradNorm: Math.sqrt((norm[0] ?? 0) + (norm[1] ?? 0)) / scale,
      clipCoefficient: scalars[2] ?? 1,
      gate: counters[3] === 0 ? 'open' : { at: counters[4] ?? lossIndex },
    };
  }
}
