// openDataset end to end with a real tokenizer of one token a byte: masks, templates, formats, cuts, refusals, order.
import { writeFileSync } from 'node:fs';
import { describe as suite, expect, it } from 'vitest';
import { describe, openDataset, openTokenizer, renderPrompt, renderReport } from '../src/index.ts';
import type { DatasetOptions, Tokenizer } from '../src/index.ts';
import { byteTokenizer } from './byte-tokenizer.ts';
import { fileOf, jsonlOf } from './files.ts';

const tokenizer: Tokenizer = await openTokenizer(byteTokenizer());

const open = (sources: DatasetOptions['sources'], options: Partial<DatasetOptions> = {}) => openDataset({ sources, tokenizer, maxSeqLength: 64, ...options });

/** Text of the trained and of all tokens of a sample. */
async function textsOf(sample: { readonly ids: Int32Array; readonly trained: Uint8Array }): Promise<{ all: string; trained: string }> {
  return { all: await tokenizer.decode(sample.ids), trained: await tokenizer.decode(sample.ids.filter((_, t) => sample.trained[t] === 1)) };
}

suite('masks and templates', () => {
  it('masks the prompt, trains the completion and the end', async () => {
    const dataset = await open(jsonlOf([{ prompt: 'hi', completion: 'yo' }]));
    expect(await textsOf(dataset.at(0))).toEqual({ all: '<s>hi\nyo</s>', trained: 'yo</s>' });
    const [batch] = dataset.steps({ capacity: 64 }).at(0).batches;
    const byte = (c: string): number => c.charCodeAt(0) + 3;
    expect([...(batch?.tokens.subarray(0, 7) ?? [])]).toEqual([1, byte('h'), byte('i'), byte('\n'), byte('y'), byte('o'), 2]);
    expect([...(batch?.targets.subarray(0, 8) ?? [])]).toEqual([-100, -100, -100, byte('y'), byte('o'), 2, -100, -100]);
    expect([...(batch?.starts ?? [])]).toEqual([0, 7, 64]);
    expect(batch?.trained).toBe(3);
  });

  it('trains on everything but the first token with trainOnInputs', async () => {
    const dataset = await open(jsonlOf([{ prompt: 'hi', completion: 'yo' }]), { trainOnInputs: true });
    expect((await textsOf(dataset.at(0))).trained).toBe('hi\nyo</s>');
    expect(dataset.report()).toMatchObject({ tokens: 7, trained: 6, masked: 1 });
  });

  it('follows a template, also with other keys of the row, and gives the prompt back for generation', async () => {
    const template = { prompt: 'Q({id}): {prompt} A:', completion: ' {completion}!' };
    const dataset = await open(jsonlOf([{ id: 'x', question: '1+1 {a}', answer: '2' }]), { template });
    expect(await textsOf(dataset.at(0))).toEqual({ all: '<s>Q(x): 1+1 {a} A: 2!</s>', trained: ' 2!</s>' });
    expect(renderPrompt('1+1', template, { id: 'x' })).toBe('Q(x): 1+1 A:');
    await expect(open(jsonlOf([{ prompt: 'a', completion: 'b' }]), { template })).rejects.toMatchObject({ code: 'BadTemplate', message: expect.stringContaining('{id}') });
    await expect(open(jsonlOf([]), { template: { completion: 'fixed' } })).rejects.toMatchObject({ code: 'BadTemplate' });
  });

  it('trains a token that joins prompt and completion, and counts it', async () => {
    const merging = await openTokenizer(mergingTokenizer());
    const dataset = await openDataset({ sources: jsonlOf([{ prompt: 'xa', completion: 'bc' }, { prompt: 'x', completion: 'bc' }]), tokenizer: merging, template: { prompt: '{prompt}' } });
    expect([...dataset.at(0).ids]).toEqual([0, 4, 3, 5]);   // x ab c end
    expect([...dataset.at(0).trained]).toEqual([0, 1, 1, 1]);
    expect([...dataset.at(1).trained]).toEqual([0, 1, 1, 1]);
    expect(dataset.report().straddling).toBe(1);
  });

  it('keeps the mask that segments carry', async () => {
    const dataset = await open(jsonlOf([{ segments: [{ text: 'a', train: false }, { text: 'b', train: true }, { text: 'c', train: false }, { text: 'd', train: true }] }]));
    expect(await textsOf(dataset.at(0))).toEqual({ all: '<s>abcd</s>', trained: 'bd</s>' });
  });

  it('appends no second end, and none at all where told so', async () => {
    expect((await textsOf((await open(jsonlOf([{ text: 'a</s>' }]))).at(0))).all).toBe('<s>a</s>');
    expect((await textsOf((await open(jsonlOf([{ text: 'ab' }]), { appendEos: false })).at(0))).all).toBe('<s>ab');
  });
});

suite('formats', () => {
  it.each([
    [{ prompt: 'p', completion: 'c' }, 'prompt_completion', '<s>p\nc</s>'],
    [{ question: 'p', answer: 'c' }, 'question_answer', '<s>p\nc</s>'],
    [{ instruction: 'p', input: 'i', output: 'c' }, 'alpaca', '<s>p\n\ni\nc</s>'],
    [{ instruction: 'p', input: '', output: 'c' }, 'alpaca', '<s>p\nc</s>'],
    [{ text: 't' }, 'text', '<s>t</s>'],
  ])('are detected: %o', async (row, name, all) => {
    const dataset = await open(jsonlOf([row]));
    expect(dataset.report().sources[0]?.format?.name).toBe(name);
    expect((await textsOf(dataset.at(0))).all).toBe(all);
  });

  it('may be given as columns', async () => {
    const path = jsonlOf([{ q: 'p', a: 'c' }]);
    const dataset = await open([{ path, columns: { prompt: 'q', completion: 'a' } }]);
    expect((await textsOf(dataset.at(0))).all).toBe('<s>p\nc</s>');
    await expect(open([{ path, columns: { prompt: 'q', completion: 'b' } }])).rejects.toThrow(`${path}:1: the row has no 'b' (columns asks for it); keys found: q, a`);
    await expect(open([{ path, columns: { prompt: 'q' } }])).rejects.toMatchObject({ code: 'BadOption' });
  });

  it('name the keys found when none matches', async () => {
    const path = jsonlOf([{ foo: 1, bar: 2 }]);
    await expect(open(path)).rejects.toThrow(`${path}:1: no known format has these keys: foo, bar. Expected prompt + completion`);
  });

  it('report rows that do not fit as bad lines', async () => {
    const path = jsonlOf([{ prompt: 'a', completion: 'b' }, { prompt: 'a' }, { prompt: 7, completion: 'b' }, { prompt: 'a', completion: '' }]);
    await expect(open(path)).rejects.toThrow(`${path}:2: the row has no 'completion'`);
    const report = (await open(path, { onBadLine: 'skip' })).report();
    expect(report.sources[0]).toMatchObject({ rows: 1, skipped: 3 });
    expect(report.sources[0]?.firstSkipped[1]).toBe(`${path}:3: 'prompt' is a number, expected a string`);
  });
});

suite('cuts', () => {
  const texts = [{ text: 'a'.repeat(20) }, { text: Array.from({ length: 70 }, (_, i) => String.fromCharCode(65 + (i % 50))).join('') }];

  it('fail by default, with counts', async () => {
    const path = jsonlOf(texts);
    await expect(open(path, { maxSeqLength: 32 })).rejects.toThrow(`1 of 2 texts have over 32 tokens (the longest, at ${path}:2, has 72)`);
  });

  it('truncate, drop, and split without losing or repeating a target', async () => {
    const path = jsonlOf(texts);
    const truncated = await open(path, { maxSeqLength: 32, overlong: 'truncate' });
    expect(truncated.at(1).ids.length).toBe(32);
    expect((await open(path, { maxSeqLength: 32, overlong: 'drop' })).length).toBe(1);
    const whole = await open(path, { maxSeqLength: 128 });
    const split = await open(path, { maxSeqLength: 32, overlong: 'split' });
    const targets = (sample: { readonly ids: Int32Array; readonly trained: Uint8Array }): number[] => Array.from(sample.ids.filter((_, t) => sample.trained[t] === 1));
    expect(split.length).toBe(4);
    expect([1, 2, 3].flatMap((index) => targets(split.at(index)))).toEqual(targets(whole.at(1)));
    expect(split.report().overlong).toEqual({ mode: 'split', count: 1 });
    expect([0, 1, 2, 3].every((index) => split.at(index).ids.length <= 32)).toBe(true);
  });

  it('names samples whose completion was cut away', async () => {
    const path = jsonlOf([{ prompt: 'a', completion: 'b' }, { prompt: 'a'.repeat(40), completion: 'b' }]);
    await expect(open(path, { maxSeqLength: 32, overlong: 'truncate' })).rejects.toMatchObject({ code: 'AllMasked', message: expect.stringContaining(`${path}:2`) });
    const kept = await open(path, { maxSeqLength: 32, overlong: 'truncate', onBadLine: 'skip' });
    expect([kept.length, kept.report().allMasked]).toEqual([1, 1]);
    expect((await open(path, { maxSeqLength: 32, overlong: 'split' })).length).toBe(2);
  });
});

suite('refusals before step 1', () => {
  it('an empty dataset, saying why', async () => {
    await expect(open(jsonlOf([]))).rejects.toMatchObject({ code: 'EmptyDataset', message: expect.stringContaining('0 rows read') });
    await expect(open(fileOf('a.jsonl', 'x\ny\n'), { onBadLine: 'skip' })).rejects.toThrow('2 bad lines skipped');
    await expect(open([])).rejects.toMatchObject({ code: 'EmptyDataset' });
  });

  it('ids outside the vocabulary of the model', async () => {
    const path = jsonlOf([{ text: 'ok' }, { text: 'caf\u00e9' }]);
    await expect(open(path, { vocabSize: 150 })).rejects.toThrow(`${path}:2: token id ${0xc3 + 3} is outside the model's vocabulary of 150`);
    await expect(open(path, { vocabSize: 2 })).rejects.toThrow(/eosId 2 is outside/);
    expect((await open(path, { vocabSize: 259 })).length).toBe(2);
  });

  it('a second beginning-of-sequence, and a tokenizer that cannot end a text', async () => {
    const path = jsonlOf([{ text: '<s>a' }]);
    await expect(open(path)).rejects.toMatchObject({ code: 'DoubleBos', message: expect.stringContaining(`${path}:1`) });
    await using endless = await openTokenizer(byteTokenizer({ bos_token: '<s>' }));
    await expect(openDataset({ sources: path, tokenizer: endless })).rejects.toMatchObject({ code: 'NoEndOfText' });
  });

  it('nonsense options, and stops at a signal', async () => {
    const path = jsonlOf([{ text: 'a' }]);
    await expect(open(path, { maxSeqLength: 1 })).rejects.toMatchObject({ code: 'BadOption' });
    await expect(open(path, { seed: -1 })).rejects.toMatchObject({ code: 'BadOption' });
    await expect(open(path, { signal: AbortSignal.abort(new Error('stopped')) })).rejects.toThrow('stopped');
  });
});

suite('order', () => {
  const rows = Array.from({ length: 40 }, (_, i) => ({ prompt: `question ${i}`, completion: `answer ${'x'.repeat(i % 17)}` }));

  it('is a pure function of seed, epoch and index; a dataset opened again continues in the middle', async () => {
    const path = jsonlOf(rows);
    const [a, b] = [await open(path, { seed: 3 }), await open(path, { seed: 3 })];
    const other = await open(path, { seed: 4 });
    const indices = (dataset: typeof a, epoch: number): number[] => rows.map((_, i) => dataset.sample(epoch, i).index);
    expect(indices(a, 1)).toEqual(indices(b, 1));
    expect(indices(a, 1)).not.toEqual(indices(a, 0));
    expect(indices(a, 0)).not.toEqual(indices(other, 0));
    expect(a.fingerprint).toBe(b.fingerprint);
    expect((await open(jsonlOf(rows.slice(1)))).fingerprint).not.toBe(a.fingerprint);
    const options = { capacity: 128, microBatches: 2, epochs: 2 };
    const all = [...a.steps(options)];
    expect([...b.steps(options).from(5)]).toEqual(all.slice(5));
  });

  it('of evaluation is that of the files, each sample once', async () => {
    const dataset = await open(jsonlOf(rows));
    const steps = [...dataset.evalSteps({ capacity: 128, microBatches: 1 })];
    expect(steps.flatMap((step) => step.samples)).toEqual(rows.map((_, i) => i));
  });
});

suite('what is shown', () => {
  it('one sample with its mask', async () => {
    const path = jsonlOf([{ prompt: 'two\nlines', completion: 'yes\u001B[31m\u00e9' }, { prompt: 'second', completion: 'no' }]);
    const dataset = await open(path);
    const [batch] = dataset.evalSteps({ capacity: 64 }).at(0).batches;
    if (batch === undefined) throw new Error('no batch');
    expect(await describe(batch, { tokenizer, where: dataset.where })).toBe(
      `sample 0, ${path}:1: 22 tokens, 11 trained (+), 11 masked (-)\n- <s>two\n- lines\u21B5\n+ yes\\x1b[31m\u00e9</s>`);
    expect(await describe(batch, { tokenizer, sample: 1, colour: true })).toContain('\u001B[32m+ no</s>\u001B[39m');
    await expect(describe(batch, { tokenizer, sample: 2 })).rejects.toMatchObject({ code: 'BadOption' });
  });

  it('a report with exact totals', async () => {
    const path = jsonlOf(Array.from({ length: 10 }, (_, i) => ({ prompt: 'p', completion: 'c'.repeat(1 + i * 4) })));
    const dataset = await open(path);
    const steps = dataset.steps({ capacity: 64, sequencesPerStep: 4, epochs: 2 });
    const report = dataset.report();
    expect(report).toMatchObject({ samples: 10, tokens: 230, trained: 200, masked: 30, shortest: 5, longest: 41, mean: 23, straddling: 0 });
    expect(report.histogram).toEqual([{ upTo: 16, samples: 3 }, { upTo: 32, samples: 4 }, { upTo: 64, samples: 3 }]);
    expect(steps.report()).toMatchObject({ steps: 6, epochs: 2, samples: 20, trained: 400 });
    const text = renderReport(report, steps.report());
    expect(text).toContain(`${path}: jsonl, prompt_completion (prompt, completion), 10 rows`);
    expect(text).toContain('tokens     230: 200 (87.0 %) trained, 30 (13.0 %) masked');
    expect(text).toContain('steps      6 (2 epochs)');
  });
});

/** A byte-level BPE with one merge, 'a b', and no BOS. */
function mergingTokenizer(): string {
  const path = fileOf('vocab.json', JSON.stringify({ x: 0, a: 1, b: 2, c: 3, ab: 4, '<|endoftext|>': 5 }));
  const folder = path.slice(0, -'/vocab.json'.length);
  writeFileSync(`${folder}/merges.txt`, 'a b\n');
  return folder;
}
