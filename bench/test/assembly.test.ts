// The work and the tokens that both sides of a comparison must agree on, and our side trained for a few steps.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { lomo } from '@lomo/optim';
import { createModel } from '@lomo/models';
import { Device, DryBackend, Random, ReferenceBackend, tensorOps } from '@lomo/tensor';
import { expect, test } from 'vitest';
import type { Setup } from '../src/assembly.ts';
import { batchesOf, modelWork } from '../src/assembly.ts';
import { measure } from '../src/measure.ts';
import { modelConfig } from '../src/models.ts';

const setup: Setup = { json: modelConfig('1m'), dtype: 'f32', seq: 4, batch: 2, microBatches: 1, rule: lomo, keeps: false };

test('a step takes the next window of bytes, and begins anew where the file ends', () => {
  const stream = Uint8Array.from({ length: 21 }, (_, i) => i);
  // 21 - 8 + 1 = 14 windows: step 2 would begin at 16, which is 2 beyond them.
  expect([0, 1, 2].map((step) => batchesOf(setup, stream, step)[0]!.tokens[0])).toEqual([0, 8, 2]);
  const [batch] = batchesOf(setup, stream, 0);
  expect([...batch!.targets]).toEqual([1, 2, 3, -100, 5, 6, 7, -100]);
  expect([...batch!.positions]).toEqual([0, 1, 2, 3, 0, 1, 2, 3]);
  expect([...batch!.starts]).toEqual([0, 4, 8]);
  expect([...batchesOf({ ...setup, json: { ...setup.json, vocab_size: 5 } }, stream, 0)[0]!.tokens]).toEqual([0, 1, 2, 3, 4, 0, 1, 2]);
});

test.each(['15m', '110m'])('the work of %s is counted from its linear layers and its attention', (name) => {
  const json = modelConfig(name);
  const device = new Device(new DryBackend(new ReferenceBackend({ ops: tensorOps })), { bytes: Infinity });
  const model = createModel(json, device);
  const tied = json['tie_word_embeddings'] === true;
  const linear = model.parameters.filter((p) => p.shape.length === 2 && (tied || !p.path.includes('embed_tokens'))).reduce((sum, p) => sum + p.shape[0]! * p.shape[1]!, 0);
  const [layers, hidden] = [Number(json['num_hidden_layers']), Number(json['hidden_size'])];
  expect(modelWork(model, { ...setup, json, seq: 256, batch: 4 })).toBe(6 * linear * 1024 + 6 * 4 * 256 ** 2 * hidden * layers);
});

test('our side trains and reports what the table needs', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'lomo-bench-'));
  try {
    const text = join(folder, 'tokens');
    writeFileSync(text, Uint8Array.from(new Random(1).ints(4096, 16)));
    const result = await measure({ model: { name: '1m' }, text, optim: 'lomo', dtype: 'f32', seq: 32, batch: 2, steps: 4, warmup: 1, lr: 0.1, threads: 1, keeps: true });
    expect(result.losses).toHaveLength(5);
    // Weights of 0.02 know nothing: every token of the vocabulary is as likely, until 16 of them have been met.
    expect(Math.abs(result.losses[0]! - Math.log(2048))).toBeLessThan(0.1);
    expect(result.losses.at(-1)!).toBeLessThan(result.losses[0]! - 0.05);
    expect(result.times_s).toHaveLength(4);
    expect(result.step_min_s).toBeLessThanOrEqual(result.step_s);
    expect(result.tokens_per_s).toBeCloseTo(64 / result.step_s, 6);
    expect(result.launches).toBeGreaterThan(100);
    // 1,052,800 numbers of four bytes: 2048 x 128, four layers, nine norms.
    expect(result.weights_mib).toBeCloseTo((4 * (2048 * 128 + 4 * (4 * 128 ** 2 + 3 * 128 * 344) + 9 * 128)) / 2 ** 20, 2);
    expect(result.arena_mib).toBeGreaterThan(result.weights_mib);
    expect(result.above_start_mib).toBeGreaterThan(result.weights_mib);
    expect(result.js_us_per_launch).toBeGreaterThan(0);
  } finally {
    rmSync(folder, { recursive: true });
  }
});
