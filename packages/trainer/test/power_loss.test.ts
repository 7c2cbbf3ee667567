// A slice of tools/power_loss: acknowledged saves survive power losses, and a careless saver is found out.
import { expect, test } from 'vitest';
import { Draw } from '../../../tools/power_loss/draw.ts';
import { runThrough } from '../../../tools/power_loss/run_trial.ts';
import { lives } from '../../../tools/power_loss/trial.ts';

const first = Date.now() % 1e6;
const draw = (seed: number): Draw => new Draw(seed);

test(`no acknowledged save is lost in 30 power losses (seeds from ${first})`, async () => {
  const { crashes, acknowledged, wrong } = await lives(30, { first, crashesEach: 3, draw });
  expect(wrong).toEqual([]);
  expect(crashes).toBe(30);
  expect(acknowledged).toBeGreaterThan(10);
});

test.each(['no sync at all', 'files not synced', 'folders not synced', 'removes before it renames'] as const)('a saver with %s loses some', async (sabotage) => {
  const { wrong } = await lives(sabotage === 'removes before it renames' ? 100 : 20, { first: 1, crashesEach: 1, draw, sabotage });
  expect(wrong.length).toBeGreaterThan(0);
});

test(`a run that loses power while it trains and saves ends in the bits of one that does not (seed ${first})`, async () => {
  const { crashes, wrong } = await runThrough({ draw: draw(first), crashes: 6, optim: 'adamw' });
  expect(wrong).toBeNull();
  expect(crashes).toBeGreaterThan(0);
});
