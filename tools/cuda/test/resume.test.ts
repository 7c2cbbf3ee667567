// Whole runs of @lomo/trainer on CUDA: the plan is held (openSession stops a first step that differs), and a run gone on with after a checkpoint ends
// in the bits of one that was never stopped. The settings meet in pairs in apps/lomo for the CPU; `pnpm test:long cuda` stops after every step.
import { fit, openSession, parseRun } from '@lomo/trainer';
import { isLomoError } from '@lomo/tensor';
import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, describe, expect, test } from 'vitest';
import { digestOf, Runs } from '../../../apps/lomo/test/resumed.ts';
import type { ResumeRow } from '../../../apps/lomo/test/resumed.ts';
import { double } from '../../../packages/cuda/test/double.ts';
import { dataFile, modelFolder } from '../../tiny/folder.ts';

const runs = new Runs(double());
afterAll(() => runs[Symbol.asyncDispose]());
afterEach(() => {
  delete process.env['LOMO_DOUBLE_MEMORY'];
});

const plain: ResumeRow = { rule: 'lomo', dtype: 'bf16', rounding: 'stochastic', clip: 'none', split: 1, scale: 'none', schedule: 'cosine', packing: 'true', stop: 2 };
const rows: readonly ResumeRow[] = [
  { ...plain, rule: 'adalomo', dtype: 'f16', clip: 'two-pass', scale: 'dynamic', stop: 4, packing: 'false' },
];
describe('gone on with', () => {
  test.each(rows.map((row) => [`${row.rule} ${row.dtype}, clip ${row.clip}, stopped after ${row.stop}`, row] as const))('%s', async (_, row) => {
    const whole = await runs.whole(row);
    expect(await runs.resumed(row, { whole, stop: Number(row.stop) })).toBe(await digestOf(whole));
  });
});

test('a device without room for the plan: OutOfMemory before the first step, and nothing stays reserved', async () => {
  process.env['LOMO_DOUBLE_MEMORY'] = '16'; // MiB, of which a context takes a part
  const backend = double();
  const { config } = parseRun({
    model_name_or_path: modelFolder({ hidden_size: 512, intermediate_size: 2048 }), init: 'random', datasets: [{ path: dataFile() }], max_seq_length: 16, per_device_train_batch_size: 4, max_steps: 1,
    optim: 'adamw', learning_rate: 0.01, output_dir: mkdtempSync(join(tmpdir(), 'lomo-cuda-oom-')),
  });
  let code = 'nothing thrown';
  try {
    const session = await openSession({ config, backend, memory: 2 ** 30 });
    for await (const event of fit(session)) if ('error' in event) throw event.error;
  } catch (error) {
    if (!isLomoError(error)) throw error;
    code = `${error.code}: ${error.message}`;
  }
  expect(code).toMatch(/^OutOfMemory: /);
  expect(backend.reserved()).toBe(0);
  await backend[Symbol.asyncDispose]();
});
