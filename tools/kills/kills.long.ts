// kill -9 at 60 instants drawn at random, saves and recoveries among them: 60 of 60 go on to the bits of a run that nobody disturbed.
// `pnpm test:long kills`; LOMO_KILLS_SEED and LOMO_KILLS_COUNT draw others.
import { expect, test } from 'vitest';
import { kills, places, spell, subjects } from './kills.ts';

const seed = Number(process.env['LOMO_KILLS_SEED'] ?? Date.now() % 2 ** 31);
const count = Number(process.env['LOMO_KILLS_COUNT'] ?? 60);

test(`${count} kills, seed ${seed}`, async () => {
  process.stdout.write(`seed ${seed}: LOMO_KILLS_SEED=${seed} pnpm test:long kills draws the same instants\n`);
  const cases = await kills(subjects(24), { count, seed, tell: (found) => process.stdout.write(`${spell(found)}\n`) });
  const instants = cases.reduce((n, { killed }) => n + killed.length, 0);
  const same = cases.filter((found) => found.same).reduce((n, { killed }) => n + killed.length, 0);
  process.stdout.write(`${same} of ${instants} kills in ${cases.length} runs ended in the same bits; seed ${seed}; ${JSON.stringify(places(cases))}\n`);
  expect(same).toBe(instants);
  expect(instants).toBe(count);
  // A fair share of the instants lies where something could be lost.
  if (count < 60) return;
  expect(places(cases).save ?? 0).toBeGreaterThanOrEqual(12);
  expect(places(cases).resume ?? 0).toBeGreaterThanOrEqual(6);
}, 3_600_000);
