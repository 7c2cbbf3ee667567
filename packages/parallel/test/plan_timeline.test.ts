// The timeline of a plan: it adds up to the plan's numbers, blocks never overlap while they live, and everything has a name and a place.
import { adamw, lomo } from '@lomo/optim';
import { categories } from '@lomo/tensor';
import { expect, test } from 'vitest';
import type { MemoryPlan } from '../src/index.ts';
import { blockWords, makePlan, peakOf, placeWords } from '../src/index.ts';
import type { TrialOptions } from './trial.ts';
import { referenceBackend, Trial } from './trial.ts';

function planOf(options: TrialOptions): Promise<MemoryPlan> {
  return makePlan(referenceBackend(options), function* (on) {
    let trial: Trial | null = null;
    yield { name: 'setup', run: () => void (trial = new Trial({ ...options, on })) };
    yield { name: 'step', run: async () => void (await trial!.step(1)) };
  });
}

const cases: readonly (readonly [string, TrialOptions])[] = [
  ['lomo, four micro-batches, factors', { optimizer: { rule: lomo }, count: 4, accumulate: 'factors', tied: true }],
  ['lomo, kept tapes, two passes', { optimizer: { rule: lomo, clip: { norm: 1 } }, keeps: true }],
  ['adamw, a buffer', { optimizer: { rule: adamw() }, count: 2, accumulate: 'buffer', blocks: 2 }],
];

test.each(cases)('%s: the curve is the plan, category by category, and no two live blocks overlap', async (_, options) => {
  const plan = await planOf(options);
  const { timeline } = plan;
  const peaks = categories.map(() => 0);
  let [peak, peakAt] = [0, -1];
  timeline.curve((at, live, total) => {
    live.forEach((bytes, c) => (peaks[c] = Math.max(peaks[c]!, bytes)));
    expect(live.reduce((a, b) => a + b)).toBe(total);
    if (total > peak) [peak, peakAt] = [total, at];
  });
  expect([peak, peakAt]).toEqual([plan.peak, plan.peakAt]);
  expect(Object.fromEntries(categories.map((c, i) => [c, peaks[i]]))).toEqual(plan.byCategory);

  const { event, blocks } = peakOf(plan);
  expect(event.kind).toBe('allocated');
  expect(blocks.map(({ id }) => id)).toContain(event.block.id);
  expect(Object.fromEntries(categories.map((c) => [c, blocks.filter(({ category }) => category === c).reduce((n, b) => n + b.bytes, 0)]))).toEqual(plan.atPeak);
  for (const [i, block] of blocks.entries()) expect(block.bytes).toBeLessThanOrEqual(blocks[i - 1]?.bytes ?? Infinity);
  const laidOut = blocks.toSorted((a, b) => a.offset - b.offset);
  laidOut.forEach((block, i) => expect(block.offset).toBeGreaterThanOrEqual(i === 0 ? 0 : laidOut[i - 1]!.offset + laidOut[i - 1]!.bytes));

  const allocated = [...plan.phases.values()].flat();
  expect(timeline.allocations).toBe(allocated.length);
  allocated.forEach((a, id) => expect(timeline.block(id)).toMatchObject(a));
  const last = timeline.event(timeline.length - 1);
  expect(last.launches).toBeLessThanOrEqual([...plan.launches.values()].reduce((a, b) => a + b));
  expect(plan.moved.get('step')!).toBeGreaterThan(plan.moved.get('setup')!);
});

test('everything has a name and a place', async () => {
  const { timeline } = await planOf(cases[2]![1]);
  const blocks = Array.from({ length: timeline.allocations }, (_, id) => timeline.block(id));
  const words = (test: (b: (typeof blocks)[number]) => boolean): readonly string[] => [...new Set(blocks.filter(test).map((b) => `${blockWords(b)} | ${placeWords(b.place)}`))];
  expect(words(({ category }) => category === 'weights')).toContain('block 0.q | setup');
  expect(words(({ category }) => category === 'state').filter((w) => w.startsWith('block 0.q '))).toHaveLength(2);
  expect(words(({ category }) => category === 'gradient')).toContain('gradient of block 1.up | step, pass update, backward of block 1, micro-batch 0');
  expect(words(({ op }) => op === 'matmul')).toContain('matmul with block 1.up | step, pass update, forward of block 1, micro-batch 1');
  expect(words(({ op, place }) => op === 'matmul' && place.part === 'recompute')).toContain('matmul with block 1.up | step, pass update, recompute of block 1, micro-batch 1');
  // What an op made and a stage gave on is a boundary from then on.
  const kept = timeline.columns.events.kind.findIndex((_, at) => timeline.event(at).kind === 'assigned' && timeline.event(at).category === 'boundary');
  expect(timeline.event(kept).block).toMatchObject({ category: 'workspace', op: 'embedding', of: 'embed' });
  expect(timeline.liveAt(kept).find(({ id }) => id === timeline.event(kept).block.id)?.category).toBe('boundary');
});
