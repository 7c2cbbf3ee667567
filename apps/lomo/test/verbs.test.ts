// The verbs before a training run, as a person types them: init, data check, schema, and what every --help teaches.
import { execFile } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { beforeAll, describe, expect, test } from 'vitest';
import { dataFile, modelFolder } from '../../../tools/tiny/folder.ts';

const cli = fileURLToPath(new URL('../dist/cli.js', import.meta.url));

interface Outcome {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

/** Runs the built `lomo args` in `cwd`. */
function lomo(args: readonly string[], cwd: string = tmpdir()): Promise<Outcome> {
  return new Promise((resolve) => {
    const child = execFile(process.execPath, [cli, ...args], { cwd }, (_error, out, err) => resolve({ code: child.exitCode ?? -1, out, err }));
  });
}

beforeAll(() => {
  if (!existsSync(cli)) throw new Error(`${cli} is not there: build first (pnpm turbo run build --filter=lomo...)`);
});

test('init writes a run.yaml that data check and plan take as it is, and never overwrites it', async () => {
  const cwd = mkdtempSync(join(tmpdir(), 'lomo-verbs-'));
  const [model, data] = [modelFolder(), dataFile()];
  const made = await lomo(['init', model, data, '--optim', 'lomo'], cwd);
  expect(made).toMatchObject({ code: 0, err: '' });
  expect(made.out).toContain('wrote run.yaml\nnext: lomo data check run.yaml');

  const checked = await lomo(['data', 'check', 'run.yaml'], cwd);
  expect(checked).toMatchObject({ code: 0, err: '' });
  expect(checked.out).toContain('no problem found: 1 step\nnext: lomo plan run.yaml');

  const planned = await lomo(['plan', 'run.yaml', '--json'], cwd);
  expect(planned).toMatchObject({ code: 0, err: '' });
  expect(JSON.parse(planned.out)).toMatchObject({ optimizers: [{ name: 'lomo', fits: true }, { name: 'adalomo' }, { name: 'adamw' }, { name: 'sgd' }], nearest: [] });

  const text = readFileSync(join(cwd, 'run.yaml'), 'utf8');
  const again = await lomo(['init', model, data], cwd);
  expect(again).toMatchObject({ code: 1, out: '' });
  expect(again.err.trim()).toBe('lomo: run.yaml is there already; give another name with --output, or remove it');
  expect(readFileSync(join(cwd, 'run.yaml'), 'utf8')).toBe(text);
});

describe('data check', () => {
  function runFile(data: string): string {
    const path = join(mkdtempSync(join(tmpdir(), 'lomo-verbs-')), 'run.yaml');
    writeFileSync(path, `model_name_or_path: ${modelFolder()}\ndatasets: [{ path: ${data} }]\nmax_seq_length: 16\nper_device_train_batch_size: 4\ngradient_accumulation_steps: 2\n`);
    return path;
  }

  test('--show and a setting on the same line: that sample with its mask, the steps of that setting', async () => {
    const { code, out } = await lomo(['data', 'check', runFile(dataFile()), '--show', '7', '--num-train-epochs', '3']);
    expect(code).toBe(0);
    expect(out).toMatch(/sample 7, \S+train\.jsonl:8: 6 tokens, 3 trained \(\+\), 3 masked \(-\)/);
    expect(out).toMatch(/no problem found: 6 steps/);
  });

  test('a bad line fails with file and line, and prints no count', async () => {
    const data = dataFile(3);
    writeFileSync(data, `${readFileSync(data, 'utf8')}{"prompt": oops}\n`);
    const { code, out, err } = await lomo(['data', 'check', runFile(data)]);
    expect(code).toBe(1);
    expect(err).toContain(`${data}:4`);
    expect(out).not.toContain('no problem found');
  });
});

test('schema prints a JSON Schema of the settings', async () => {
  const { code, out } = await lomo(['schema']);
  expect(code).toBe(0);
  expect(JSON.parse(out)).toMatchObject({ properties: { model_name_or_path: {}, optim: {}, max_seq_length: {} } });
});

const verbs = ['quickstart', 'init', 'data', 'train', 'resume', 'eval', 'generate', 'diff', 'plan', 'doctor', 'schema'];

test('--help lists every verb that there is', async () => {
  const { out } = await lomo(['--help']);
  const listed = [...out.matchAll(/^ {2}([a-z]+) [^\n]*$/gm)].map(([, verb]) => verb);
  expect(listed.filter((verb) => verb !== 'help')).toEqual(verbs);
});

test.each(verbs.map((verb) => (verb === 'data' ? ['data', 'check'] : [verb])))('%s: --help ends in commands to type', async (...verb) => {
  const { code, out } = await lomo([...verb, '--help']);
  expect(code).toBe(0);
  const [, examples] = out.split('\nExamples:\n');
  const lines = examples?.trimEnd().split('\n') ?? [];
  expect(lines.length).toBeGreaterThan(0);
  for (const line of lines) expect(line).toMatch(new RegExp(`^  \\$ lomo ${verb.join(' ')}\\b.* {3}\\S`));
});
