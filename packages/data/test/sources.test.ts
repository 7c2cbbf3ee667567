// Readers: lines with every kind of end and fault, JSONL, text documents, bad lines.
import { writeFileSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { BadLines } from '../src/sources/bad-lines.ts';
import { readLines } from '../src/sources/lines.ts';
import type { Line } from '../src/sources/lines.ts';
import { readSource } from '../src/sources/source.ts';
import type { Source, SourceRecord } from '../src/sources/source.ts';
import { fileOf } from './files.ts';

async function linesOf(content: string | Uint8Array, maxBytes = 1 << 20): Promise<Line[]> {
  const lines: Line[] = [];
  for await (const line of readLines(fileOf('a.txt', content), maxBytes)) lines.push(line);
  return lines;
}

async function recordsOf(source: Source, mode: 'fail' | 'skip' = 'fail', maxBytes = 1 << 20): Promise<{ records: SourceRecord[]; bad: BadLines }> {
  const bad = new BadLines(source.path, mode);
  const records: SourceRecord[] = [];
  for await (const record of readSource(source, bad, maxBytes)) records.push(record);
  return { records, bad };
}

describe('readLines', () => {
  it('drops a byte order mark and both kinds of line end, and keeps a last line without one', async () => {
    expect(await linesOf('\uFEFFa\r\nb\n\nc')).toEqual([
      { number: 1, text: 'a' }, { number: 2, text: 'b' }, { number: 3, text: '' }, { number: 4, text: 'c' }]);
    expect(await linesOf('')).toEqual([]);
    expect(await linesOf('a\n')).toEqual([{ number: 1, text: 'a' }]);
  });

  it('keeps U+FEFF and lone carriage returns inside', async () => {
    expect(await linesOf('a\rb\uFEFF\n\uFEFFc')).toEqual([{ number: 1, text: 'a\rb\uFEFF' }, { number: 2, text: '\uFEFFc' }]);
  });

  it('names NUL, invalid UTF-8, UTF-16 and too long lines, and goes on behind them', async () => {
    const lines = await linesOf(Buffer.concat([Buffer.from('ok\na\0b\n'), Buffer.from([0xc3, 0x28, 0x0a]), Buffer.from(`${'x'.repeat(100)}\nend`)]), 50);
    expect(lines.map((line) => line.problem === undefined)).toEqual([true, false, false, false, true]);
    expect(lines[1]?.problem).toContain('NUL byte at byte 2');
    expect(lines[2]?.problem).toContain('invalid UTF-8');
    expect(lines[3]?.problem).toContain('over 50 bytes');
    expect((await linesOf(Buffer.from('\uFEFFab\n', 'utf16le')))[0]?.problem).toContain('UTF-16');
  });

  it('holds a long line only up to the limit', async () => {
    const path = fileOf('long.txt', '');
    writeFileSync(path, Buffer.alloc(200 << 20, 0x61));
    const before = process.memoryUsage.rss();
    let most = 0;
    const timer = setInterval(() => { most = Math.max(most, process.memoryUsage.rss() - before); }, 5);
    const lines: Line[] = [];
    for await (const line of readLines(path, 1 << 20)) lines.push(line);
    clearInterval(timer);
    writeFileSync(path, '');
    expect(lines.length).toBe(1);
    expect(lines[0]?.problem).toContain('over 1048576 bytes');
    expect(most).toBeLessThan(100 << 20);
  });

  it('gives the same lines as splitting the whole text, over buffer ends too', async () => {
    await fc.assert(fc.asyncProperty(fc.array(fc.string({ unit: 'binary' }).map((s) => s.replace(/[\n\r\0\uFEFF]/g, '')), { minLength: 1 }), fc.integer({ min: 0, max: 300_000 }), async (texts, wide) => {
      const all = ['é'.repeat(wide), ...texts, 'end'];
      expect((await linesOf(all.join('\n'), 1 << 30)).map((line) => line.text)).toEqual(all.map((text) => Buffer.from(text).toString()));
    }), { numRuns: 15 });
  });

  it('names a missing file and a folder', async () => {
    await expect(recordsOf({ path: '/nowhere/a.jsonl' })).rejects.toMatchObject({ code: 'MissingFile', message: '/nowhere/a.jsonl: no such file' });
    await expect(recordsOf({ path: '/', type: 'text' })).rejects.toMatchObject({ code: 'MissingFile' });
  });
});

describe('jsonl', () => {
  it('fails with path:line, what is wrong and what is expected', async () => {
    const path = fileOf('a.jsonl', '{"text":"a"}\n\n{"text":\n');
    await expect(recordsOf({ path })).rejects.toMatchObject({ code: 'BadLine', details: { path, line: 3 } });
    await expect(recordsOf({ path })).rejects.toThrow(`${path}:3: invalid JSON`);
    await expect(recordsOf({ path: fileOf('a.jsonl', '[1]\n') })).rejects.toThrow(':1: a JSON array, expected a JSON object');
  });

  it('skips with counts and places', async () => {
    const path = fileOf('a.jsonl', '{"text":"a"}\nnull\n7\n"x"\n{"text":"b\0"}\n{"text":"c"}');
    const { records, bad } = await recordsOf({ path }, 'skip');
    expect(records).toEqual([{ line: 1, row: { text: 'a' } }, { line: 6, row: { text: 'c' } }]);
    expect(bad.count).toBe(4);
    expect(bad.first[0]).toBe(`${path}:2: null, expected a JSON object`);
  });
});

describe('text', () => {
  const read = async (content: string, separator?: string | null): Promise<[number, unknown][]> => {
    const { records } = await recordsOf({ path: fileOf('a.txt', content), ...(separator === undefined ? {} : { separator }) });
    return records.map(({ line, row }) => [line, row['text']]);
  };

  it('splits at blank lines by default', async () => {
    expect(await read('\n\na\r\nb\r\n\r\n\r\n\r\nc\n')).toEqual([[3, 'a\nb'], [8, 'c']]);
  });

  it('splits at any separator, also several in a line and over lines', async () => {
    expect(await read('a<|endoftext|>b\nc<|endoftext|>\n<|endoftext|>d', '<|endoftext|>')).toEqual([[1, 'a'], [1, 'b\nc'], [3, 'd']]);
    expect(await read('a\n---\nb\n--\n---\nc', '\n---\n')).toEqual([[1, 'a'], [3, 'b\n--'], [6, 'c']]);
  });

  it('reads a whole file as one document', async () => {
    expect(await read('\na\n\nb\n', null)).toEqual([[2, 'a\n\nb']]);
    expect(await read('\n \n', null)).toEqual([]);
  });

  it('agrees with splitting the whole text', async () => {
    await fc.assert(fc.asyncProperty(fc.array(fc.constantFrom('a', 'b', '\n', '\n\n', '--', '-', ' '), { maxLength: 40 }), fc.constantFrom('\n\n', '--', '\n--\n', 'ab'), async (parts, separator) => {
      const text = `${parts.join('')}\n`;
      const wanted = text.split(separator).map((part) => part.trim()).filter((part) => part !== '');
      expect((await read(text, separator)).map(([, document]) => document)).toEqual(wanted);
    }), { numRuns: 100 });
  });

  it('refuses an endless document and an unknown extension', async () => {
    await expect(recordsOf({ path: fileOf('a.txt', 'abc\n'.repeat(100)), separator: null }, 'fail', 200)).rejects.toMatchObject({ code: 'BadLine' });
    const { records, bad } = await recordsOf({ path: fileOf('a.txt', `${'abc\n'.repeat(100)}\n\nshort`) }, 'skip', 200);
    expect([records.length, bad.count]).toEqual([1, 1]);
    await expect(recordsOf({ path: fileOf('a.csv', 'a') })).rejects.toMatchObject({ code: 'BadOption' });
  });
});
