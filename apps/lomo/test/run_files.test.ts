// Run files made to hang, to fill the memory or to slip a setting past the list: refused with file and line, and nothing is executed.
import { execFileSync } from 'node:child_process';
import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { isLomoError } from '@lomo/tensor';
import { describe, expect, it } from 'vitest';
import { Dice } from '../../../tools/fuzz/src/dice.ts';
import { anything, damage, oddNames, print } from '../../../tools/fuzz/src/texts.ts';
import { readRun, runBytes, runDepth, yamlValue } from '../src/yaml.ts';

const good = 'model_name_or_path: m\ndatasets: [{ path: a.jsonl }]\n';

function file(content: string | Uint8Array): string {
  const path = join(mkdtempSync(join(tmpdir(), 'lomo-yaml-')), 'run.yaml');
  writeFileSync(path, content);
  return path;
}

async function refusal(content: string | Uint8Array): Promise<string> {
  const error: unknown = await readRun(file(content)).then(() => null, (caught: unknown) => caught);
  expect(isLomoError(error, 'ConfigError'), String(error)).toBe(true);
  return (error as Error).message;
}

describe('a run file is refused', () => {
  const ten = (name: string, of: string): string => `${name}: &${name} [${Array.from({ length: 10 }, () => of).join(', ')}]\n`;
  it.each([
    ['that is nested a hundred thousand times', `${good}x: ${'['.repeat(100_000)}`, /run\.yaml:3: nested deeper than 32/],
    ['that is nested and closed', `${good}x: ${'['.repeat(3000)}${']'.repeat(3000)}`, /nested deeper than 32/],
    ['of lists in lists in one line', `${good}x:\n  ${'- '.repeat(3000)}`, /nested deeper than 32/],
    ['of question marks', '? '.repeat(3000), /nested deeper than 32/],
    ['whose blocks go deep', Array.from({ length: 300 }, (_, i) => `${' '.repeat(i)}a:`).join('\n'), /nested deeper than 32/],
    ['whose aliases multiply', `${ten('a', 'x')}${ten('b', '*a')}${ten('c', '*b')}${ten('d', '*c')}${ten('e', '*d')}`, /Excessive alias count/],
    ['that contains itself', 'a: &a [*a]\n', /run\.yaml/],
    ['with an alias of nothing', `${good}optim: *x\n`, /run\.yaml: Unresolved alias.*: x/],
    ['with a key twice', `${good}optim: lomo\noptim: sgd\n`, /run\.yaml:4: Map keys must be unique/],
    ['with too many entries', Array.from({ length: 20_000 }, (_, i) => `k${i}: 1`).join('\n'), /more than 10000 entries/],
    ['that is too large', `# ${'x'.repeat(runBytes)}\n${good}`, /has \d+ bytes; at most 262144/],
    ['of two documents', `${good}---\n${good}`, /run\.yaml:3: a second document/],
    ['with a setting under __proto__', `${good}__proto__: { optim: lomo }\n`, /run\.yaml:3: unknown key '__proto__'/],
    ['with one under it deeper', 'model_name_or_path: m\ndatasets: [{ path: a.jsonl, __proto__: { type: text } }]\n', /unknown key 'datasets.0.__proto__'/],
    ['with a constructor', `${good}constructor: { prototype: { polluted: 1 } }\n`, /unknown key 'constructor'/],
    ['with a tag that would be code', `${good}run_name: !!js/function "() => 1"\noptim: !<tag:yaml.org,2002:python/object/apply:os.system> [ls]\n`, /optim: expected string/],
    ['with a NUL', `${good}run_name: "a\0b`, /run\.yaml/],
    ['of nothing but quotes', '"'.repeat(100_000), /run\.yaml/],
    ['of a list', '- a\n', /run\.yaml/],
    ['of UTF-16', Buffer.from(good, 'utf16le'), /run\.yaml/],
    ['of broken UTF-8', Buffer.from([0x61, 0x3a, 0x20, 0xff, 0x0a]), /not valid UTF-8/],
  ])('%s', async (_, content, message) => {
    expect(await refusal(content)).toMatch(message);
    expect(({} as Record<string, unknown>)['polluted']).toBeUndefined();
  });

  it('that is a device or a fifo, without waiting for it', async () => {
    await expect(readRun('/dev/zero')).rejects.toMatchObject({ code: 'ConfigError', message: expect.stringContaining('not a regular file') });
    const fifo = join(mkdtempSync(join(tmpdir(), 'lomo-yaml-')), 'run.yaml');
    execFileSync('mkfifo', [fifo]);
    await expect(readRun(fifo)).rejects.toMatchObject({ code: 'ConfigError' });
  });
});

it('what is not hostile is read, and values of the command line as before', async () => {
  const { config } = await readRun(file(`# a run\n${good}warmup_steps: 1e-2\ndtype: &d bf16\n`), { optim: 'lomo' });
  expect(config).toMatchObject({ warmup_steps: 0.01, dtype: 'bf16', optim: 'lomo' });
  expect(['1e-3', 'false', '[1, 2]', 'x', '', '0x10', '"a: b"'].map((text) => yamlValue(text, '--x'))).toEqual([0.001, false, [1, 2], 'x', null, 16, 'a: b']);
  expect(() => yamlValue('['.repeat(runDepth + 2), '--x')).toThrow(/--x:1: nested deeper/);
  await expect(readRun(file(good), JSON.parse('{"__proto__": 1}') as Record<string, unknown>)).rejects.toThrow(/command line: unknown key '__proto__'/);
});

it('400 damaged ones are read or refused by ConfigError', async () => {
  const path = file('');
  let read = 0;
  for (let i = 0; i < 400; i++) {
    const dice = new Dice(11, i);
    const lines = ['model_name_or_path: m', 'datasets:', '  - path: a.jsonl', 'optim: lomo', 'learning_rate: 3e-2', 'max_steps: 10', 'dtype: bf16', 'clip_mode: "global"'];
    if (dice.oneIn(2)) lines.push(`${dice.pick(['seed', 'optim', 'x', JSON.stringify(dice.pick(oddNames))])}: ${print(anything(dice, 4))}`);
    if (dice.oneIn(4)) lines.push(dice.pick(['<<: *a', '&a b: *a', '? [x]', '!!set {a}', '%YAML 1.1', '---', '...', '- x', '\tx: 1', 'x: |', 'x: >-', '@x: 1', '`x`: 1', "'x: 1", '*a : 1']));
    let bytes: Uint8Array = new TextEncoder().encode(`${lines.join('\n')}\n`);
    if (dice.oneIn(2)) bytes = damage(bytes, dice);
    writeFileSync(path, bytes);
    const error: unknown = await readRun(path).then(() => null, (caught: unknown) => caught);
    if (error === null) read++;
    else expect(error, `case ${i}`).toMatchObject({ name: 'LomoError', code: 'ConfigError' });
  }
  expect(read).toBeGreaterThan(40);
});
