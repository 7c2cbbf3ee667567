// Tokenizers against golden strings, in this thread and in workers; their faults and refusals.
import { mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { loadTokenizer, openTokenizer } from '../src/index.ts';
import { byteTokenizer } from './byte-tokenizer.ts';
import { sharedPath } from './shared.ts';

interface Golden { readonly text: string; readonly ids: number[]; readonly decoded: string; readonly decoded_without_special: string }

const cases = [
  { name: 'stories260k', folder: sharedPath('models/stories260k'), golden: sharedPath('golden/tokenizers/stories260k.json') },
  { name: 'gpt2', folder: sharedPath('tokenizers/gpt2'), golden: sharedPath('golden/tokenizers/gpt2.json') },
];

describe.each(cases)('golden tokenizer $name', ({ folder, golden }) => {
  it.skipIf(folder === null || golden === null)('encodes and decodes every string exactly, in this thread', async () => {
    const rows: Golden[] = JSON.parse(readFileSync(golden ?? '', 'utf8'));
    const tokenizer = await loadTokenizer(folder ?? '');
    expect(rows.length).toBeGreaterThanOrEqual(60);
    for (const row of rows) {
      expect([...tokenizer.encode(row.text)]).toEqual(row.ids);
      expect(tokenizer.decode(row.ids)).toBe(row.decoded);
      expect(tokenizer.decode(row.ids, { skipSpecialTokens: true })).toBe(row.decoded_without_special);
    }
  });

  it.skipIf(folder === null || golden === null)('gives the same through worker processes', async () => {
    const rows: Golden[] = JSON.parse(readFileSync(golden ?? '', 'utf8'));
    await using tokenizer = await openTokenizer(folder ?? '', { inProcessBytes: 0, threads: 2 });
    const ids = await tokenizer.encodeAll(rows.map((row) => row.text));
    expect(ids.map((row) => [...row])).toEqual(rows.map((row) => row.ids));
    expect(await tokenizer.decodeAll(ids)).toEqual(rows.map((row) => row.decoded));
    expect(await tokenizer.decodeAll(ids, { skipSpecialTokens: true })).toEqual(rows.map((row) => row.decoded_without_special));
  });
});

describe('openTokenizer', () => {
  const gpt2 = sharedPath('tokenizers/gpt2');

  it.skipIf(gpt2 === null)('loads GPT-2 without blocking the event loop for 50 ms', async () => {
    const before = performance.eventLoopUtilization();
    await using tokenizer = await openTokenizer(gpt2 ?? '');
    const { active } = performance.eventLoopUtilization(before);
    expect(tokenizer).toMatchObject({ vocabSize: 50257, bosId: 50256, eosId: 50256, padId: null });
    // All the time this thread was busy, in ms; loading in this thread takes 90 to 260.
    expect(active).toBeLessThan(50);
  });

  it('keeps order over many jobs, and agrees with the tokenizer in this thread', async () => {
    const folder = byteTokenizer();
    const texts = Array.from({ length: 3000 }, (_, i) => `text ${i} ${'é'.repeat(i % 40)}`);
    await using pooled = await openTokenizer(folder, { threads: 2 });
    const local = await loadTokenizer(folder);
    const rows = await pooled.encodeAll(texts);
    expect(rows.length).toBe(texts.length);
    expect(rows.map((ids) => local.decode(ids, { skipSpecialTokens: true }))).toEqual(texts);
  });

  it('decodes nothing to an empty text, and keeps U+FEFF', async () => {
    await using tokenizer = await openTokenizer(byteTokenizer());
    expect(await tokenizer.decode([])).toBe('');
    const ids = await tokenizer.encode('a\uFEFFb\uFEFF', { specialTokens: false });
    expect(await tokenizer.decode(ids)).toBe('a\uFEFFb\uFEFF');
  });

  it('names an id that is no token', async () => {
    await using tokenizer = await openTokenizer(byteTokenizer());
    await expect(tokenizer.decode([999])).rejects.toMatchObject({ code: 'TokenOutOfRange', message: expect.stringContaining('token id 999') });
    await using pooled = await openTokenizer(byteTokenizer(), { inProcessBytes: 0 });
    await expect(pooled.decode([999])).rejects.toMatchObject({ code: 'TokenOutOfRange' });
    expect(await pooled.decode([259 - 1])).not.toBe('');
  });

  it('refuses Unigram with byte fallback, and folders without a tokenizer', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'lomo-data-'));
    await expect(openTokenizer(folder)).rejects.toMatchObject({ code: 'MissingTokenizer' });
    writeFileSync(join(folder, 'tokenizer.json'), JSON.stringify({ model: { type: 'Unigram', byte_fallback: true, unk_id: 0, vocab: [['<unk>', 0]] } }));
    await expect(openTokenizer(folder)).rejects.toMatchObject({ code: 'UnsupportedTokenizer' });
    await expect(openTokenizer(folder, { inProcessBytes: 0 })).rejects.toMatchObject({ code: 'UnsupportedTokenizer' });
    writeFileSync(join(folder, 'tokenizer.json'), '{"model":');
    await expect(openTokenizer(folder)).rejects.toMatchObject({ code: 'BadTokenizer' });
  });

  it('reads vocab.json with merges.txt, with or without a version line', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'lomo-data-'));
    writeFileSync(join(folder, 'vocab.json'), JSON.stringify({ a: 0, b: 1, ab: 2, '<|endoftext|>': 3 }));
    for (const merges of ['#version: 0.2\na b\n', 'a b\n', 'a b\r\n']) {
      writeFileSync(join(folder, 'merges.txt'), merges);
      const tokenizer = await loadTokenizer(folder);
      expect([...tokenizer.encode('abba<|endoftext|>')]).toEqual([2, 1, 0, 3]);
      expect(tokenizer.eosId).toBe(3);
    }
    writeFileSync(join(folder, 'merges.txt'), 'a b c\n');
    await expect(loadTokenizer(folder)).rejects.toMatchObject({ code: 'BadTokenizer', message: expect.stringContaining('merges.txt:1') });
  });

  it('ends a job over its budget, and works on', async () => {
    await using tokenizer = await openTokenizer(byteTokenizer(), { inProcessBytes: 0, budgetMs: 400, threads: 1 });
    const endless = 'a'.repeat(20_000_000);
    await expect(tokenizer.encode(endless)).rejects.toMatchObject({ code: 'TokenizerTimeout' });
    expect((await tokenizer.encode('abc')).length).toBe(4);
  });

  it('survives a hostile pattern in the file', async () => {
    await using tokenizer = await openTokenizer(byteTokenizer(undefined, '(a+)+$'), { budgetMs: 500, threads: 1 });
    await expect(tokenizer.encode(`${'a'.repeat(60)}b`)).rejects.toMatchObject({ code: 'TokenizerTimeout' });
    expect((await tokenizer.encode('abc')).length).toBe(4);
  });

  it('rejects work after close', async () => {
    const tokenizer = await openTokenizer(byteTokenizer(), { inProcessBytes: 0 });
    await tokenizer.close();
    await expect(tokenizer.encode('a')).rejects.toMatchObject({ code: 'TokenizerClosed' });
  });
});
