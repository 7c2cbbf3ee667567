// The picture's numbers are the plan's, and the picture shows them.
import { cpu } from '@lomo/cpu';
import { categories } from '@lomo/tensor';
import { afterAll, expect, test } from 'vitest';
import { planStep } from '../src/assembly.ts';
import { modelConfig } from '../src/models.ts';
import { provenTimeline, setupOf, sides } from '../src/picture.ts';
import { drawTimeline } from '../src/timeline.ts';
import type { Moment } from '../src/timeline.ts';

const backend = cpu({ threads: 1 });
afterAll(() => backend[Symbol.asyncDispose]());
const json = modelConfig('1m');
const total = ({ live }: Moment): number => categories.reduce((sum, c) => sum + live[c], 0);

test('a step with LOMO holds what the plan says, category by category', async () => {
  const setup = setupOf(sides.lomo, json);
  const [plan, timeline] = [await planStep(backend, setup), await provenTimeline(backend, setup)];
  expect(timeline.peak).toBe(plan.peak);
  expect(timeline.extent).toBe(plan.extent);
  const fullest = timeline.moments.find((moment) => total(moment) === plan.peak);
  expect(fullest?.live).toEqual(plan.atPeak);
  // What a step made it has given back, and it begins where it ends.
  expect(timeline.moments.at(-1)?.live).toEqual(timeline.moments[0]?.live);
  expect(timeline.backward).toBeGreaterThan(0);
  expect(timeline.update).toBeNull();
});

test('updates after backward keep every gradient until then', async () => {
  const [of, adam] = [await provenTimeline(backend, setupOf(sides.lomo, json)), await provenTimeline(backend, setupOf(sides.adamw, json))];
  const { weights, state } = adam.moments[0]!.live;
  expect(weights).toBe(of.moments[0]!.live.weights);
  // Two moments a weight; blocks are multiples of 256 bytes.
  expect(state).toBe(2 * weights);
  expect(Math.max(...adam.moments.map((m) => m.live.gradient))).toBeGreaterThanOrEqual(weights);
  expect(Math.max(...of.moments.map((m) => m.live.gradient))).toBeLessThan(weights / 2);
  expect(adam.update).toBeGreaterThan(adam.backward);
  expect(adam.moments.at(-1)?.live).toEqual(adam.moments[0]?.live);
  const svg = drawTimeline(
    [
      { title: 'AdamW', subtitle: 'after', timeline: adam },
      { title: 'LOMO', subtitle: 'inside', timeline: of },
    ],
    { heading: 'Memory', caption: 'of a step' },
  );
  for (const { peak } of [of, adam]) expect(svg).toContain(`peak ${Math.round(peak / 2 ** 20)} MiB`);
  expect(svg).toContain(`${Math.round((100 * of.peak) / adam.peak)} % of AdamW's`);
  expect(svg).not.toMatch(/NaN|undefined|Infinity/);
});
