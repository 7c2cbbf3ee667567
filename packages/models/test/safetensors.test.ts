// The safetensors reader and writer: exact round trips, and a refusal for every lie a header can tell.
import { readFile, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { SafetensorsFile, convert, nodeFiles, observeFiles, writeSafetensors, writeShards } from '../src/index.ts';
import type { DiskType, OpenFile, TensorSource } from '../src/index.ts';
import { rawFileAt, temporary } from './folders.ts';

function source(name: string, shape: readonly number[], options: { dtype?: DiskType; bytes: Uint8Array }): TensorSource {
  return {
    name,
    shape,
    dtype: options.dtype ?? 'F32',
    *slices() {
      for (let at = 0; at < options.bytes.byteLength; at += 5) yield options.bytes.slice(at, at + 5);
    },
  };
}

const filled = (n: number) => Uint8Array.from({ length: n }, (_, i) => (i * 31 + 7) & 0xff);

describe('writer and reader', () => {
  it('round trips tensors, metadata, empty tensors, scalars and odd names', async () => {
    const folder = await temporary();
    const path = join(folder, 'model.safetensors');
    const written = await writeSafetensors(path, [
      source('a.weight', [2, 3], { bytes: filled(24) }),
      source('scalar', [], { bytes: filled(2), dtype: 'BF16' }),
      source('empty', [0, 4], { bytes: filled(0) }),
      source('__proto__', [3], { bytes: filled(3), dtype: 'U8' }),
      source('long "π"', [2], { bytes: filled(16), dtype: 'I64' }),
    ]);
    const raw = await readFile(path);
    expect(raw.byteLength).toBe(written.bytes);
    expect((8 + Number(raw.readBigUInt64LE(0))) % 8).toBe(0);
    const { createHash } = await import('node:crypto');
    expect(createHash('sha256').update(raw).digest('hex')).toBe(written.sha256);

    await using file = await SafetensorsFile.open(path);
    expect(file.metadata['format']).toBe('pt');
    expect([...file.entries.keys()].sort()).toEqual(['__proto__', 'a.weight', 'empty', 'long "π"', 'scalar']);
    for (const [name, size] of [['a.weight', 24], ['scalar', 2], ['empty', 0], ['__proto__', 3], ['long "π"', 16]] as const) {
      const bytes = new Uint8Array(size);
      await file.read(name, bytes);
      expect(bytes).toEqual(filled(size));
    }
    const middle = new Uint8Array(5);
    await file.read('a.weight', middle, 7);
    expect(middle).toEqual(filled(24).slice(7, 12));
    const parts: number[] = [];
    for await (const slice of file.slices('a.weight', 7)) parts.push(...slice);
    expect(parts).toEqual([...filled(24)]);
    await expect(file.read('a.weight', middle, 20)).rejects.toMatchObject({ code: 'RangeError' });
    await expect(file.read('nothing', middle)).rejects.toMatchObject({ code: 'NoSuchTensor' });
  });

  it('refuses a source of the wrong length and a name given twice', async () => {
    const folder = await temporary();
    const path = join(folder, 'x.safetensors');
    await expect(writeSafetensors(path, [source('a', [2], { bytes: filled(4) })])).rejects.toMatchObject({ code: 'WrongLength' });
    const twice = source('a', [1], { bytes: filled(4) });
    await expect(writeSafetensors(path, [twice, twice])).rejects.toMatchObject({ code: 'DuplicateTensor' });
  });

  it('splits into shards at the limit, one tensor never over two', async () => {
    const folder = await temporary();
    const sources = [10, 20, 60, 5, 5].map((n, i) => source(`t${i}`, [n], { bytes: filled(n), dtype: 'U8' }));
    const written = await writeShards(folder, sources, { shardBytes: 30 });
    expect(written.map((w) => w.name)).toEqual([
      'model-00001-of-00003.safetensors',
      'model-00002-of-00003.safetensors',
      'model-00003-of-00003.safetensors',
      'model.safetensors.index.json',
    ]);
    const index = JSON.parse(await readFile(join(folder, 'model.safetensors.index.json'), 'utf8')) as { metadata: { total_size: number }; weight_map: Record<string, string> };
    expect(index.metadata.total_size).toBe(100);
    expect(Object.values(index.weight_map).map((name) => name[10])).toEqual(['1', '1', '2', '3', '3']);
  });

  it('gets over short reads and short writes', async () => {
    const folder = await temporary();
    const path = join(folder, 'short.safetensors');
    const stingy = (file: OpenFile): OpenFile => ({
      ...file,
      read: (into, position) => file.read(into.subarray(0, 3), position),
      write: (from, position) => file.write(from.subarray(0, 3), position),
    });
    const files = { ...nodeFiles, open: async (p: string, mode: 'read' | 'write' | 'create') => stingy(await nodeFiles.open(p, mode)) };
    await writeSafetensors(path, [source('a', [5], { bytes: filled(20) })], { files });
    await using file = await SafetensorsFile.open(path, { files });
    const bytes = new Uint8Array(20);
    await file.read('a', bytes);
    expect(bytes).toEqual(filled(20));
  });

  it('reports the failing call whichever it is, and closes what it opened', async () => {
    const folder = await temporary();
    const path = join(folder, 'k.safetensors');
    let calls = 0;
    const run = async (fail: number) => {
      calls = 0;
      const opened = { count: 0 };
      const files = observeFiles(nodeFiles, (call) => {
        calls = call.count;
        if (call.verb === 'open') opened.count++;
        if (call.count === fail) throw Object.assign(new Error('injected'), { code: 'EIO' });
      });
      await writeSafetensors(path, [source('a', [5], { bytes: filled(20) })], { files });
      const file = await SafetensorsFile.open(path, { files });
      try {
        await file.read('a', new Uint8Array(20));
      } finally {
        await file.close();
      }
    };
    await run(-1);
    const total = calls;
    expect(total).toBeGreaterThan(10);
    for (let k = 1; k <= total; k++) {
      await expect(run(k)).rejects.toMatchObject({ code: 'FileError', details: { path, errno: 'EIO' } });
    }
  });
});

describe('hostile and broken files', () => {
  const entry = (begin: number, end: number, shape = [(end - begin) / 4], dtype = 'F32') => JSON.stringify({ dtype, shape, data_offsets: [begin, end] });
  const cases: readonly (readonly [string, { header: string; data: number; length?: bigint }, RegExp])[] = [
    ['truncated data', { header: `{"a":${entry(0, 8)},"b.weight":${entry(8, 24)}}`, data: 20 }, /model\.safetensors: tensor "b\.weight": truncated file: expected \d+ bytes, found \d+ bytes/],
    ['bytes after the end', { header: `{"a":${entry(0, 8)}}`, data: 12 }, /bytes after the last tensor/],
    ['overlap', { header: `{"a":${entry(0, 8)},"b":${entry(4, 12)}}`, data: 12 }, /tensor "b": overlaps/],
    ['the same bytes twice', { header: `{"a":${entry(0, 8)},"b":${entry(0, 8)}}`, data: 8 }, /overlaps/],
    ['a hole', { header: `{"a":${entry(0, 8)},"b":${entry(12, 16)}}`, data: 16 }, /tensor "b": leaves a hole/],
    ['a late start', { header: `{"a":${entry(8, 16)}}`, data: 16 }, /leaves a hole/],
    ['a shape that does not fit', { header: `{"a":${entry(0, 8, [3])}}`, data: 8 }, /shape \[3\] of F32 does not fill its bytes: expected 12 bytes, found 8 bytes/],
    ['a product over 2^64', { header: `{"a":${entry(0, 8, [2 ** 40, 2 ** 40])}}`, data: 8 }, /does not fill its bytes/],
    ['a wrapping product', { header: `{"a":${entry(0, 0, [2 ** 32, 2 ** 32, 4])}}`, data: 0 }, /does not fill its bytes/],
    ['a negative size', { header: `{"a":${entry(0, 8, [-2])}}`, data: 8 }, /bad shape/],
    ['a fraction', { header: `{"a":${entry(0, 8, [1.5])}}`, data: 8 }, /bad shape/],
    ['a size over 2^53', { header: '{"a":{"dtype":"U8","shape":[9007199254740993],"data_offsets":[0,8]}}', data: 8 }, /bad shape/],
    ['reversed offsets', { header: `{"a":${entry(8, 0, [0])}}`, data: 8 }, /bad data_offsets/],
    ['three offsets', { header: '{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8,8]}}', data: 8 }, /bad data_offsets/],
    ['an unknown dtype', { header: `{"a":${entry(0, 8, [2], 'F99')}}`, data: 8 }, /unknown dtype/],
    ['a dtype of the prototype', { header: `{"a":${entry(0, 8, [2], 'toString')}}`, data: 8 }, /unknown dtype/],
    ['an unknown key', { header: '{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8],"x":1}}', data: 8 }, /unknown key/],
    ['a duplicate tensor', { header: `{"a":${entry(0, 8)},"a":${entry(0, 8)}}`, data: 8 }, /duplicate key "a"/],
    ['an entry that is a list', { header: '{"a":[1]}', data: 8 }, /bad entry/],
    ['metadata of numbers', { header: '{"__metadata__":{"a":1}}', data: 0 }, /__metadata__ "a" is not a string/],
    ['a list', { header: '[1]', data: 0 }, /starts with '\{'/],
    ['bad JSON', { header: '{"a":', data: 0 }, /expected a value/],
    ['a JSON bomb', { header: `{"a":${'['.repeat(50_000)}`, data: 0 }, /nested deeper/],
    ['a header longer than the file', { header: '{}', data: 0, length: 100n }, /truncated header: expected 108 bytes, found 10 bytes/],
    ['a header of 2^63', { header: '{}', data: 0, length: 2n ** 63n }, /header too long.*found 9223372036854775808 bytes/],
    ['a header of 2^64 - 1', { header: '{}', data: 0, length: 2n ** 64n - 1n }, /header too long/],
    ['an empty header', { header: '', data: 0 }, /starts with/],
  ];
  it.each(cases)('refuses %s', async (_, file, message) => {
    const path = await rawFileAt(await temporary(), file);
    await expect(SafetensorsFile.open(path)).rejects.toThrow(message);
  });

  it('refuses files too short for a length, folders and fifos', async () => {
    const folder = await temporary();
    const path = join(folder, 'short');
    await writeFile(path, 'abc');
    await expect(SafetensorsFile.open(path)).rejects.toThrow(/no room for the header length/);
    await expect(SafetensorsFile.open(folder)).rejects.toMatchObject({ code: 'NotAFile' });
    await expect(SafetensorsFile.open('/dev/zero')).rejects.toMatchObject({ code: 'NotAFile' });
    await expect(SafetensorsFile.open(join(folder, 'absent'))).rejects.toMatchObject({ code: 'FileError', details: { errno: 'ENOENT' } });
  });

  it('notices a file that shrinks while it is open', async () => {
    const path = await rawFileAt(await temporary(), { header: `{"a":${entry(0, 8)}}`, data: 8 });
    await using file = await SafetensorsFile.open(path);
    const { size } = (await nodeFiles.facts(path))!;
    await truncate(path, size - 3);
    await expect(file.read('a', new Uint8Array(8))).rejects.toThrow(/tensor "a": truncated file: expected 8 bytes at \d+, found 5 bytes/);
  });

  it('never throws anything but a LomoError, whatever byte is changed', async () => {
    const folder = await temporary();
    const path = await rawFileAt(folder, { header: `{"__metadata__":{"format":"pt"},"a":${entry(0, 8)},"b":${entry(8, 16)}}`, data: 16 });
    const good = await readFile(path);
    await fc.assert(
      fc.asyncProperty(fc.nat(good.byteLength - 1), fc.nat(255), async (at, value) => {
        const bad = Uint8Array.from(good);
        bad[at] = value;
        await writeFile(path, bad);
        const error = await SafetensorsFile.open(path).then((f) => f.close(), (e: unknown) => e);
        if (error !== undefined) expect(error).toMatchObject({ name: 'LomoError' });
      }),
      { numRuns: 300 },
    );
  });
});

describe('convert', () => {
  it('rounds f32 to 16 bits and widens exactly', () => {
    const f32 = new Uint8Array(Float32Array.of(1, -2.5, 65520, 1e-8, NaN, 0.1, 3.0e38, -0).buffer);
    const bf16 = convert(f32, 'F32', 'BF16');
    expect([...new Uint16Array(bf16.buffer)].map((b) => b.toString(16))).toEqual(['3f80', 'c020', '4780', '322c', '7fc0', '3dcd', '7f62', '8000']);
    const f16 = convert(f32, 'F32', 'F16');
    expect([...new Uint16Array(f16.buffer)].map((b) => b.toString(16))).toEqual(['3c00', 'c100', '7c00', '0', '7e00', '2e66', '7c00', '8000']);
    expect([...new Float32Array(convert(bf16, 'BF16', 'F32').buffer)]).toEqual([1, -2.5, 65536, Math.fround(1.001171767711639404296875e-8), NaN, 0.10009765625, Math.fround(3.0040553e38), -0]);
    expect([...new Float32Array(convert(f16, 'F16', 'F32').buffer)].slice(0, 2)).toEqual([1, -2.5]);
    expect(convert(f16, 'F16', 'F16')).toBe(f16);
    expect(new Uint16Array(convert(bf16, 'BF16', 'F16').buffer)[1]).toBe(0xc100);
    expect(new Uint16Array(convert(f16, 'F16', 'BF16').buffer)[1]).toBe(0xc020);
  });
});
