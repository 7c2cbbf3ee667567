// A run gone on with after any step ends in the bits of one that was never stopped, weights and state: every two settings meet in some row, and
// a few rows are stopped after every step. The full product is tools/resume.
import { afterAll, describe, expect, test } from 'vitest';
import { coveringArray } from './same.ts';
import { digestOf, isRepeated, resumeAxes, runSteps, Runs } from './resumed.ts';
import type { ResumeRow } from './resumed.ts';

const runs = new Runs();
afterAll(() => runs[Symbol.asyncDispose]());
const words = (row: ResumeRow): string => Object.entries(row).map(([axis, value]) => `${axis} ${value}`).join(', ');
const seen = new Map<string, string>();

describe('every two settings meet', () => {
  const { rows, pairs } = coveringArray<ResumeRow>((row) => !isRepeated(row), resumeAxes);
  test('in the rows below', () => {
    const names = Object.keys(resumeAxes) as (keyof ResumeRow)[];
    const met = new Set(rows.flatMap((row) => names.flatMap((a, i) => names.slice(i + 1).map((b) => `${a} ${row[a]}, ${b} ${row[b]}`))));
    expect(met.size).toBe(pairs);
    expect(met.has('dtype f32, rounding nearest')).toBe(false);
    expect(pairs).toBeGreaterThan(300);
  });

  test.each(rows.map((row) => [words(row), row] as const))('%s', async (name, row) => {
    const whole = await runs.whole(row);
    const digest = await digestOf(whole);
    expect(await runs.resumed(row, { whole, stop: Number(row.stop) })).toBe(digest);
    seen.set(name.replace(/, stop \d/, ''), digest);
  });

  test('other settings have other bits', () => {
    expect(seen.size).toBeGreaterThan(20);
    expect(new Set(seen.values()).size).toBe(seen.size);
  });
});

const everywhere: readonly Partial<ResumeRow>[] = [
  { rule: 'adamw', dtype: 'bf16', clip: 'two-pass', split: 2, scale: 'dynamic', schedule: 'cosine' },
  { rule: 'adalomo', dtype: 'f16', clip: 'file', split: 4, scale: 'none', schedule: 'wsd' },
  { rule: 'lomo', dtype: 'f32', clip: 'none', split: 1, scale: '1024', schedule: 'constant' },
];
test.each(everywhere)('stopped after every step: $rule $dtype $clip', async (some) => {
  const row: ResumeRow = { rule: 'lomo', dtype: 'f32', rounding: 'stochastic', clip: 'none', split: 1, scale: 'none', schedule: 'constant', packing: 'true', stop: 0, ...some };
  const whole = await runs.whole(row);
  const digest = await digestOf(whole);
  for (let stop = 1; stop < runSteps; stop++) expect(await runs.resumed(row, { whole, stop }), `stopped after ${stop}`).toBe(digest);
});
