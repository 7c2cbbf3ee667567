// lomo plan as a person meets it: against a named device, without weights, tokenizer or data, at the size of LLaMA-65B; and what it prints.
import { mkdtempSync, readdirSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { lomo, runFile } from '../../../tools/tiny/command.ts';
import { modelFolder } from '../../../tools/tiny/folder.ts';
import { llama65bFolder, measured } from '../../../tools/tiny/measured.ts';
import { memorySize } from '../src/commands/plan_device.ts';

const gibibyte = 2 ** 30;

interface Report {
  readonly optimizers: readonly { readonly name: string; readonly extent: number; readonly peak: number; readonly fits: boolean; readonly parameters: number; readonly atPeak: Record<string, number>; readonly peakAt: { readonly tensor: string; readonly place: Record<string, unknown> }; readonly live: readonly { readonly bytes: number; readonly tensor: string }[]; readonly flops: Record<string, number>; readonly moved: Record<string, number> }[];
  readonly nearest: readonly { readonly settings: Record<string, unknown>; readonly extent: number; readonly time: number }[];
  readonly device: { readonly bytes: number; readonly named: boolean };
}

describe('a device', () => {
  test.each([['24 GiB', 24 * gibibyte], ['24GiB', 24 * gibibyte], ['1.5 gib', 1.5 * gibibyte], ['800 MB', 8e8], ['25769803776', 24 * gibibyte], ['24e9', 24e9]])('%s', (text, size) => {
    expect(memorySize(text)).toBe(size);
  });
  test.each(['', '24 G', 'GiB', '-1 GiB', '0', 'a100'])('%j is none', (text) => {
    expect(() => memorySize(text)).toThrow(/--device ".*": expected a size such as "24 GiB" or a number of bytes/);
  });
});

test('LLaMA-65B from a config.json: what it needs, in which op, and what fits; in seconds and little memory', async () => {
  const { out, processorSeconds, peakBytes } = await measured(['plan', llama65bFolder(), '--device', '24 GiB', '--json', '--max-seq-length', '1024', '--dtype', 'bf16', '--optim', 'lomo', '--global-batch-size', '2', '--stages', 'resident', '--threads', '1']);
  const { optimizers, nearest, device } = JSON.parse(out) as Report;
  expect(device).toEqual({ bytes: 24 * gibibyte, named: true });
  const [own, adalomo, adamw, sgd] = optimizers;
  expect([own!.name, adalomo!.name, adamw!.name, sgd!.name]).toEqual(['lomo', 'adalomo', 'adamw', 'sgd']);
  expect(own!.parameters).toBe(65_285_660_672);
  expect(own!.atPeak['weights']).toBe(2 * own!.parameters);
  expect(adamw!.atPeak['state']).toBe(8 * own!.parameters);
  expect([own!.fits, own!.extent > 121 * gibibyte, own!.extent < 136 * gibibyte]).toEqual([false, true, true]);
  expect(own!.peakAt.place['phase']).toBe('step');
  expect(own!.live.map(({ bytes }) => bytes)).toEqual(own!.live.map(({ bytes }) => bytes).toSorted((a, b) => b - a));
  expect(own!.live.map(({ tensor }) => tensor)).toContain('lm_head.weight');
  // Forward, recompute, and a backward of two products each: 8 operations a number and token at least; a second backward for the global norm.
  expect(own!.flops['step']! / (own!.parameters * 2048)).toBeGreaterThan(8);
  expect(own!.moved['step']!).toBeGreaterThan(3 * own!.atPeak['weights']!);
  expect(nearest.map((n) => n.settings)).toEqual([{ stages: 'streamed' }]);
  expect(nearest[0]!.extent).toBeLessThan(24 * gibibyte);
  expect(nearest[0]!.time).toBeGreaterThan(1);
  expect(processorSeconds).toBeLessThan(20);
  expect(peakBytes).toBeLessThan(1e9);
});

test('on one screen: optimizers side by side, the peak, the choices, the verdict', async () => {
  const { path } = runFile();
  const { out, code } = await lomo(['plan', path, '--clip-mode', 'global', '--device', '100 KiB', '--stages', 'resident', '--gradient-checkpointing', 'false']);
  expect(code).toBe(0);
  expect(out).toMatch(/^ {2}bytes at the peak +lomo +adalomo +adamw +sgd$/m);
  for (const row of ['weights', 'saved', 'reserved', 'of 100 KiB', 'stages are', 'judged by', 'TFLOP a step', 'moved a step', 'time a step']) expect(out).toMatch(new RegExp(`^  ${row} +\\S`, 'm'));
  expect(out).toMatch(/^ {2}peak of lomo: [\d.]+ [KM]iB, when \w+.* asks for [\d.]+ [KM]iB of \w+$/m);
  expect(out).toMatch(/^ {4}in step, pass \w+, (forward|backward|recompute) of .*; event [\d,]+ of [\d,]+$/m);
  expect(out).toMatch(/^ {2}does not fit: it needs [\d.]+ [KM]iB of 100 KiB$/m);
  expect(out.split('\n').length).toBeLessThanOrEqual(45);
  const optimizers = out.split('\n\n').find((block) => block.includes('bytes at the peak'))!;
  for (const line of optimizers.split('\n')) expect(line.length).toBeLessThanOrEqual(80);
});

test('data and tokenizer that are not there yet are said, and planned without', async () => {
  const { path, folder } = runFile();
  const missing = await lomo(['plan', path, '--datasets', JSON.stringify([{ path: join(folder, 'later.jsonl') }])]);
  expect(missing).toMatchObject({ code: 0, err: '' });
  expect(missing.out).toMatch(/later\.jsonl.*: planned from max_seq_length and the batch alone/);
  const model = mkdtempSync(join(tmpdir(), 'lomo-bare-'));
  writeFileSync(join(model, 'config.json'), JSON.stringify({ model_type: 'llama', hidden_size: 16, intermediate_size: 24, num_hidden_layers: 1, num_attention_heads: 2, num_key_value_heads: 1, vocab_size: 32, max_position_embeddings: 64, rms_norm_eps: 1e-5, rope_theta: 10000, hidden_act: 'silu', tie_word_embeddings: true }));
  const bare = await lomo(['plan', path, '--model-name-or-path', model]);
  expect(bare.out).toContain(`${model} has no tokenizer: planned from max_seq_length and the batch alone`);
  const folderAlone = await lomo(['plan', model, '--max-seq-length', '32']);
  expect(folderAlone).toMatchObject({ code: 0, err: '' });
  expect(folderAlone.out).toContain('a model folder, no data: planned from max_seq_length and the batch alone');
  expect((await lomo(['plan', model, '--max-seq-lenght', '32'])).err).toContain("command line: unknown key 'max_seq_lenght'; did you mean 'max_seq_length'?");
});

test('train refuses what does not fit before it starts, with the table and what would fit', async () => {
  const model = modelFolder({ hidden_size: 8192, intermediate_size: 22016, num_hidden_layers: 80, num_attention_heads: 64, num_key_value_heads: 64 });
  const { path, folder } = runFile({ model_name_or_path: model, stages: 'resident' });
  const { code, err } = await lomo(['train', path], { cwd: folder });
  expect(code).toBe(1);
  expect(err).toMatch(/^\s*lomo: the run needs 2\d\d GiB, [\d.]+ \w+ are free; nothing has been started\n {2}weights +2\d\d GiB\n/);
  expect(err).toMatch(/weights and optimizer state alone take 2\d\d GiB\nwhat fits:\n {2}stages: streamed: [\d.]+ [GM]iB, [\d.]+ x the time/);
  expect(readdirSync(folder)).toEqual(['run.yaml']);
});
