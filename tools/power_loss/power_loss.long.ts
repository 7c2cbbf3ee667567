// Power losses at random instants: 200, then 2,000 in longer lives, and how many acknowledged saves careless savers lose. `pnpm test:long power_loss`.
import { expect, test } from 'vitest';
import { Draw } from './draw.ts';
import { runThrough } from './run_trial.ts';
import { lives } from './trial.ts';

const first = Date.now() % 1e9;
const draw = (seed: number): Draw => new Draw(seed);

test.each([[200, 1], [2000, 25]])('%i crashes, %i to a disk: every acknowledged save is found', async (crashes, crashesEach) => {
  const { acknowledged, wrong } = await lives(crashes, { first, crashesEach, draw });
  console.log(`${crashes - wrong.length} of ${crashes} crashes survived (${acknowledged} saves acknowledged, seeds from ${first})`);
  expect(wrong).toEqual([]);
});

test.each(['no sync at all', 'files not synced', 'folders not synced', 'removes before it renames'] as const)('%s: found out', async (sabotage) => {
  const { crashes, acknowledged, wrong } = await lives(200, { first, crashesEach: 1, draw, sabotage });
  console.log(`${sabotage}: ${wrong.length} of ${crashes} crashes lost or tore an acknowledged save (${acknowledged} acknowledged)`);
  expect(wrong.length).toBeGreaterThan(0);
});

test.each(['lomo', 'adalomo', 'adamw'])('20 runs of %s that lose power while they train and save', async (optim) => {
  let [lost, acknowledged] = [0, 0];
  for (let run = 0; run < 20; run++) {
    const life = await runThrough({ draw: draw(first + run), crashes: 12, optim });
    expect(life.wrong, `seed ${first + run}`).toBeNull();
    lost += life.crashes;
    acknowledged += life.acknowledged;
  }
  console.log(`20 of 20 runs of ${optim} ended in the bits of an undisturbed one after ${lost} power losses (${acknowledged} saves acknowledged, seeds from ${first})`);
});
