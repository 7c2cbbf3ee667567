// Gradient memory, in numbers: one stage's worth however deep the model and however many micro-batches; plain LOMO never more than a tile.
import { lomo } from '@lomo/optim';
import { alignment, Device } from '@lomo/tensor';
import type { Parameter } from '@lomo/tensor';
import { describe, expect, test } from 'vitest';
import type { TrialOptions } from './trial.ts';
import { referenceBackend, Trial } from './trial.ts';

const hidden = 16;
const aligned = (bytes: number): number => Math.ceil(bytes / alignment) * alignment;
const f32Of = (p: Parameter): number => aligned(4 * p.shape.reduce((a, b) => a * b, 1));

async function gradientPeak(options: Omit<TrialOptions, 'optimizer'>): Promise<{ readonly trial: Trial; readonly peak: number }> {
  const { tileBytes } = options;
  const on = new Device(referenceBackend(), { bytes: 8 << 20, ...(tileBytes === undefined ? {} : { tileBytes }) });
  const trial = new Trial({ hidden, vocabulary: 64, ...options, on, optimizer: { rule: lomo } });
  on.arena.resetPeaks();
  await trial.step(1);
  return { trial, peak: on.arena.usage.gradient.peak };
}

/** f32 gradients of the largest stage; vectors are kept as two sums. */
function largestStage(trial: Trial): number {
  return Math.max(...trial.stages.map((stage) => stage.parameters().reduce((sum, p) => sum + (p.shape.length === 1 ? aligned(2 * 4 * p.shape[0]!) : f32Of(p)), 0)));
}

test('exact accumulation over 8 micro-batches costs at most one stage, the same at 4 and at 16 blocks', async () => {
  const [four, sixteen] = [await gradientPeak({ blocks: 4, count: 8, tokens: 64, accumulate: 'buffer', headForm: 'chunks' }), await gradientPeak({ blocks: 16, count: 8, tokens: 64, accumulate: 'buffer', headForm: 'chunks' })];
  expect(sixteen.peak).toBe(four.peak);
  // While a vector settles, its sums and its value are there together.
  expect(four.peak).toBeLessThanOrEqual(largestStage(four.trial) + aligned(4 * hidden));
  const all = sixteen.trial.parameters.reduce((sum, p) => sum + f32Of(p), 0);
  expect(sixteen.peak).toBeLessThan(all / 10);
});

describe('plain LOMO on one micro-batch', () => {
  test.each([1024, 256])('no weight gradient is ever whole: a tile of %i bytes, and the sums of one stage’s vectors', async (tileBytes) => {
    const { trial, peak } = await gradientPeak({ blocks: 4, tokens: 32, headForm: 'tiles', tileBytes });
    const vectors = Math.max(...trial.stages.map((stage) => stage.parameters().filter((p) => p.shape.length === 1).length));
    // The head's own tile holds a whole vocabulary tile, because its sums must not depend on tile sizes; here that is all 64 rows.
    const head = aligned(4 * 64 * hidden);
    expect(peak).toBeLessThanOrEqual(Math.max(head, aligned(tileBytes)) + vectors * aligned(2 * 4 * hidden));
    const { peak: without } = await gradientPeak({ blocks: 4, tokens: 32, headForm: 'tiles', tileBytes, trainable: (name) => name !== 'head' });
    expect(without).toBeLessThanOrEqual(aligned(tileBytes) + vectors * aligned(2 * 4 * hidden));
  });
});
