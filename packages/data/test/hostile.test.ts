// Tokenizers and data made to hang, to fill the memory, or to reach out of their folder: a typed error each time, and work goes on.
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, renameSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it, vi } from 'vitest';
import { Dice } from '../../../tools/fuzz/src/dice.ts';
import { anything, damage, Fields, print, Raw } from '../../../tools/fuzz/src/texts.ts';
import { DataError, loadTokenizer, openTokenizer, renderPrompt } from '../src/index.ts';
import { BadLines } from '../src/sources/bad-lines.ts';
import { rowParts } from '../src/sources/jsonl.ts';
import { readSource } from '../src/sources/source.ts';
import { isQuick } from '../src/tokenizer/quick.ts';
import { byteTokenizer } from './byte-tokenizer.ts';
import { fileOf } from './files.ts';

type Json = Record<string, unknown>;

/** The byte tokenizer with `changes` in its tokenizer.json. */
function changed(changes: Json): string {
  const folder = byteTokenizer();
  const path = join(folder, 'tokenizer.json');
  writeFileSync(path, JSON.stringify({ ...(JSON.parse(readFileSync(path, 'utf8')) as Json), ...changes }));
  return folder;
}

const replace = (from: string, to: string): Json => ({ type: 'Replace', pattern: { String: from }, content: to });
const sequence = (normalizers: readonly Json[]): Json => ({ type: 'Sequence', normalizers });

describe('a tokenizer that makes much of little', () => {
  it('is kept out of the thread of the trainer, and what harmless ones do is not', () => {
    const model = { type: 'BPE' };
    const llama = sequence([{ type: 'Prepend', prepend: '▁' }, replace(' ', '▁')]);
    const decoder = { type: 'Sequence', decoders: [replace('▁', ' '), { type: 'ByteFallback' }, { type: 'Fuse' }, { type: 'Strip', content: ' ', start: 1, stop: 0 }] };
    expect(isQuick({ model, normalizer: llama, decoder })).toBe(true);
    expect(isQuick({ model, normalizer: null, pre_tokenizer: { type: 'ByteLevel' } })).toBe(true);
    expect(isQuick({ model, pre_tokenizer: { type: 'Split', pattern: { Regex: 'a' } } })).toBe(false);
    expect(isQuick({ model, normalizer: replace('a', 'a'.repeat(20)) })).toBe(false);
    expect(isQuick({ model, normalizer: sequence(Array.from({ length: 9 }, () => replace('a', 'aa'))) })).toBe(false);
    expect(isQuick({ model, normalizer: { ...replace('a', 'a'.repeat(20)), special: true } })).toBe(false);
    expect(isQuick({ model, normalizer: replace('', 'a'.repeat(20)) })).toBe(false);
    expect(isQuick({ model: { type: 'WordPiece' } })).toBe(false);
    expect(isQuick({ model: [] })).toBe(false);
    expect(isQuick({})).toBe(false);
  });

  it.each([
    ['a million characters of one, without end', sequence(Array.from({ length: 4 }, () => replace('a', 'a'.repeat(100)))), { budgetMs: 1500 }, /TokenizerTimeout|TokenizerWorker/],
    ['more than the heap holds, at once', sequence([replace('a', 'a'.repeat(1000)), replace('a', 'b'.repeat(1000))]), { heapMb: 24, budgetMs: 60_000 }, /TokenizerWorker/],
    ['more tokens than a text can have', replace('a', 'b'.repeat(4000)), {}, /TokenizerOutput/],
  ])('%s: an error, and the next text is encoded', async (_, normalizer, options, code) => {
    await using tokenizer = await openTokenizer(changed({ normalizer }), { threads: 1, ...options });
    const error: unknown = await tokenizer.encode('aaaa').catch((caught: unknown) => caught);
    expect(error).toBeInstanceOf(DataError);
    expect((error as DataError).code).toMatch(code);
    expect((await tokenizer.encode('c')).length).toBe(2);
  });

  it('jobs behind one that ends its worker are done by the next', async () => {
    const normalizer = sequence([replace('a', 'a'.repeat(1000)), replace('a', 'b'.repeat(1000))]);
    await using tokenizer = await openTokenizer(changed({ normalizer }), { threads: 1, heapMb: 24, budgetMs: 60_000 });
    const [first, second] = await Promise.allSettled([tokenizer.encode('aaaa'), tokenizer.encode('c')]);
    expect(first).toMatchObject({ status: 'rejected', reason: { code: 'TokenizerWorker', message: expect.stringContaining('over 24 MiB') } });
    expect(second).toMatchObject({ status: 'fulfilled' });
  });

  it('text that decodes without end is refused', async () => {
    const decoders = [{ type: 'ByteFallback' }, { type: 'Fuse' }, ...Array.from({ length: 3 }, () => replace('a', 'a'.repeat(60)))];
    await using tokenizer = await openTokenizer(changed({ decoder: { type: 'Sequence', decoders } }), { threads: 1 });
    await expect(tokenizer.decode([3 + 97])).rejects.toMatchObject({ code: 'TokenizerOutput' });
    expect(await tokenizer.decode([3 + 98])).toBe('b');
  });
});

it('a worker in an endless job ends with its program, however that ends', async () => {
  const folder = byteTokenizer(undefined, '(a+)+$');
  const program = spawn(process.execPath, ['--input-type=module', '-e', `
    import { fork } from 'node:child_process';
    const child = fork(${JSON.stringify(fileURLToPath(new URL('../src/tokenizer/worker.js', import.meta.url)))}, [${JSON.stringify(folder)}], { serialization: 'advanced', execArgv: [], stdio: ['ignore', 'ignore', 'ignore', 'ipc'] });
    child.on('message', (message) => {
      if (message.kind !== 'ready') return;
      child.send({ id: 1, kind: 'encode', texts: ['${'a'.repeat(60)}b'], specialTokens: true });
      setTimeout(() => console.log(child.pid), 300);
    });`], { stdio: ['ignore', 'pipe', 'inherit'] });
  const [line] = (await once(program.stdout, 'data')) as [Buffer];
  const pid = Number(line.toString());
  // A process that has ended may wait for its parent to look: state Z.
  const state = (): string => {
    try {
      return /\) (\w)/.exec(readFileSync(`/proc/${pid}/stat`, 'utf8'))![1]!;
    } catch {
      return 'gone';
    }
  };
  expect(state()).toBe('R');
  program.kill('SIGKILL');
  await vi.waitFor(() => expect(state()).toMatch(/gone|Z/), { timeout: 50_000, interval: 200 });
});

it('a pattern whose key is spelled with an escape ends at its budget too', async () => {
  const folder = byteTokenizer(undefined, '(a+)+$');
  const path = join(folder, 'tokenizer.json');
  writeFileSync(path, readFileSync(path, 'utf8').replace('"Regex"', '"\\u0052egex"'));
  await using tokenizer = await openTokenizer(folder, { budgetMs: 500, threads: 1 });
  await expect(tokenizer.encode(`${'a'.repeat(60)}b`)).rejects.toMatchObject({ code: 'TokenizerTimeout' });
  expect((await tokenizer.encode('abc')).length).toBe(4);
});

describe('files of a tokenizer', () => {
  it('are not read from outside its folder', async () => {
    for (const name of ['tokenizer.json', 'tokenizer_config.json']) {
      const folder = byteTokenizer();
      const elsewhere = join(mkdtempSync(join(tmpdir(), 'lomo-data-')), 'x.json');
      renameSync(join(folder, name), elsewhere);
      symlinkSync(elsewhere, join(folder, name));
      await expect(openTokenizer(folder)).rejects.toMatchObject({ code: 'BadTokenizer', message: expect.stringContaining("outside the tokenizer's folder") });
    }
  });

  it("are read through the links of a Hugging Face cache's snapshot", async () => {
    const cache = mkdtempSync(join(tmpdir(), 'lomo-data-'));
    const snapshot = join(cache, 'snapshots', 'abc');
    mkdirSync(join(cache, 'blobs'));
    mkdirSync(snapshot, { recursive: true });
    for (const name of ['tokenizer.json', 'tokenizer_config.json']) {
      copyFileSync(join(byteTokenizer(), name), join(cache, 'blobs', `blob-${name}`));
      symlinkSync(`../../blobs/blob-${name}`, join(snapshot, name));
    }
    expect((await loadTokenizer(snapshot)).encode('ab').length).toBe(3);
  });

  it('are regular: a device and a fifo are refused, not waited for', async () => {
    for (const name of ['tokenizer.json', 'tokenizer_config.json']) {
      const folder = byteTokenizer();
      renameSync(join(folder, name), join(folder, 'other'));
      execFileSync('mkfifo', [join(folder, name)]);
      await expect(openTokenizer(folder)).rejects.toMatchObject({ code: 'BadTokenizer', message: expect.stringContaining('not a regular file') });
    }
    const folder = byteTokenizer();
    renameSync(join(folder, 'tokenizer.json'), join(folder, 'other'));
    symlinkSync('/dev/zero', join(folder, 'tokenizer.json'));
    await expect(openTokenizer(folder)).rejects.toMatchObject({ code: 'BadTokenizer' });
  });

  it('400 damaged ones load or are refused by a typed error, and what loads encodes or is refused', async () => {
    const folder = byteTokenizer();
    const path = join(folder, 'tokenizer.json');
    const good = readFileSync(path);
    let loaded = 0;
    for (let i = 0; i < 400; i++) {
      const dice = new Dice(20261124, i);
      let bytes = Uint8Array.from(good) as Uint8Array;
      if (dice.oneIn(2)) for (let n = 1 + dice.below(3); n > 0; n--) bytes = damage(bytes, dice);
      else {
        const description = JSON.parse(good.toString()) as Json;
        const keys = ['normalizer', 'pre_tokenizer', 'decoder', 'post_processor', 'model', 'added_tokens', '__proto__'];
        const text = print(new Fields([...Object.entries(description).map(([key, value]): [string, Raw] => [key, new Raw(JSON.stringify(value))]), [dice.pick(keys), anything(dice, 3)]]));
        bytes = new TextEncoder().encode(text);
      }
      writeFileSync(path, bytes);
      try {
        const tokenizer = await loadTokenizer(folder);
        loaded++;
        tokenizer.decode(tokenizer.encode('a b\u00e9'));
      } catch (error) {
        expect(error, `case ${i}`).toBeInstanceOf(DataError);
      }
    }
    expect(loaded).toBeGreaterThan(50);
    expect(({} as Json)['polluted']).toBeUndefined();
  });
});

describe('data lines', () => {
  it('that would fill the heap are bad lines, and the next is read', async () => {
    const bomb = (open: string, close: string): string => `{"text":"x","bomb":[${open.repeat(rowParts)}${close.repeat(rowParts)}]}`;
    const strings = `{"text":"${',[{:'.repeat(rowParts / 2)}"}`;
    const path = fileOf('a.jsonl', [bomb('[', ']'), `{"text":"x","bomb":[${'{},'.repeat(rowParts)}{}]}`, strings, '{"text":"end"}'].join('\n'));
    const bad = new BadLines(path, 'skip');
    const lines: number[] = [];
    for await (const { line } of readSource({ path }, bad, 64 * 2 ** 20)) lines.push(line);
    expect(lines).toEqual([3, 4]);
    expect(bad.first.map((text) => text.slice(path.length))).toEqual([`:1: over ${rowParts} brackets, commas and colons, expected at most that in one JSON object`, `:2: over ${rowParts} brackets, commas and colons, expected at most that in one JSON object`]);
  });

  it('5,000 damaged ones are rows or counted, in order', async () => {
    const rows = Array.from({ length: 5000 }, (_, i) => {
      const dice = new Dice(7, i);
      let bytes: Uint8Array = new TextEncoder().encode(print(new Fields([['prompt', `p${i}`], ['completion', anything(dice, 3)], ['__proto__', 'x']]), dice).replaceAll(/[\r\n]/g, ' '));
      if (dice.oneIn(2)) bytes = damage(bytes, dice);
      return Buffer.from(bytes.filter((byte) => byte !== 0x0a));
    });
    const path = fileOf('a.jsonl', Buffer.concat(rows.flatMap((row) => [row, Buffer.from('\n')])));
    const bad = new BadLines(path, 'skip');
    let [read, last] = [0, 0];
    for await (const { line, row } of readSource({ path }, bad, 2 ** 20)) {
      expect(line).toBeGreaterThan(last);
      expect(Object.getPrototypeOf(row)).toBe(Object.prototype);
      last = line;
      read++;
    }
    const blank = rows.filter((row) => row.toString('latin1').trim() === '').length;
    expect(read + bad.count).toBe(5000 - blank);
    expect(read).toBeGreaterThan(2000);
    expect(bad.count).toBeGreaterThan(500);
  });

  it('of a device are refused', async () => {
    const bad = new BadLines('/dev/zero', 'skip');
    await expect(readSource({ path: '/dev/zero', type: 'jsonl' }, bad, 2 ** 20).next()).rejects.toMatchObject({ code: 'MissingFile', message: expect.stringContaining('device') });
  });
});

it('a template makes a bounded text of a row', () => {
  expect(() => renderPrompt('x'.repeat(2 ** 20), { prompt: '{prompt}'.repeat(100) })).toThrow(/over 67108864 characters/);
  expect(renderPrompt('x', { prompt: '{prompt}{a}' }, { a: '{prompt}' })).toBe('x{prompt}');
});
