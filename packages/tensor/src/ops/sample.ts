// The next token from logits: greedy, or drawn with temperature, top-k and top-p, as a pure function of (seed, draw).
import type { Op } from '../op.ts';
import { defineOp } from '../op.ts';
import { philox } from '../philox.ts';
import { dimOf, numel } from '../shape.ts';
import type { Tensor } from '../tensor.ts';

export type SampleAttributes = {
  /** 0: the first largest. */
  readonly temperature: number;
  /** 0: all. */
  readonly topK: number;
  /** 1: all. */
  readonly topP: number;
  /** Which draw of the sequence this is. */
  readonly draw: number;
};

/** ids i32 [R] from logits f32 [R, V]; the seed comes from counters i32 [8]. */
export const sampleOp: Op<SampleAttributes> = defineOp({
  name: 'sample',
  attributes: ['temperature', 'topK', 'topP', 'draw'],
  dtypes: ['f32'],
  infer: (ins) => [{ shape: [dimOf(ins[0]!, 0)], dtype: 'i32' }],
  reference: ({ ins, outs }, { temperature, topK, topP, draw }) => {
    const [logits, counters] = [ins[0]!, ins[1]!.data];
    const v = dimOf(logits, 1);
    for (let r = 0; r < dimOf(logits, 0); r++) {
      const row = logits.data.subarray(r * v, r * v + v);
      const order = Array.from(row.keys()).sort((a, b) => row[b]! - row[a]! || a - b);
      const best = order[0]!;
      if (temperature === 0) {
        outs[0]!.data[r] = best;
        continue;
      }
      const kept = topK > 0 ? order.slice(0, topK) : order;
      const weights = kept.map((i) => Math.exp((row[i]! - row[best]!) / temperature));
      const total = weights.reduce((a, b) => a + b, 0);
      let count = 0;
      let mass = 0;
      while (count < kept.length && (count === 0 || mass < topP * total)) mass += weights[count++]!;
      const u = (philox([counters[1]! >>> 0, counters[2]! >>> 0], [r, draw, 0, 2])[0] + 0.5) / 2 ** 32;
      let left = u * mass;
      let chosen = 0;
      while (chosen < count - 1 && left >= weights[chosen]!) left -= weights[chosen++]!;
      outs[0]!.data[r] = kept[chosen]!;
    }
  },
  flops: (ins) => 8 * numel(ins[0]!.shape),
  sample: (random) => {
    const shape = [random.int(1, 3), random.int(2, 90)];
    return {
      ins: [
        { shape, dtype: 'f32', values: random.normal(numel(shape), 2) },
        { shape: [8], dtype: 'i32', values: [1, random.int(0, 2 ** 31 - 1), 7, 0, 0, 0, 0, 0] },
      ],
      attributes: { temperature: random.pick([0, 0.7, 1]), topK: random.pick([0, 5]), topP: random.pick([1, 0.8]), draw: random.int(0, 999) },
    };
  },
});

/** Ids i32 [R] for logits f32 [R, V]. */
export function sample(logits: Tensor, counters: Tensor, attributes: SampleAttributes): Tensor {
  return logits.device.run(sampleOp, { ins: [logits, counters] }, attributes)[0]!;
}
