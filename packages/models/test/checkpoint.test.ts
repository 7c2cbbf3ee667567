// Folders: single file, shards, strict matching, and nothing outside the folder.
import { cp, mkdir, rename, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { differences, matchTensors, nodeFiles, openCheckpoint, observeFiles, readConfig, writeShards } from '../src/index.ts';
import type { DiskType, TensorSource } from '../src/index.ts';
import { golden, hasGolden, rawFileAt, temporary } from './folders.ts';

function tensor(name: string, shape: readonly number[], options: { dtype?: DiskType; fill?: number } = {}): TensorSource {
  const { dtype = 'F32', fill = 1 } = options;
  const bytes = shape.reduce((a, b) => a * b, dtype === 'F32' || dtype === 'I32' ? 4 : 2);
  return { name, shape, dtype, slices: () => [new Uint8Array(bytes).fill(fill)] };
}

async function folderOf(sources: readonly TensorSource[], shardBytes?: number): Promise<string> {
  const folder = await temporary();
  await writeShards(folder, sources, shardBytes === undefined ? {} : { shardBytes });
  return folder;
}

const three = [tensor('a', [4]), tensor('b', [2, 4], { dtype: 'BF16' }), tensor('c', [4], { fill: 3 })];

describe('openCheckpoint', () => {
  it('lists and reads a single file and shards alike', async () => {
    for (const limit of [undefined, 16]) {
      await using checkpoint = await openCheckpoint(await folderOf(three, limit));
      expect([...checkpoint.tensors.keys()]).toEqual(['a', 'b', 'c']);
      expect(checkpoint.fileNames).toHaveLength(limit === undefined ? 1 : 4);
      const bytes = new Uint8Array(16);
      const { file, name } = checkpoint.tensor('c');
      await file.read(name, bytes);
      expect(bytes).toEqual(new Uint8Array(16).fill(3));
      expect(() => checkpoint.tensor('d')).toThrow(/no tensor "d"/);
    }
  });

  it.each([
    '../model.safetensors', '/etc/passwd.safetensors', 'sub/model.safetensors', '..\\x.safetensors', '.safetensors', '..', 'a\u0000.safetensors', 'passwd', 'C:x.safetensors',
  ])('refuses the weight_map entry %j without opening anything', async (name) => {
    const folder = await temporary();
    await writeFile(join(folder, 'model.safetensors.index.json'), JSON.stringify({ weight_map: { a: name } }));
    const opened: string[] = [];
    const files = observeFiles(nodeFiles, (call) => void (call.verb === 'open' && opened.push(call.path)));
    await expect(openCheckpoint(folder, { files })).rejects.toMatchObject({ code: 'OutsideFolder' });
    expect(opened).toEqual([join(folder, 'model.safetensors.index.json')]);
  });

  it('refuses links and devices outside the folder, and allows links inside', async () => {
    const real = await folderOf(three);
    const folder = await temporary();
    await symlink(join(real, 'model.safetensors'), join(folder, 'model.safetensors'));
    await expect(openCheckpoint(folder)).rejects.toMatchObject({ code: 'OutsideFolder' });
    const device = await temporary();
    await symlink('/dev/zero', join(device, 'model.safetensors'));
    await expect(openCheckpoint(device)).rejects.toMatchObject({ code: 'OutsideFolder' });
    await rename(join(real, 'model.safetensors'), join(real, 'weights.bin'));
    await symlink('weights.bin', join(real, 'model.safetensors'));
    await (await openCheckpoint(real)).close();
    const config = await temporary();
    await symlink('/etc/hostname', join(config, 'config.json'));
    await expect(readConfig(config)).rejects.toMatchObject({ code: 'OutsideFolder' });
    const parent = await temporary();
    const sneaky = join(parent, 'model');
    for (const folder of [sneaky, `${sneaky}-other`]) await mkdir(folder);
    await cp(join(real, 'weights.bin'), join(`${sneaky}-other`, 'x'));
    await symlink(join(`${sneaky}-other`, 'x'), join(sneaky, 'model.safetensors'));
    await expect(openCheckpoint(sneaky)).rejects.toMatchObject({ code: 'OutsideFolder' });
  });

  it("follows the links of a Hugging Face cache's snapshot", async () => {
    const cache = join(await temporary(), 'models--org--name');
    await mkdir(join(cache, 'blobs'), { recursive: true });
    await mkdir(join(cache, 'snapshots', 'abc'), { recursive: true });
    await rename(join(await folderOf(three), 'model.safetensors'), join(cache, 'blobs', '0123'));
    await symlink('../../blobs/0123', join(cache, 'snapshots', 'abc', 'model.safetensors'));
    await using checkpoint = await openCheckpoint(join(cache, 'snapshots', 'abc'));
    expect(checkpoint.tensors.size).toBe(3);
  });

  it('refuses swapped, missing and over-full shards', async () => {
    const folder = await folderOf(three, 16);
    const shard = (n: number) => join(folder, `model-0000${n}-of-00003.safetensors`);
    await rename(shard(1), join(folder, 'spare'));
    await expect(openCheckpoint(folder)).rejects.toThrow(/names model-00001-of-00003\.safetensors, which is not there/);
    await rename(shard(2), shard(1));
    await rename(join(folder, 'spare'), shard(2));
    await expect(openCheckpoint(folder)).rejects.toThrow(/model-00001-of-00003\.safetensors: tensor "a": not the shard the index describes/);
    const extra = await temporary();
    await rawFileAt(extra, { name: 'x.safetensors', header: '{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}', data: 2 });
    await writeFile(join(extra, 'model.safetensors.index.json'), '{"weight_map":{"a":"x.safetensors"}}');
    await expect(openCheckpoint(extra)).rejects.toThrow(/tensor "b": not the shard/);
  });

  it('refuses bad indexes and says what to do without weights', async () => {
    const folder = await temporary();
    const index = join(folder, 'model.safetensors.index.json');
    for (const [text, message] of [
      ['{"weight_map":{"a":"x.safetensors","a":"y.safetensors"}}', /duplicate key "a"/],
      ['{"weight_map":{"a":1}}', /a shard is not a string/],
      ['{"weight_map":{}}', /is empty/],
      ['{}', /no 'weight_map'/],
    ] as const) {
      await writeFile(index, text);
      await expect(openCheckpoint(folder)).rejects.toThrow(message);
    }
    const bare = await temporary();
    await expect(openCheckpoint(bare)).rejects.toThrow(/neither model\.safetensors nor/);
    await writeFile(join(bare, 'pytorch_model.bin'), '');
    await expect(openCheckpoint(bare)).rejects.toThrow(/pytorch_model\.bin, which is not read because unpickling runs code/);
    await expect(openCheckpoint(join(bare, 'absent'))).rejects.toMatchObject({ code: 'NotAFolder' });
  });
});

describe('matchTensors', () => {
  const wanted = [
    { name: 'a', shape: [4] },
    { name: 'b', shape: [2, 4] },
  ];

  it('lists every difference with tensor, file, expected and found', async () => {
    const folder = await folderOf([tensor('a', [5]), tensor('c', [4]), tensor('d', [2], { dtype: 'I32' })]);
    await using checkpoint = await openCheckpoint(folder);
    const error = await matchTensors(checkpoint, [...wanted, { name: 'd', shape: [2] }]).catch((e: unknown) => e);
    expect(error).toMatchObject({ code: 'WeightsMismatch' });
    const file = join(folder, 'model.safetensors');
    expect((error as { details: unknown }).details).toMatchObject({
      mismatches: [
        { kind: 'shape', tensor: 'a', file, expected: '[4]', found: '[5]' },
        { kind: 'missing', tensor: 'b', expected: '[2, 4]', found: 'nothing' },
        { kind: 'dtype', tensor: 'd', file, expected: 'F32, BF16, F16', found: 'I32' },
        { kind: 'extra', tensor: 'c', file, found: 'F32 [4]' },
      ],
    });
    expect(String(error)).toContain(`shape: a in ${file}: expected [4], found [5]`);
  });

  it('shows ten of many and keeps all', async () => {
    await using checkpoint = await openCheckpoint(await folderOf([tensor('x', [1])]));
    const many = Array.from({ length: 30 }, (_, i) => ({ name: `t${i}`, shape: [1] }));
    await expect(matchTensors(checkpoint, many)).rejects.toThrow(/31 differences[\s\S]*t9 [\s\S]*and 21 more/);
    expect(await differences(checkpoint, many)).toHaveLength(31);
  });

  it('ignores stored frequencies, and a tied head only when its bytes are the embedding', async () => {
    const ties = new Map([['lm_head.weight', 'a']]);
    const inverse = tensor('model.layers.0.self_attn.rotary_emb.inv_freq', [3]);
    for (const [fill, code] of [[1, null], [2, 'WeightsMismatch']] as const) {
      await using checkpoint = await openCheckpoint(await folderOf([tensor('a', [4]), tensor('b', [2, 4]), inverse, tensor('lm_head.weight', [4], { fill })]));
      const outcome = await matchTensors(checkpoint, wanted, { ties }).then(() => null, (e: { code: string }) => e.code);
      expect(outcome).toBe(code);
      await expect(matchTensors(checkpoint, wanted)).rejects.toThrow(/extra: lm_head\.weight/);
    }
  });
});

describe.skipIf(!hasGolden)('shared golden folders', () => {
  it.each(['llama', 'mistral', 'qwen2', 'qwen3'])('opens %s', async (family) => {
    await using checkpoint = await openCheckpoint(join(golden, 'models', family));
    expect(checkpoint.tensor('model.embed_tokens.weight').shape).toEqual([64, 24]);
  });
});
