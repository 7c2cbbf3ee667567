// kill -9 at 8 instants drawn at random: 8 of 8 go on to the bits of a run that nobody disturbed. 60 of them: `pnpm test:long kills`.
import { existsSync } from 'node:fs';
import { expect, test } from 'vitest';
import { cli } from '../tiny/command.ts';
import { kills, spell, subjects } from './kills.ts';

test('8 kills', async () => {
  if (!existsSync(cli)) throw new Error(`${cli} is not there: build first (pnpm turbo run build --filter=lomo...)`);
  const seed = Number(process.env['LOMO_KILLS_SEED'] ?? Date.now() % 2 ** 31);
  process.stdout.write(`seed ${seed}: LOMO_KILLS_SEED=${seed} draws the same instants\n`);
  const cases = await kills(subjects(8).slice(0, 2), { count: 8, seed });
  for (const found of cases) process.stdout.write(`${spell(found)}\n`);
  expect(cases.filter(({ same }) => !same).map(spell), `seed ${seed}`).toEqual([]);
  expect(cases.reduce((n, { killed }) => n + killed.length, 0)).toBe(8);
});
