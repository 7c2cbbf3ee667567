// lomo diff on real checkpoints: what it says, in which order, with which exit code.
import { execFile } from 'node:child_process';
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { createModel, loadModel, readConfig, saveModel } from '@lomo/models';
import { optimOps } from '@lomo/optim';
import { Device, ReferenceBackend, tensorOps } from '@lomo/tensor';
import { fit, listCheckpoints, openSession, parseRun } from '@lomo/trainer';
import { afterEach, beforeAll, describe, expect, test, vi } from 'vitest';
import { dataFile, modelFolder } from '../../../tools/tiny/folder.ts';
import { diff } from '../src/commands/diff.ts';

const backend = new ReferenceBackend({ ops: [...tensorOps, ...optimOps], precision: 'f32' });
/** Checkpoints of one run: after step 1, after step 2. */
let first: string;
let second: string;

beforeAll(async () => {
  const { config } = parseRun({
    model_name_or_path: modelFolder(), init: 'random', datasets: [{ path: dataFile() }], max_seq_length: 16, per_device_train_batch_size: 4, gradient_accumulation_steps: 2,
    max_steps: 2, optim: 'adamw', learning_rate: 0.01, output_dir: mkdtempSync(join(tmpdir(), 'lomo-diff-')), save_steps: 1, save_total_limit: 2, warmup_steps: 0,
  });
  const session = await openSession({ config, backend, memory: 2 ** 30 });
  for await (const _ of fit(session));
  await session.close();
  [second, first] = (await listCheckpoints(session.root)).map(({ path }) => path) as [string, string];
});
afterEach(() => vi.restoreAllMocks());

/** What `lomo diff a b` prints, and its exit code. */
async function shown(a: string, b: string, flags: { all?: boolean; json?: boolean } = {}): Promise<{ readonly code: number; readonly out: string }> {
  const parts: string[] = [];
  const write = vi.spyOn(process.stdout, 'write').mockImplementation((text) => parts.push(String(text)) > 0);
  try {
    return { code: await diff(a, b, flags), out: parts.join('') };
  } finally {
    write.mockRestore();
  }
}

function copy(folder: string): string {
  const path = join(mkdtempSync(join(tmpdir(), 'lomo-diff-')), 'copy');
  cpSync(folder, path, { recursive: true });
  return path;
}

test('a checkpoint and its copy are equal', async () => {
  const { code, out } = await shown(second, copy(second));
  expect(code).toBe(0);
  expect(out).toContain('weights: all 20 tensors equal, 4,432 elements');
  expect(out).toContain('optimizer state: all 40 tensors equal');
  expect(out.trimEnd().endsWith('\nequal')).toBe(true);
  expect(out).not.toContain('->');
  expect(out).not.toContain('compared');
});

test('two steps of a run: every tensor with its change, the largest first, and what the trainer knows', async () => {
  const { code, out } = await shown(first, second);
  expect(code).toBe(1);
  expect(out).toMatch(/weights +type +changed +largest change +relative +norm\n/);
  expect(out).toMatch(/ {2}model\.\S+ +f32 \[[\d, ]+\] +\d+\.\d % +0\.0\d+ /);
  expect(out).toMatch(/optimizer state +type/);
  expect(out).toContain('and 20 more that differ (--all shows every tensor)');
  expect(out).toContain('trainer_state.json step: 1 -> 2');
  expect(out).not.toMatch(/trainer_state.json (files|sizes|sha256)/);
  expect(out).toMatch(/weights: 20 of 20 tensors differ; [\d,]+ of 4,432 elements changed \(\d+\.\d %\), the largest change 0\.0\d+ in model\./);
  expect(out.trimEnd().endsWith('\ndifferent')).toBe(true);
  const largest = [...out.split('optimizer state')[0]!.matchAll(/% +([\d.e-]+) /g)].map((match) => Number(match[1]));
  expect(largest).toEqual(largest.toSorted((x, y) => y - x));
  expect(largest.length).toBe(20);
});

test('--json has every number, and --all every tensor', async () => {
  const { code, out } = await shown(first, second, { json: true });
  expect(code).toBe(1);
  const result = JSON.parse(out) as { equal: boolean; weights: { name: string; kind: string; changed: number; elements: number; maxAbsolute: number; normOfChange: number }[]; optimizer: unknown[]; state: { where: string }[]; files: unknown[] };
  expect(result).toMatchObject({ equal: false, files: [] });
  expect(result.weights).toHaveLength(20);
  expect(result.optimizer).toHaveLength(40);
  expect(result.state.map(({ where }) => where)).toContain('trainer_state.json step');
  // AdamW's second step moves a weight by at most about the learning rate.
  for (const one of result.weights) expect(one.maxAbsolute).toBeLessThan(0.011);
  expect(result.weights.every(({ normOfChange }) => normOfChange > 0)).toBe(true);

  const all = await shown(second, copy(second), { all: true });
  expect(all.out.match(/ {3}equal$/gm)).toHaveLength(60);
});

describe('one difference is found and named', () => {
  test('one bit of one weight', async () => {
    const folder = copy(second);
    const path = join(folder, 'model.safetensors');
    const bytes = readFileSync(path);
    bytes[bytes.byteLength - 3]! ^= 0x10;
    writeFileSync(path, bytes);
    const { code, out } = await shown(second, folder);
    expect(code).toBe(1);
    expect(out).toMatch(/weights: 1 of 20 tensors differ; 1 of 4,432 elements changed \(< 0\.1 %\), the largest change \S+ in model\./);
  });

  test('another type: equal as numbers where it holds them all', async () => {
    const folder = copy(second);
    rmSync(join(folder, 'model.safetensors'));
    const device = new Device(backend, { bytes: 2 ** 22 });
    const model = await loadModel(second, device, { dtype: 'bf16' });
    const half = join(mkdtempSync(join(tmpdir(), 'lomo-diff-')), 'half');
    await saveModel(model, half, { from: second });
    model.dispose();
    const { code, out } = await shown(second, half);
    expect(code).toBe(1);
    expect(out).toMatch(/f32 -> bf16 \[[\d, ]+\] +\d+\.\d % +\S+ +0\.00\d+/);
    expect(out).toContain('config.json torch_dtype: only in B ("bfloat16")');
    // Rounded once, the other way changes nothing: the f32 of the rounded ones.
    const wide = join(mkdtempSync(join(tmpdir(), 'lomo-diff-')), 'wide');
    const again = await loadModel(half, device, { dtype: 'f32' });
    await saveModel(again, wide, { from: half });
    again.dispose();
    expect((await shown(half, wide)).out).toMatch(/bf16 -> f32 \[[\d, ]+\] +0\.0 % +0 +0 +0/);
    device.free();
  });

  test('other shapes, and tensors that only one has', async () => {
    const device = new Device(backend, { bytes: 2 ** 22 });
    const config = await readConfig(second);
    const model = createModel({ ...config, num_hidden_layers: 1, intermediate_size: 32 }, device);
    const other = join(mkdtempSync(join(tmpdir(), 'lomo-diff-')), 'other');
    await saveModel(model, other);
    device.free();
    const { code, out } = await shown(second, other);
    expect(code).toBe(1);
    expect(out).toMatch(/model\.layers\.1\.\S+ +f32 \[[\d, ]+\] -> - +only in A/);
    expect(out).toMatch(/model\.layers\.0\.mlp\.up_proj\.weight +f32 \[24, 16\] -> f32 \[32, 16\] +other shape/);
    expect(out).toContain('config.json num_hidden_layers: 2 -> 1');
    expect(out).toMatch(/tensors differ \(\d+ missing or of another shape\)/);
    expect(out.indexOf('only in A')).toBeLessThan(out.indexOf(' % '));
  });

  test('a tokenizer', async () => {
    const folder = copy(second);
    writeFileSync(join(folder, 'tokenizer.json'), `${readFileSync(join(folder, 'tokenizer.json'), 'utf8')}\n`);
    const { code, out } = await shown(second, folder);
    expect(code).toBe(1);
    expect(out).toMatch(/ {2}tokenizer\.json: \d+ bytes -> \d+ bytes, others/);
  });
});

describe('the command', () => {
  const cli = fileURLToPath(new URL('../dist/cli.js', import.meta.url));
  const lomo = (...args: readonly string[]): Promise<{ readonly code: number; readonly out: string; readonly err: string }> =>
    new Promise((done) => {
      const child = execFile(process.execPath, [cli, 'diff', ...args], (_, out, err) => done({ code: child.exitCode ?? -1, out, err }));
    });

  test('exits 0, 1 or 2', async () => {
    expect((await lomo(second, second)).code).toBe(0);
    expect((await lomo(first, second)).code).toBe(1);
    expect(await lomo(second, join(second, 'absent'))).toMatchObject({ code: 2, err: expect.stringContaining('is not a folder') });
    expect((await lomo(second)).code).toBe(2);
    expect((await lomo(second, second, '--al')).code).toBe(2);
    const help = await lomo('--help');
    expect(help.code).toBe(0);
    expect(help.out).toContain('Exit code: 0 where nothing differs, 1 where something does, 2');
  });
});
