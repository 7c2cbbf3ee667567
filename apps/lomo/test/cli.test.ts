// The command line as a person meets it: the built `lomo`, in processes of its own.
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { beforeAll, describe, expect, test } from 'vitest';
import { bytes } from '@lomo/trainer';
import { cli, lomo, runFile } from '../../../tools/tiny/command.ts';
import { dataFile } from '../../../tools/tiny/folder.ts';

beforeAll(() => {
  if (!existsSync(cli)) throw new Error(`${cli} is not there: build first (pnpm turbo run build --filter=lomo...)`);
});

test('--help lists the verbs', async () => {
  const { code, out } = await lomo(['--help']);
  expect(code).toBe(0);
  for (const verb of ['quickstart', 'train', 'resume', 'eval', 'generate', 'plan', 'doctor']) expect(out).toMatch(new RegExp(`^  ${verb} `, 'm'));
});

describe('bad input', () => {
  test('an unknown key: path, line, did-you-mean', async () => {
    const { path } = runFile({ lerning_rate: 1 });
    const { code, err } = await lomo(['train', path]);
    expect(code).toBe(1);
    const line = readFileSync(path, 'utf8').split('\n').findIndex((text) => text.startsWith('lerning_rate')) + 1;
    expect(err).toContain(`${path}:${line}: unknown key 'lerning_rate'; did you mean 'learning_rate'?`);
    expect(err).not.toContain('    at ');
  });
  test('YAML that is none: path and line', async () => {
    const { path } = runFile();
    writeFileSync(path, 'model: m\n  data: [\n');
    const { code, err } = await lomo(['train', path]);
    expect(code).toBe(1);
    expect(err).toMatch(new RegExp(`${path}:\\d: `));
  });
  test('a model folder without weights', async () => {
    const { path } = runFile({ init: 'pretrained' });
    const { code, err } = await lomo(['train', path]);
    expect(code).toBe(1);
    expect(err).toMatch(/lomo: .*model\.safetensors/s);
  });
  test('a bad JSON line: file:line', async () => {
    const data = dataFile();
    writeFileSync(data, `${readFileSync(data, 'utf8').split('\n').slice(0, 3).join('\n')}\n{"prompt": oops}\n`);
    const { code, err } = await lomo(['train', runFile({ datasets: [{ path: data }] }).path]);
    expect(code).toBe(1);
    expect(err).toContain(`${data}:4`);
  });
  test('an output folder that cannot be written: before step 1, with path and errno', async () => {
    const { path } = runFile();
    const { code, out, err } = await lomo(['train', path, '--output-dir', join(path, 'inside-a-file')]);
    expect(code).toBe(1);
    expect(err).toMatch(/inside-a-file: ENOTDIR/);
    expect(out).not.toMatch(/step +1\//);
  });
  test('a setting on the command line is checked like one in the file', async () => {
    const { code, err } = await lomo(['train', runFile().path, '--max-steps', 'many']);
    expect(code).toBe(1);
    expect(err).toContain('command line: max_steps');
  });
});

test('train writes metrics and a model that generate and eval open', async () => {
  const { folder, path } = runFile();
  const trained = await lomo(['train', path], { cwd: folder });
  expect(trained.err).toBe('');
  expect(trained.code).toBe(0);
  const model = join(folder, 'runs/run/step-000008');
  const lines = readFileSync(join(folder, 'runs/run/metrics.jsonl'), 'utf8').trim().split('\n').map((line) => JSON.parse(line) as { kind: string; loss: number });
  expect(lines.filter(({ kind }) => kind === 'step')).toHaveLength(8);
  expect(trained.out).toContain('next: lomo generate runs/run/step-000008');
  const written = await lomo(['generate', model, '--prompt', 'a d', '--max-new-tokens', '4', '--threads', '1']);
  expect(written.err).toBe('');
  expect(written.out.startsWith('a d')).toBe(true);
  const data = /datasets: \[\{"path":"(.*?)"/.exec(readFileSync(path, 'utf8'))![1]!;
  const judged = await lomo(['eval', model, '--data', data, '--max-seq-length', '16', '--samples', '5', '--threads', '1', '--json']);
  // What has to be left out of the data is said in the words of the flags, and the folder around the checkpoints is told from a model.
  const long = join(folder, 'long.jsonl');
  writeFileSync(long, `${readFileSync(data, 'utf8')}{"prompt": "a b c d e f g h i", "completion": " a b c d e f g h i"}\n`);
  const flags = ['eval', model, '--data', long, '--max-seq-length', '16', '--samples', '0', '--threads', '1'];
  expect((await lomo(flags)).err).toMatch(/1 of 41 texts have over 16 tokens .*: raise max_seq_length, or set overlong/);
  expect((await lomo([...flags, '--overlong', 'drop'])).out).toMatch(/tokens \(1 over-long: drop\); exact match 0 of 0/);
  for (const verb of [['generate', '--prompt', 'a'], ['eval', '--data', data]]) {
    const { code, err } = await lomo([verb[0]!, 'runs/run', ...verb.slice(1)], { cwd: folder });
    expect(code).toBe(1);
    expect(err.trim()).toBe('lomo: runs/run is the folder of a run, not a model: it holds checkpoints, the newest of them runs/run/step-000008. Give that one');
  }
  expect(JSON.parse(judged.out)).toMatchObject({ completions: 5, loss: expect.closeTo(lines.findLast(({ kind }) => kind === 'step')!.loss, 0) as number });
});

test('--trace makes the folder of its file', async () => {
  const { folder, path } = runFile();
  const { out, err } = await lomo(['train', path, '--trace', 'traces/deep/step.json'], { cwd: folder });
  expect(err).toBe('');
  expect(out).toContain(`traced step 3`);
  expect(JSON.parse(readFileSync(join(folder, 'traces/deep/step.json'), 'utf8'))).toHaveProperty('traceEvents');
});

test('resume takes settings; one that the weights depend on is named', async () => {
  const { folder, path } = runFile({ save_steps: 4 });
  await lomo(['train', path], { cwd: folder });
  const again = await lomo(['resume', path, 'runs/run/step-000004', '--logging-steps', '2', '--output-dir', 'again'], { cwd: folder });
  expect(again.err).toBe('');
  expect(again.out).toContain('resuming from runs/run/step-000004: step 4 of 8 is done');
  expect(readFileSync(join(folder, 'again/step-000008/trainer_state.json'), 'utf8')).toBe(readFileSync(join(folder, 'runs/run/step-000008/trainer_state.json'), 'utf8'));
  const other = await lomo(['resume', path, 'runs/run/step-000004', '--learning-rate', '0.3', '--clip-mode', 'value', '--clip-value', '1'], { cwd: folder });
  expect(other.code).toBe(1);
  expect(other.err).toContain('runs/run/step-000004 was made with learning_rate 0.1, now 0.3; clip_mode none, now value; clip_value unset, now 1: going on would be another run');
});

test('plan prints what train reserves', async () => {
  const { folder, path } = runFile({ eval_datasets: [{ path: dataFile(7) }] });
  const planned = JSON.parse((await lomo(['plan', path, '--json'])).out) as { optimizers: { name: string; extent: number; way: { keeps: boolean } }[]; choices: { name: string; reason: string }[] };
  const { out } = await lomo(['train', path], { cwd: folder });
  const [, kept, recomputed] = /activations .*\(kept ([\d.]+ \w+), recomputed ([\d.]+ \w+)/.exec(out) ?? [];
  const [own] = planned.optimizers;
  expect(own).toMatchObject({ name: 'lomo', way: { keeps: true } });
  expect(out).toMatch(new RegExp(`^ *memory +${bytes(own!.extent)} planned: `, 'm'));
  expect(kept).toBe(bytes(own!.extent));
  expect(planned.choices.find(({ name }) => name === 'activations')!.reason).toContain(`kept ${kept}, recomputed ${recomputed}`);
  expect(planned.optimizers.map(({ name }) => name)).toEqual(['lomo', 'adalomo', 'adamw', 'sgd']);
});

test('plan and train say with the same numbers how a global norm is known in time', async () => {
  const { folder, path } = runFile({ clip_mode: 'global', max_grad_norm: 1 });
  const line = /^ *clip +(memory|file|two-pass): the cheapest \(.*put aside.*GFLOP more.*assuming.*\)$/m;
  const [planned, trained] = [line.exec((await lomo(['plan', path])).out), line.exec((await lomo(['train', path], { cwd: folder })).out)];
  expect(planned?.[0].replace(/\s+/g, ' ').trim()).toMatch(/^clip memory: the cheapest/);
  expect(trained?.[0].replace(/\s+/g, ' ').trim()).toBe(planned?.[0].replace(/\s+/g, ' ').trim());
  // A run that recomputes chooses among ways that recompute, in both; an optimizer that nobody knows is an error in both.
  const other = ['--gradient-checkpointing', 'true', '--loss-scale', 'dynamic', '--max-steps', '1'];
  const [plan, train] = [(await lomo(['plan', path, ...other])).out, (await lomo(['train', path, ...other, '--resume-from-checkpoint', 'false'], { cwd: folder })).out];
  for (const name of ['activations', 'clip', 'loss scale']) {
    const [inPlan, inTrain] = [plan, train].map((out) => new RegExp(`^ *${name} .*$`, 'm').exec(out)?.[0].replace(/\s+/g, ' ').trim().replace(/free .*$/, ''));
    expect(inPlan).toBe(inTrain);
    expect(inPlan).toMatch(/: /);
  }
  for (const verb of ['plan', 'train']) expect((await lomo([verb, path, '--optim', 'lom'], { cwd: folder })).err).toContain("optim: no 'lom'; known: lomo");
});

const stories = fileURLToPath(new URL('../../../../shared/models/stories260k', import.meta.url));
const shared = existsSync(stories);

/** Seconds from process start to the first finished step, the best of three: a busy machine can only make it slower. */
async function firstStep(settings: Readonly<Record<string, unknown>>): Promise<number> {
  const seconds: number[] = [];
  for (let i = 0; i < 3; i++) {
    const { folder, path } = runFile({ ...settings, max_steps: 1 });
    const start = Date.now();
    const { code, err } = await lomo(['train', path], { cwd: folder });
    expect(err).toBe('');
    expect(code).toBe(0);
    const first = JSON.parse(readFileSync(join(folder, 'runs/run/metrics.jsonl'), 'utf8').split('\n')[0]!) as { time: string };
    seconds.push((Date.parse(first.time) - start) / 1000);
  }
  return Math.min(...seconds);
}

test('from process start to the first finished step: at most 1.5 s', async () => {
  expect(await firstStep({})).toBeLessThan(1.5);
});

test.skipIf(!shared)('the same with stories260k, 512 tokens a step (skipped where ../shared/models is absent)', async () => {
  expect(await firstStep({ model_name_or_path: stories, init: 'pretrained', max_seq_length: 128, threads: 2 })).toBeLessThan(1.5);
});
