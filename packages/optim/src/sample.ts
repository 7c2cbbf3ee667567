// Random operands for update ops: a tile of a parameter, its gradient, a step.
import type { Random, SampleTensor } from '@lomo/tensor';
import { numel } from '@lomo/tensor';
import type { UpdateAttributes } from './update.ts';

export interface UpdateSample {
  readonly shape: readonly number[];
  readonly g: SampleTensor;
  readonly p: SampleTensor;
  readonly scalars: SampleTensor;
  readonly counters: SampleTensor;
  readonly attributes: UpdateAttributes;
}

/** Gradients are sometimes non-finite, gates sometimes closed: both must leave every byte as it was. */
export function sampleUpdate(random: Random): UpdateSample {
  const shape = [random.int(1, 9), random.int(1, 70)];
  const g = random.normal(numel(shape));
  if (random.int(0, 5) === 0) g[random.int(0, g.length - 1)] = random.pick([NaN, Infinity]);
  const lossScale = random.pick([1, 1, 256]);
  return {
    shape,
    g: { shape, dtype: 'f32', values: g.map((x) => x * lossScale) },
    p: { shape, dtype: 'real', values: random.normal(numel(shape)) },
    scalars: { shape: [8], dtype: 'f32', values: [0.05, 1 / 64, random.pick([1, 0.25]), lossScale, 0, 0, 0, 0] },
    counters: { shape: [8], dtype: 'i32', values: [random.int(1, 9), random.int(0, 99), 0, random.int(0, 4) === 0 ? 1 : 0, 0, 0, 0, 0] },
    attributes: {
      key: random.int(0, 2 ** 31),
      element: random.pick([0, 64, 1003]),
      index: random.int(0, 9),
      weightDecay: random.pick([0, 0.1]),
      clipValue: random.pick([0, 0.5]),
      rounding: random.int(0, 1),
    },
  };
}
