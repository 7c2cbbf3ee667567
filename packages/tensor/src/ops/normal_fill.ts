// Normal random numbers on the device: a pure function of (seed, key, element).
import type { Op } from '../op.ts';
import { defineOp } from '../op.ts';
import { philox } from '../philox.ts';
import { numel } from '../shape.ts';
import type { Tensor } from '../tensor.ts';

export type NormalAttributes = {
  /** Names the tensor in the random stream. */
  readonly key: number;
  /** Below 2^32. */
  readonly seed: number;
  readonly mean: number;
  readonly std: number;
};

/** x[i] = mean + std n_i, Box-Muller on Philox words. */
export const normalFillOp: Op<NormalAttributes> = defineOp({
  name: 'normal_fill',
  attributes: ['key', 'seed', 'mean', 'std'],
  dtypes: ['f32', 'bf16', 'f16'],
  infer: () => [],
  reference: ({ inouts }, { key, seed, mean, std }) => {
    const x = inouts[0]!.data;
    for (let i = 0; i < x.length; i++) {
      const [w0, w1] = philox([seed >>> 0, key >>> 0], [i >>> 0, Math.floor(i / 2 ** 32), 0, 1]);
      const [u0, u1] = [(w0 + 0.5) / 2 ** 32, (w1 + 0.5) / 2 ** 32];
      x[i] = mean + std * Math.sqrt(-2 * Math.log(u0)) * Math.cos(2 * Math.PI * u1);
    }
  },
  flops: (_, __, inouts) => 40 * numel(inouts[0]!.shape),
  sample: (random) => {
    const n = random.int(1, 300);
    return {
      ins: [],
      inouts: [{ shape: [n], dtype: 'real', values: new Float64Array(n) }],
      attributes: { key: random.int(0, 2 ** 31), seed: random.int(0, 2 ** 31), mean: random.pick([0, 1]), std: 0.02 },
    };
  },
});

/** Fills `x` with normal numbers. */
export function normalFill(x: Tensor, attributes: NormalAttributes): void {
  x.device.run(normalFillOp, { inouts: [x] }, attributes);
}
