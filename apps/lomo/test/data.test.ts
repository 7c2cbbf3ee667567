// lomo init and lomo data check: what they write, what they count, what they find.
import { existsSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { dataFile, modelFolder } from '../../../tools/tiny/folder.ts';
import { checkData } from '../src/commands/data.ts';
import { init } from '../src/commands/init.ts';
import { readRun } from '../src/yaml.ts';

let [printed, run] = ['', ''];
beforeEach(() => {
  printed = '';
  run = join(mkdtempSync(join(tmpdir(), 'lomo-init-')), 'run.yaml');
  vi.spyOn(process.stdout, 'write').mockImplementation((text) => {
    printed += String(text);
    return true;
  });
});
afterEach(() => vi.restoreAllMocks());

/** A data file of these rows. */
function rows(...list: readonly object[]): string {
  const path = join(mkdtempSync(join(tmpdir(), 'lomo-rows-')), 'train.jsonl');
  writeFileSync(path, list.map((row) => `${JSON.stringify(row)}\n`).join(''));
  return path;
}

describe('init', () => {
  test.each(['adalomo', 'lomo', 'adamw', 'sgd'] as const)('%s: a file that reads back, with the lengths of the data', async (optim) => {
    const [model, data] = [modelFolder(), dataFile()];
    await init(model, data, { output: run, optim });
    const { config, warnings, renamed } = await readRun(run);
    expect(config).toMatchObject({ model_name_or_path: model, datasets: [{ path: data }], optim, max_seq_length: 64, overlong: 'error', per_device_train_batch_size: 16, global_batch_size: 16 });
    expect([warnings, renamed]).toEqual([[], []]);
    expect(readFileSync(run, 'utf8')).toContain('# the longest sample has 6 tokens');
    expect(printed).toContain(`next: lomo data check ${run}`);
  });

  test('does not overwrite, and says what to do', async () => {
    writeFileSync(run, 'mine');
    await expect(init(modelFolder(), dataFile(), { output: run, optim: 'lomo' })).rejects.toMatchObject({ code: 'FileExists', message: `${run} is there already; give another name with --output, or remove it` });
    expect(readFileSync(run, 'utf8')).toBe('mine');
  });

  test('samples longer than the model can take are counted and left out', async () => {
    const long = { prompt: 'a', completion: ' b'.repeat(100) };
    await init(modelFolder(), rows(long, { prompt: 'a', completion: ' b' }), { output: run, optim: 'lomo' });
    const { config } = await readRun(run);
    expect(config).toMatchObject({ overlong: 'drop', max_seq_length: 64 });
    expect(readFileSync(run, 'utf8')).toContain('# 1 longer sample was found');
  });

  test('a text whose documents are all too long is split, and the file that is written passes the check', async () => {
    const data = join(mkdtempSync(join(tmpdir(), 'lomo-rows-')), 'train.txt');
    writeFileSync(data, 'a b c d '.repeat(60));
    await init(modelFolder(), data, { output: run, optim: 'lomo' });
    const { config } = await readRun(run);
    expect(config).toMatchObject({ overlong: 'split', max_seq_length: 64 });
    await checkData(run, { init: 'random' }, { show: 0 });
    expect(printed).toContain('no problem found');
  });

  test('data that cannot be read leave no file behind', async () => {
    await expect(init(modelFolder(), rows({ odd: 1 }), { output: run, optim: 'lomo' })).rejects.toMatchObject({ code: 'UnknownFormat' });
    expect(existsSync(run)).toBe(false);
  });
});

describe('data check', () => {
  async function check(data: string, more: Readonly<Record<string, unknown>> = {}, show = 0): Promise<string> {
    writeFileSync(run, `model_name_or_path: ${modelFolder()}\ndatasets: [{ path: ${data} }]\nmax_seq_length: 16\nper_device_train_batch_size: 4\ngradient_accumulation_steps: 2\n`);
    await checkData(run, more, { show });
    return printed;
  }

  test('counts tokens and steps, and names the next command', async () => {
    const text = await check(dataFile());
    expect(text).toContain('prompt_completion (prompt, completion), 40 rows');
    expect(text).toContain('tokens     240: 120 (50.0 %) trained, 120 (50.0 %) masked');
    expect(text).toContain('steps      2 (1 epoch), each 2 x 64 tokens');
    expect(text).toContain(`no problem found: 2 steps\nnext: lomo plan ${run}`);
  });

  test('overrides are settings: twice the epochs, twice the steps', async () => {
    expect(await check(dataFile(), { num_train_epochs: 2 })).toContain('no problem found: 4 steps');
  });

  test.each([[0, 'a d', 'b e'], [7, 'h k', 'i l'], [39, 'n q', 'o r']])('--show %i: that sample, its prompt masked, its end trained', async (index, prompt, completion) => {
    expect(await check(dataFile(), {}, index)).toMatch(new RegExp(`sample ${index}, \\S+train\\.jsonl:${index + 1}: 6 tokens, 3 trained \\(\\+\\), 3 masked \\(-\\)\n- <s> ${prompt}\\S*\n\\+ +${completion} </s>\n`));
  });

  test('--show beyond the end names the range', async () => {
    await expect(check(dataFile(), {}, 40)).rejects.toMatchObject({ code: 'BadOption', message: '--show 40: the samples are 0 to 39' });
  });

  test('held-out data are counted apart', async () => {
    expect(await check(dataFile(), { eval_datasets: [{ path: dataFile(5) }] })).toMatch(/held out\n.*train\.jsonl: jsonl, prompt_completion \(prompt, completion\), 5 rows/);
  });

  const good = { prompt: 'a', completion: ' b' };
  test.each([
    ['a line that is no JSON', () => {
      const path = rows(good, good);
      writeFileSync(path, `${readFileSync(path, 'utf8')}{"prompt": oops}\n`);
      return path;
    }, 'BadLine', /train\.jsonl:3/],
    ['an over-long sample', () => rows(good, { prompt: 'a', completion: ' b'.repeat(30) }), 'Overlong', /max_seq_length/],
    ['no key that is known', () => rows({ instruct: 'a' }), 'UnknownFormat', /train\.jsonl:1/],
    ['a file that is not there', () => '/no/such.jsonl', 'MissingFile', /no\/such\.jsonl/],
  ])('%s: the place and the next step', async (_, make, code, message) => {
    await expect(check(make())).rejects.toMatchObject({ code, message: expect.stringMatching(message) as string });
  });

  test('truncation that leaves nothing to train', async () => {
    const prompt = Array.from({ length: 30 }, () => 'a').join(' ');
    await expect(check(rows(good, { prompt, completion: ' b' }), { overlong: 'truncate' })).rejects.toMatchObject({ code: 'AllMasked', message: expect.stringMatching(/train\.jsonl:2/) as string });
  });
});
