// Runs on CUDA stopped after every step and gone on with, for every rule, dtype and way to clip: the bits of a run that was never stopped.
// `pnpm test:long cuda/resume`.
import { afterAll, expect, test } from 'vitest';
import { digestOf, Runs, runSteps } from '../../apps/lomo/test/resumed.ts';
import type { ResumeRow } from '../../apps/lomo/test/resumed.ts';
import build from '../../packages/cuda/test/build.ts';
import { double } from '../../packages/cuda/test/double.ts';

build();
const runs = new Runs(double());
afterAll(() => runs[Symbol.asyncDispose]());

const plain: ResumeRow = { rule: 'lomo', dtype: 'bf16', rounding: 'stochastic', clip: 'none', split: 1, scale: 'none', schedule: 'cosine', packing: 'true', stop: 0 };
const rows: readonly ResumeRow[] = [
  { ...plain, split: 4 },
  { ...plain, dtype: 'f16', clip: 'memory', scale: '1024', schedule: 'wsd' },
  { ...plain, rule: 'adalomo', clip: 'parameter', split: 2, schedule: 'constant' },
  { ...plain, rule: 'adalomo', dtype: 'f16', clip: 'two-pass', scale: 'dynamic', packing: 'false' },
  { ...plain, rule: 'adamw', dtype: 'f32', clip: 'file', split: 2, schedule: 'wsd' },
  { ...plain, rule: 'sgd', rounding: 'nearest', clip: 'value', packing: 'false' },
];

test.each(rows.map((row) => [`${row.rule} ${row.dtype}, clip ${row.clip}`, row] as const))('%s', async (_, row) => {
  const whole = await runs.whole(row);
  const digest = await digestOf(whole);
  for (let stop = 1; stop < runSteps; stop++) expect(await runs.resumed(row, { whole, stop }), `stopped after ${stop}`).toBe(digest);
}, 3_600_000);
