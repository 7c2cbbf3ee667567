// The real thing, where the shared folder is: GSM8K through the stories260k tokenizer.
import { readFileSync } from 'node:fs';
import { expect, it } from 'vitest';
import { openDataset, openTokenizer } from '../src/index.ts';
import { sharedPath } from './shared.ts';

const model = sharedPath('models/stories260k');
const gsm8k = sharedPath('data/gsm8k_test.jsonl');

it.skipIf(model === null || gsm8k === null)('packs GSM8K tightly, every sample decoding to its row', async () => {
  await using tokenizer = await openTokenizer(model ?? '');
  const dataset = await openDataset({ sources: gsm8k ?? '', tokenizer, maxSeqLength: 1024, vocabSize: 512 });
  const rows = readFileSync(gsm8k ?? '', 'utf8').trim().split('\n').map((line): { question: string; answer: string } => JSON.parse(line));
  const report = dataset.report();
  expect(report).toMatchObject({ samples: rows.length, straddling: 0, allMasked: 0 });
  expect(report.sources[0]?.format?.name).toBe('question_answer');
  const steps = dataset.steps({ capacity: 2048, microBatches: 4 });
  expect(steps.report().efficiency).toBeGreaterThan(0.93);
  const seen = new Set<number>();
  for (const step of steps) {
    for (const index of step.samples) seen.add(index);
    expect(step.trained).toBeGreaterThan(0);
  }
  expect(seen.size).toBe(rows.length);
  for (const index of [0, 7, rows.length - 1]) {
    const sample = dataset.at(index);
    expect(await tokenizer.decode(sample.ids, { skipSpecialTokens: true })).toBe(`${rows[index]?.question}\n${rows[index]?.answer}`);
    expect(await tokenizer.decode(sample.ids.filter((_, t) => sample.trained[t] === 1))).toBe(`${rows[index]?.answer}</s>`);
  }
});
