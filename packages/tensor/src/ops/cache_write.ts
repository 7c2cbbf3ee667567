// Writes new keys or values behind the ones a cache already holds; where is data, so that decoding steps share one shape.
import { LomoError, shapeError } from '../errors.ts';
import type { Op } from '../op.ts';
import { defineOp } from '../op.ts';
import { dimOf, numel } from '../shape.ts';
import type { Tensor } from '../tensor.ts';

/** Rows at .. at + T of cache [C, ...] = x [T, ...]; at i32 [1]. */
export const cacheWriteOp: Op<Record<never, number>> = defineOp({
  name: 'cache_write',
  attributes: [],
  dtypes: ['f32', 'bf16'],
  infer: (ins, _, inouts) => {
    const [x, cache] = [ins[0]!, inouts[0]!];
    if (x.shape.slice(1).join() !== cache.shape.slice(1).join()) throw shapeError('cache_write', 'equal row shapes', [x.shape, cache.shape]);
    return [];
  },
  reference: ({ ins, inouts }) => {
    const [x, cache] = [ins[0]!, inouts[0]!];
    const at = ins[1]!.data[0]!;
    const width = numel(x.shape.slice(1));
    if (at < 0 || at + dimOf(x, 0) > dimOf(cache, 0)) {
      throw new LomoError('CacheFull', `cache_write: rows ${at}..${at + dimOf(x, 0)} do not fit a cache of ${dimOf(cache, 0)}`, { at });
    }
    for (let i = 0; i < x.data.length; i++) cache.data[at * width + i] = x.data[i]!;
  },
  flops: () => 0,
  sample: (random) => {
    const [tokens, heads, d] = [random.int(1, 5), random.int(1, 3), random.int(1, 20)];
    const capacity = tokens + random.int(0, 6);
    return {
      ins: [
        { shape: [tokens, heads, d], dtype: 'real', values: random.normal(tokens * heads * d) },
        { shape: [1], dtype: 'i32', values: [random.int(0, capacity - tokens)] },
      ],
      inouts: [{ shape: [capacity, heads, d], dtype: 'real', values: random.normal(capacity * heads * d) }],
      attributes: {},
    };
  },
});

/** cache [C, ...] rows from `at` on = x [T, ...]. */
export function cacheWrite(cache: Tensor, x: Tensor, at: Tensor): void {
  x.device.run(cacheWriteOp, { ins: [x, at], inouts: [cache] }, {});
}
