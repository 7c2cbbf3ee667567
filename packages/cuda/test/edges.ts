// Ops with samples of shapes that their own never reach: more rows than a kernel takes at a time, more tokens than a chunk, ties, targets in the next
// tile. What mutants of the kernels survived before these (docs/cuda.md).
import { updateTotalOp } from '@lomo/optim';
import { crossEntropyGradOp, crossEntropyOp, embeddingGradAddOp, erase, meanOp, normAddOp, rmsNormBackwardOp, rmsNormOp, ropeOp, sampleOp, sumSquaresOp, weightGradAddOp, weightGradOp } from '@lomo/tensor';
import type { Op, Random, Sample } from '@lomo/tensor';

type Tensors = Sample<Record<string, number>>['ins'];
const real = (random: Random, shape: readonly number[], dtype: 'f32' | 'real' = 'real'): Tensors[number] => ({ shape, dtype, values: random.normal(shape.reduce((a, b) => a * b, 1)) });
const ids = (values: ArrayLike<number>): Tensors[number] => ({ shape: [values.length], dtype: 'i32', values: Float64Array.from(values) });
/** The op with other samples. */
function withSample<A extends Record<string, number>>(op: Op<A>, sample: (random: Random) => Sample<A>): Op {
  return erase({ ...op, sample });
}

/** The ops with samples of such shapes. */
export const edgeOps: readonly Op[] = [
  // Blocks find the tokens of an id 256 at a time, into one buffer.
  withSample(embeddingGradAddOp, (random) => ({ ins: [ids(random.ints(600, 4)), real(random, [600, 5])], inouts: [real(random, [4, 5], 'f32')], attributes: { row: 1 } })),
  withSample(normAddOp, (random) => ({ ins: [{ ...real(random, [700], 'f32'), values: random.normal(700).map(Math.abs) }], inouts: [{ shape: [2], dtype: 'f32', values: [1000, 0] }], attributes: {} })),
  withSample(meanOp, (random) => ({ ins: [real(random, [700], 'f32')], attributes: {} })),
  // In f32 the many small squares would be lost beside the large one.
  withSample(sumSquaresOp, (random) => ({ ins: [{ shape: [2, 4000], dtype: 'f32', values: Float64Array.from({ length: 8000 }, (_, i) => (i % 256 === 0 && i % 4000 < 256 ? 4096 : 0.35 + 0.1 * random.uniform())) }], attributes: {} })),
  withSample(updateTotalOp, (random) => ({ ins: [{ ...real(random, [210, 8], 'f32'), values: random.normal(1680).map(Math.abs) }], inouts: [{ shape: [8, 2], dtype: 'f32', values: new Float64Array(16) }], attributes: {} })),
  // Three chunks of tokens; the tile begins in the middle.
  withSample(weightGradOp, (random) => ({ ins: [real(random, [2100, 7]), real(random, [2100, 3])], outs: ['f32'], attributes: { row: 2 } })),
  withSample(weightGradAddOp, (random) => ({ ins: [real(random, [2100, 7]), real(random, [2100, 3])], inouts: [real(random, [4, 3], 'f32')], attributes: { row: 2 } })),
  // More pairs than a block holds angles of.
  withSample(ropeOp, (random) => ({ ins: [real(random, [3, 2, 606]), ids([0, 7, 4000]), { shape: [300], dtype: 'f32', values: Float64Array.from({ length: 300 }, (_, j) => Math.fround(10000 ** (-j / 300))) }], attributes: { scale: 1, inverse: 0 } })),
  withSample(rmsNormOp, (random) => ({ ins: [{ ...real(random, [3, 1000]), dtype: 'activation' }, real(random, [1000])], attributes: { eps: 0.5 } })),
  withSample(rmsNormBackwardOp, (random) => ({
    ins: [{ ...real(random, [3, 1000]), dtype: 'activation' }, real(random, [1000]), { shape: [3], dtype: 'f32', values: [1, 0.9, 1.1] }, { ...real(random, [3, 1000]), dtype: 'activation' }],
    inouts: [real(random, [2, 1000], 'f32')],
    attributes: { start: 510 },
  })),
  // Several warps a row.
  withSample(crossEntropyOp, (random) => ({ ins: [ids([5, -100, 1100]), { shape: [8], dtype: 'f32', values: [0, 0.25, 1, 1, 0, 0, 0, 0] }], inouts: [{ ...real(random, [3, 1101], 'f32'), values: random.normal(3303, 5) }], attributes: { grad: 1 } })),
  // Ties, which go to the lower index; the cut by rank and the cut by mass, either of which may be the tighter one.
  withSample(sampleOp, (random) => ({
    ins: [{ shape: [4, 600], dtype: 'f32', values: Float64Array.from({ length: 2400 }, () => random.int(0, 6)) }, { shape: [8], dtype: 'i32', values: [1, random.int(0, 2 ** 31 - 1), 7, 0, 0, 0, 0, 0] }],
    attributes: { temperature: random.pick([0, 1]), topK: random.pick([3, 90, 400]), topP: random.pick([0.05, 0.5, 0.97]), draw: random.int(0, 999) },
  })),
  // A target in the next tile, and the first of this one.
  withSample(crossEntropyGradOp, (random) => ({ ins: [ids([3, 12, 2, -100, 11]), { shape: [5], dtype: 'f32', values: Float64Array.from({ length: 5 }, () => 4 + random.uniform()) }, { shape: [8], dtype: 'f32', values: [0, 0.25, 1, 1, 0, 0, 0, 0] }], inouts: [real(random, [5, 9], 'f32')], attributes: { column: 3 } })),
];
