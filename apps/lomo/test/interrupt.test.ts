// SIGINT and SIGTERM in every phase of a run, by real processes: what is printed, what is left on the disk, what the process ends in, what goes on.
import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { readState, surveyCheckpoints } from '@lomo/trainer';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { cli, lomo, runFile, start } from '../../../tools/tiny/command.ts';
import type { Outcome, Running } from '../../../tools/tiny/command.ts';
import { dataFile, modelFolder } from '../../../tools/tiny/folder.ts';

beforeAll(() => {
  if (!existsSync(cli)) throw new Error(`${cli} is not there: build first (pnpm turbo run build --filter=lomo...)`);
});

const codes = { SIGINT: 130, SIGTERM: 143 } as const;

/** Seconds from each signal to the end of its process, what it waited for a processor that others used taken off. */
const took: { readonly test: string; readonly seconds: number }[] = [];
afterAll(() => {
  for (const { test: name, seconds } of took) process.stdout.write(`${seconds.toFixed(2)} s from the signal to the end: ${name}\n`);
});

/** Sends `signal` as soon as `check` holds. Within 10 s the process has ended, and every checkpoint that is there is whole. */
async function struck(run: Running, check: () => boolean, signal: keyof typeof codes): Promise<Outcome> {
  expect(await run.until(check), run.out).toBe(true);
  const [asked, before] = [performance.now(), run.waited()];
  let waited = before;
  const watch = setInterval(() => (waited = Math.max(waited, run.waited())), 10);
  run.kill(signal);
  const outcome = await run.ended;
  clearInterval(watch);
  const seconds = (performance.now() - asked) / 1000 - (waited - before);
  took.push({ test: expect.getState().currentTestName ?? '', seconds });
  expect(seconds).toBeLessThan(10);
  await expectWhole(run.cwd);
  expect(outcome.err).toBe('');
  expect(outcome.out).not.toMatch(/^ {4}at /m);
  expect(outcome.code, outcome.out).toBe(codes[signal]);
  return outcome;
}

/** Every checkpoint of the runs in `folder` is complete, and each of its files has the SHA-256 that its manifest says. */
async function expectWhole(folder: string): Promise<void> {
  const roots = ['runs/run', 'fresh', 'other', 'anew'].map((name) => join(folder, name));
  for (const root of roots) {
    const { complete, damaged } = await surveyCheckpoints(root);
    expect(damaged).toEqual([]);
    for (const { path, state } of complete) {
      for (const [name, sum] of Object.entries(state.files)) expect(createHash('sha256').update(readFileSync(join(path, name))).digest('hex'), join(path, name)).toBe(sum);
    }
    if (existsSync(root)) expect(readdirSync(root).filter((name) => /^\.|\.(partial|replaced)$/.test(name))).toEqual([]);
  }
}

/** Lines of metrics.jsonl so far. */
function metrics(folder: string): { readonly kind: string; readonly step: number; readonly milliseconds?: number }[] {
  const path = join(folder, 'runs/run/metrics.jsonl');
  if (!existsSync(path)) return [];
  return readFileSync(path, 'utf8').split('\n').filter((line) => line.endsWith('}')).map((line) => JSON.parse(line) as { kind: string; step: number; milliseconds?: number });
}

const left = (folder: string): string[] => (existsSync(join(folder, 'runs/run')) ? readdirSync(join(folder, 'runs/run')).filter((name) => name.startsWith('step-')) : []);
const steps = (folder: string): number => metrics(folder).filter(({ kind }) => kind === 'step').length;
const endless = { max_steps: 100_000, lr_scheduler_type: 'constant' };

describe('before there is anything to save, the process ends, and says so', () => {
  test.each([
    ['tokenizing', 'SIGINT', { datasets: [{ path: dataFile(150_000) }] }],
    ['planning', 'SIGTERM', { model_name_or_path: modelFolder({ num_hidden_layers: 24 }) }],
  ] as const)('%s, %s', async (phase, signal, settings) => {
    const { folder, path } = runFile({ ...endless, ...settings });
    const run = start(['train', path, '--learning-rate', '0.2'], { cwd: folder });
    const { out } = await struck(run, () => run.out.includes(`${phase} ...`), signal);
    expect(out).toContain(`stopped while ${phase}: nothing was trained, nothing is lost\n  next: lomo train ${path} --learning-rate 0.2\n`);
    expect(left(folder)).toEqual([]);
  });
});

describe('with a checkpoint of 12 MiB', () => {
  const { folder, path } = runFile({ ...endless, model_name_or_path: modelFolder({ vocab_size: 16_384, hidden_size: 64 }), optim: 'adamw', learning_rate: 1e-3, save_steps: 1, eval_datasets: [{ path: dataFile(4000) }], eval_steps: 1000 });

  test('saving, SIGTERM: the save is finished', async () => {
    const run = start(['train', path], { cwd: folder });
    const { out } = await struck(run, () => left(folder).some((name) => name.endsWith('.partial')), 'SIGTERM');
    const newest = left(folder).toSorted().at(-1)!;
    expect(left(folder).some((name) => name.endsWith('.partial'))).toBe(false);
    const { step } = await readState(join(folder, 'runs/run', newest));
    expect(out).toContain('once more to stop at once');
    expect(out).toMatch(new RegExp(`stopped at step ${step} of 100000, saved runs/run/${newest}\n  next: lomo train `));
  });

  test('loading the checkpoint, SIGINT: it is as it was', async () => {
    const before = left(folder);
    const run = start(['train', path], { cwd: folder });
    const { out } = await struck(run, () => run.out.includes('sample '), 'SIGINT');
    expect(out).toContain('stopped while loading the checkpoint: nothing was trained, nothing is lost');
    expect(left(folder)).toEqual(before);
    const pretrained = start(['train', path, '--init', 'pretrained', '--model-name-or-path', join('runs/run', before.at(-1)!), '--output-dir', 'other'], { cwd: folder });
    expect((await struck(pretrained, () => pretrained.out.includes('loading weights ...'), 'SIGTERM')).out).toContain('stopped while loading weights: nothing was trained');
  });

  test('evaluating before the first step, SIGINT', async () => {
    const run = start(['train', path, '--output-dir', 'fresh', '--save-steps', '1000'], { cwd: folder });
    const { out } = await struck(run, () => run.out.includes('evaluating ...'), 'SIGINT');
    expect(out).toContain('stopped while evaluating: nothing was trained, nothing is lost');
  });
});

test('in a step, SIGTERM: that step is finished or not begun, and saved; the command that is printed goes on', async () => {
  const { folder, path } = runFile(endless);
  const run = start(['train', path, '--seed', '9'], { cwd: folder });
  const { out } = await struck(run, () => steps(folder) > 2, 'SIGTERM');
  const [, step, saved, next] = /stopped at step (\d+) of 100000, saved (\S+)\n  next: lomo (.*)\n/.exec(out)!;
  expect([next, steps(folder)]).toEqual([`train ${path} --seed 9`, Number(step)]);
  expect((await readState(join(folder, saved!))).step).toBe(Number(step));
  const again = start(next!.split(' '), { cwd: folder });
  expect((await struck(again, () => steps(folder) > Number(step) + 2, 'SIGINT')).out).toContain(`step ${step} of 100000 is done`);
  // A run told to begin anew is gone on with by name.
  const anew = start([...next!.split(' '), '--resume-from-checkpoint', 'false', '--output-dir', 'anew'], { cwd: folder });
  expect((await struck(anew, () => existsSync(join(folder, 'anew/metrics.jsonl')), 'SIGINT')).out).toMatch(/next: lomo resume \S+run\.yaml anew\/step-\d+ --seed 9 --output-dir anew\n/);
});

test('in a long step, SIGINT: given up before its first update', async () => {
  const { folder, path } = runFile({ ...endless, model_name_or_path: modelFolder({ hidden_size: 256, intermediate_size: 1536, num_hidden_layers: 4, num_attention_heads: 4, num_key_value_heads: 4 }), datasets: [{ path: dataFile(9000) }], per_device_train_batch_size: 512, max_steps: 50 });
  const run = start(['train', path], { cwd: folder });
  expect(await run.until(() => existsSync(join(folder, 'runs/run/metrics.jsonl'))), run.out).toBe(true);
  await new Promise((resolve) => setTimeout(resolve, 100));
  const { out } = await struck(run, () => true, 'SIGINT');
  expect(out).toContain(`stopped at step 0 of 50, nothing to save\n  next: lomo train ${path}\n`);
  expect([metrics(folder), left(folder)]).toEqual([[], []]);
});

test('in the backward pass of a long step, SIGTERM: it says what it does first; the step is given up whole or finished, and saved', async () => {
  const { folder, path } = runFile({ ...endless, model_name_or_path: modelFolder({ hidden_size: 128, intermediate_size: 768, num_hidden_layers: 4, num_attention_heads: 4, num_key_value_heads: 4 }), datasets: [{ path: dataFile(9000) }], per_device_train_batch_size: 512, max_steps: 50 });
  const run = start(['train', path], { cwd: folder });
  expect(await run.until(() => steps(folder) === 1), run.out).toBe(true);
  // The first third of a step is its forward pass.
  await new Promise((resolve) => setTimeout(resolve, 0.6 * metrics(folder)[0]!.milliseconds!));
  const { out } = await struck(run, () => true, 'SIGTERM');
  const [, step, saved] = /stopped at step (\d+) of 50, saved (\S+)\n/.exec(out)!;
  const [, under] = /stopping: step (\d+) is given up if no weight has changed yet, else finished.*; then the last whole step is saved; once more/.exec(out)!;
  expect([Number(under) - 1, Number(under)]).toContain(Number(step));
  expect(steps(folder)).toBe(Number(step));
  expect((await readState(join(folder, saved!))).step).toBe(Number(step));
  process.stdout.write(`asked in step ${under}: ${step === under ? 'finished' : 'given up'}\n`);
});

test('evaluating between steps, SIGTERM: the step is saved, and evaluated when the run goes on', async () => {
  const { folder, path } = runFile({ ...endless, eval_steps: 3, eval_datasets: [{ path: dataFile(20_000) }] });
  const run = start(['train', path], { cwd: folder });
  const { out } = await struck(run, () => steps(folder) === 3, 'SIGTERM');
  expect(out).toContain('stopped at step 3 of 100000, saved runs/run/step-000003');
  expect(metrics(folder).map(({ kind, step }) => `${kind} ${step}`)).toEqual(['step 1', 'step 2', 'step 3', 'saved 3']);
  const again = start(['train', path], { cwd: folder });
  await struck(again, () => steps(folder) > 3, 'SIGINT');
  expect(metrics(folder).map(({ kind, step }) => `${kind} ${step}`).slice(3, 6)).toEqual(['saved 3', 'evaluated 3', 'step 4']);
});

describe('a second signal ends the process at once', () => {
  test('in the middle of a step', async () => {
    const { folder, path } = runFile({ ...endless, datasets: [{ path: dataFile(9000) }], per_device_train_batch_size: 2048, max_steps: 20 });
    const run = start(['train', path], { cwd: folder });
    expect(await run.until(() => existsSync(join(folder, 'runs/run/metrics.jsonl')))).toBe(true);
    await new Promise((resolve) => setTimeout(resolve, 100));
    run.kill('SIGTERM');
    expect(await run.until(() => run.out.includes('once more to stop at once'))).toBe(true);
    run.kill('SIGTERM');
    const asked = performance.now();
    const { code, signal, err } = await run.ended;
    expect(performance.now() - asked).toBeLessThan(5000);
    // A shell calls this 143.
    expect([code, signal, err]).toEqual([null, 'SIGTERM', '']);
    expect(left(folder)).toEqual([]);
  });

  test('unless it is the echo of another kind that a wrapper sends: the run is saved', async () => {
    const { folder, path } = runFile(endless);
    const run = start(['train', path], { cwd: folder });
    expect(await run.until(() => steps(folder) > 2), run.out).toBe(true);
    run.kill('SIGINT');
    run.kill('SIGTERM');
    const { code, out } = await run.ended;
    // Two signals that are pending at once may come in any order.
    expect([130, 143]).toContain(code);
    expect(out).toMatch(/stopped at step \d+ of 100000, saved /);
  });
});

describe('writing samples', () => {
  test('quickstart', async () => {
    const { folder } = runFile();
    const run = start(['quickstart', '--threads', '1', '--output-dir', folder], { cwd: folder });
    const { out } = await struck(run, () => run.out.includes('before: held-out completions'), 'SIGINT');
    expect(out).toContain('stopped; `lomo quickstart` begins again');
  });

  test('generate', async () => {
    const { folder, path } = runFile({ model_name_or_path: modelFolder({ max_position_embeddings: 4096 }), max_steps: 1 });
    await lomo(['train', path], { cwd: folder });
    const run = start(['generate', 'runs/run/step-000001', '--prompt', 'a', '--max-new-tokens', '4000', '--threads', '1'], { cwd: folder });
    expect(await run.until(() => run.out.length > 8)).toBe(true);
    run.kill('SIGTERM');
    const { code, signal, err } = await run.ended;
    expect([code, signal, err]).toEqual([143, null, '\nlomo: stopped; nothing was changed\n']);
  });
});
