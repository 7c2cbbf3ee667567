// Learning-rate schedules: pure functions of the update's index, equal to transformers' get_scheduler.
import { LomoError } from '@lomo/tensor';

/** Shapes of the part after warmup. */
export type ScheduleName = 'constant' | 'linear' | 'cosine' | 'cosine_with_min_lr' | 'wsd';

export interface ScheduleOptions {
  readonly name: ScheduleName;
  /** Peak rate. */
  readonly lr: number;
  /** Updates in all. */
  readonly steps: number;
  /** Updates of linear warmup; below 1 a share of `steps`. Default 0. */
  readonly warmup?: number;
  /** Lowest rate as a share of `lr`, for cosine_with_min_lr and wsd. Default 0. */
  readonly minRatio?: number;
  /** Updates of wsd's decay; below 1 a share of `steps`. Default 0.2. */
  readonly decay?: number;
  /** Form of wsd's decay. Default 'cosine'. */
  readonly decayShape?: 'cosine' | 'linear' | '1-sqrt';
}

/** Updates that `value` means: itself, or below 1 that share of `steps`, rounded up as transformers does. */
export function stepsOf(value: number, steps: number): number {
  return value < 1 ? Math.ceil(value * steps) : value;
}

/** The rate of update `i`, counted from 0. Throws ConfigError when the spans do not fit. */
export function schedule(options: ScheduleOptions): (i: number) => number {
  const { lr, steps, minRatio = 0 } = options;
  const warmup = stepsOf(options.warmup ?? 0, steps);
  const shape = afterWarmup(options, warmup);
  const floor = options.name === 'wsd' ? minRatio : 0;
  return (i) => lr * Math.max(0, i < warmup ? (i / Math.max(1, warmup)) * (1 - floor) + floor : shape(i));
}

function afterWarmup(options: ScheduleOptions, warmup: number): (i: number) => number {
  const { steps, minRatio = 0 } = options;
  const progress = (i: number): number => (i - warmup) / Math.max(1, steps - warmup);
  const halfCosine = (x: number): number => 0.5 * (1 + Math.cos(Math.PI * x));
  switch (options.name) {
    case 'constant':
      return () => 1;
    case 'linear':
      return (i) => (steps - i) / Math.max(1, steps - warmup);
    case 'cosine':
      return (i) => halfCosine(Math.min(1, progress(i)));
    case 'cosine_with_min_lr':
      return (i) => halfCosine(Math.min(1, progress(i))) * (1 - minRatio) + minRatio;
    case 'wsd':
      return warmupStableDecay(options, warmup);
    default:
      throw new LomoError('ConfigError', `no schedule '${String(options.name satisfies never)}'`);
  }
}

function warmupStableDecay(options: ScheduleOptions, warmup: number): (i: number) => number {
  const { steps, minRatio = 0, decayShape = 'cosine' } = options;
  const decay = stepsOf(options.decay ?? 0.2, steps);
  const stable = steps - warmup - decay;
  if (stable < 0) throw new LomoError('ConfigError', `wsd: warmup of ${warmup} and decay of ${decay} do not fit ${steps} steps`);
  const shapes = {
    cosine: (x: number) => 0.5 * (1 + Math.cos(Math.PI * x)),
    linear: (x: number) => 1 - x,
    '1-sqrt': (x: number) => 1 - Math.sqrt(x),
  };
  return (i) => {
    if (i < warmup + stable) return 1;
    if (i >= steps) return minRatio;
    return shapes[decayShape]((i - warmup - stable) / Math.max(1, decay)) * (1 - minRatio) + minRatio;
  };
}
