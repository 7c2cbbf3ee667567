// The full product of what leaves something behind for the next step, stopped after every step: each ends in the bits of the run that was never
// stopped. Schedules and packing, pure functions of the step, take turns. 1,080 runs and 4,320 resumes: `pnpm test:long resume`.
import { rm } from 'node:fs/promises';
import { afterAll, expect, test } from 'vitest';
import { digestOf, isRepeated, resumeAxes, runSteps, Runs } from '../../apps/lomo/test/resumed.ts';
import type { ResumeRow } from '../../apps/lomo/test/resumed.ts';
import { product } from '../../apps/lomo/test/same.ts';

const runs = new Runs();
afterAll(() => runs[Symbol.asyncDispose]());

const { rule, dtype, rounding, clip, split, scale, schedule, packing } = resumeAxes;
const rows = product<ResumeRow>({ rule, dtype, rounding, clip, split, scale })
  .map((row, i): ResumeRow => ({ ...row, schedule: schedule[i % schedule.length]!, packing: packing[Math.floor(i / schedule.length) % packing.length]!, stop: 0 }))
  .filter((row) => !isRepeated(row));
const kinds = rule.flatMap((r) => dtype.flatMap((d) => clip.map((c) => [r, d, c] as const)));

test.each(kinds)('%s in %s, clipped by: %s', async (r, d, c) => {
  const wrong: string[] = [];
  const some = rows.filter((row) => row.rule === r && row.dtype === d && row.clip === c);
  for (const row of some) {
    const whole = await runs.whole(row);
    const digest = await digestOf(whole);
    for (let stop = 1; stop < runSteps; stop++) if ((await runs.resumed(row, { whole, stop })) !== digest) wrong.push(`${Object.values(row).join(', ')}: stopped after ${stop}`);
    await rm(whole, { recursive: true });
  }
  expect(wrong).toEqual([]);
  expect(some.length).toBe(d === 'f32' ? 9 : 18);
}, 1_800_000);
