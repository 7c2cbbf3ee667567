// The loss scale: a power of two on every gradient between loss and update, which keeps small ones from vanishing where gradients are 16 bit.
// Dynamic, it halves when a step overflows and doubles when many did not. Steps are unscaled on the device, so it changes no result.
import { LomoError } from '@lomo/tensor';
import { z } from 'zod';

const power = z
  .number()
  // Any other factor would change digits of a gradient.
  .refine((x) => x >= 2 ** -24 && x <= 2 ** 120 && Number.isInteger(Math.log2(x)), 'expected a power of two from 2^-24 to 2^120');

const dynamic = z.strictObject({
  initial: power.describe('default 65536'),
  growth_steps: z.number().int().positive().describe('steps without overflow after which it doubles; default 2000'),
  least: power.describe('never below; default 1'),
  largest: power.describe('never above; default 2^24, or initial where that is more'),
});

/** The numbers that a dynamic scale can be given. */
export const lossScaleKeys: readonly string[] = Object.keys(dynamic.shape);

/** What `loss_scale` takes: 'none', 'dynamic', a power of two that stays, or dynamic with numbers of one's own. */
export const lossScaleSchema = z.union([z.enum(['none', 'dynamic']), power, dynamic.partial()], {
  error: "expected 'none', 'dynamic', a power of two, or { initial, growth_steps, least, largest }, all but growth_steps powers of two",
});

export type LossScaling = z.output<typeof lossScaleSchema>;

/** What a checkpoint keeps of a dynamic scale. */
export const lossScaleStateSchema = z.object({ scale: z.number().positive(), good: z.number().int().min(0) });

export type LossScaleState = z.output<typeof lossScaleStateSchema>;

/** True of a scale that overflows are expected of: its steps must change every weight or no byte. */
export function isDynamic(scaling: LossScaling): boolean {
  return scaling === 'dynamic' || typeof scaling === 'object';
}

/** The scale of a run, step after step. */
export class LossScale {
  private readonly initial: number;
  private readonly growth: { readonly steps: number; readonly least: number; readonly largest: number } | null;
  private scale: number;
  private good = 0;

  /** Throws LomoError 'ConfigError' when the bounds exclude the initial scale. */
  constructor(scaling: LossScaling) {
    const given = typeof scaling === 'object' ? scaling : {};
    const { initial = 2 ** 16, growth_steps: steps = 2000, least = 1 } = given;
    const largest = given.largest ?? Math.max(2 ** 24, initial);
    if (initial < least || initial > largest) throw new LomoError('ConfigError', `loss_scale: it begins at ${initial}, outside ${least}..${largest}`);
    this.growth = isDynamic(scaling) ? { steps, least, largest } : null;
    this.initial = this.growth !== null ? initial : typeof scaling === 'number' ? scaling : 1;
    this.scale = this.initial;
  }

  /** What the next step's gradients are multiplied by. */
  get value(): number {
    return this.scale;
  }

  /** A step was applied; the last of `growth_steps` in a row doubles the scale. */
  accept(): void {
    if (this.growth === null || ++this.good < this.growth.steps) return;
    this.good = 0;
    this.scale = Math.min(this.growth.largest, 2 * this.scale);
  }

  /** A step overflowed: halves the scale. False when it cannot get smaller, which says that the scale is not to blame. */
  shrink(): boolean {
    if (this.growth === null) return false;
    this.good = 0;
    if (this.scale <= this.growth.least) return false;
    this.scale /= 2;
    return true;
  }

  /** What a screen says of it: 'from 65536', 'halved when ...'; null where there is none. */
  get words(): { readonly value: string; readonly reason: string } | null {
    if (this.growth === null) return this.initial === 1 ? null : { value: String(this.initial), reason: 'as the run asks; no result depends on it' };
    const { steps, least, largest } = this.growth;
    return { value: `dynamic, from ${this.initial}`, reason: `halved when a step overflows, doubled after ${steps} that did not, within ${least}..${largest}` };
  }

  /** For a checkpoint; null for a scale that never changes. */
  get state(): LossScaleState | null {
    return this.growth === null ? null : { scale: this.scale, good: this.good };
  }

  /** Goes on from a checkpoint; null: from the beginning. */
  restore(state: LossScaleState | null): void {
    this.scale = this.growth === null || state === null ? this.initial : state.scale;
    this.good = this.growth === null || state === null ? 0 : state.good;
  }
}
