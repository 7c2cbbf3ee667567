// Checkpoints with wrong bytes, cut short, swapped, incomplete, with more in them than was saved: refused by name, whatever was done to them.
import { createHash } from 'node:crypto';
import { execFileSync } from 'node:child_process';
import { cpSync, mkdtempSync, readdirSync, readFileSync, renameSync, rmSync, statSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Files, OpenFile } from '@lomo/models';
import { nodeFiles, writeShards } from '@lomo/models';
import { optimOps } from '@lomo/optim';
import { isLomoError, LomoError, ReferenceBackend, tensorOps } from '@lomo/tensor';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Session, TrainerState } from '../src/index.ts';
import { contentsOf, fit, listCheckpoints, openModel, readState, restoreCheckpoint, stateBytes, stateName, sumsOf } from '../src/index.ts';
import { open } from './tiny.ts';

let session: Session;
/** Two checkpoints of one run, after steps 1 and 2; never changed. */
let saved: readonly string[];

beforeAll(async () => {
  session = await open({ optim: 'adamw', learning_rate: 0.01, max_steps: 2, save_steps: 1, save_total_limit: 2 });
  for await (const _ of fit(session));
  saved = (await listCheckpoints(session.root)).map(({ path }) => path);
});
afterAll(() => session.close());

function copy(from = saved[0]!): string {
  const folder = join(mkdtempSync(join(tmpdir(), 'lomo-corrupt-')), 'step-000002');
  cpSync(from, folder, { recursive: true });
  return folder;
}

/** The code and message of what restoring `folder` throws; null where it does not. */
async function refusal(folder: string, files: Files = nodeFiles): Promise<{ readonly code: string; readonly message: string } | null> {
  const error: unknown = await restoreCheckpoint(session.assembly, folder, files).then(() => null, (caught: unknown) => caught);
  if (error === null) return null;
  if (!isLomoError(error)) throw error;
  return { code: error.code, message: error.message };
}

async function expectRefused(folder: string, file: string, codes = /^(CorruptFile|CorruptState|CorruptJson|FileError|NotAFile|OutsideFolder|MissingState|MissingShard|NoWeights|WeightsMismatch)$/): Promise<void> {
  const found = await refusal(folder);
  expect(found, file).not.toBeNull();
  expect(found!.code, found!.message).toMatch(codes);
  expect(found!.message).toContain(file);
}

/** All bytes of small files and of the manifest, and of larger ones their headers' beginning and every so many more. */
function positions(name: string, size: number): readonly number[] {
  if (size <= 1024 || name === stateName) return Array.from({ length: size }, (_, at) => at);
  const step = Math.ceil(size / 30);
  return [...new Set([...Array.from({ length: 16 }, (_, at) => at), ...Array.from({ length: Math.ceil(size / step) }, (_, i) => i * step), size - 1])];
}

test('as it was saved it is restored, and to the same state', async () => {
  expect(await refusal(copy())).toBeNull();
  expect((await readState(saved[0]!)).step).toBe(2);
});

test.each(['config.json', 'model.safetensors', 'optimizer.safetensors', 'tokenizer.json', 'tokenizer_config.json', stateName])('%s: any flipped bit is refused', async (name) => {
  const folder = copy();
  const path = join(folder, name);
  const good = readFileSync(path);
  for (const at of positions(name, good.byteLength)) {
    const bad = Uint8Array.from(good);
    bad[at]! ^= 1 << at % 8;
    writeFileSync(path, bad);
    await expectRefused(folder, name);
  }
  writeFileSync(path, good);
  expect(await refusal(folder)).toBeNull();
});

test('cut short, made longer, empty or missing: refused, whichever file it is', async () => {
  for (const name of readdirSync(saved[0]!)) {
    const { size } = statSync(join(saved[0]!, name));
    for (const length of [0, 1, 7, 8, 9, Math.floor(size / 2), size - 1, size + 1, null]) {
      const folder = copy();
      if (length === null) rmSync(join(folder, name));
      else truncateSync(join(folder, name), length);
      await expectRefused(folder, name);
    }
  }
});

test('files of another checkpoint of the same run are refused', async () => {
  for (const name of ['model.safetensors', 'optimizer.safetensors', stateName]) {
    const folder = copy();
    cpSync(join(saved[1]!, name), join(folder, name));
    expect((await refusal(folder))?.code, name).toBe('CorruptFile');
  }
});

test('where a file is damaged and closing it fails too, the damage is told: it came first', async () => {
  for (const name of ['model.safetensors', 'optimizer.safetensors', 'config.json']) {
    const folder = copy();
    const bytes = readFileSync(join(folder, name));
    bytes[bytes.byteLength - 3]! ^= 1;
    writeFileSync(join(folder, name), bytes);
    let closed = 0;
    const files: Files = {
      ...nodeFiles,
      open: async (path, mode) => {
        const file = await nodeFiles.open(path, mode);
        const close = async (): Promise<void> => {
          await file.close();
          if (!path.endsWith(name)) return;
          closed++;
          throw new LomoError('FileError', `close ${path}: EIO`, { path, errno: 'EIO' });
        };
        return { ...file, close };
      },
    };
    expect(await refusal(folder, files), name).toMatchObject({ code: expect.stringMatching(/^Corrupt/), message: expect.stringContaining(name) });
    expect(closed, name).toBeGreaterThan(0);
    // Alone it is told too.
    writeFileSync(join(folder, name), readFileSync(join(saved[0]!, name)));
    expect(await refusal(folder, files), name).toMatchObject({ code: 'FileError' });
  }
});

describe('a checkpoint in shards', () => {
  /** The same weights in several files, with a manifest that says so. */
  async function sharded(): Promise<string> {
    const folder = copy();
    rmSync(join(folder, 'model.safetensors'));
    expect(await refusal(saved[0]!)).toBeNull();
    const written = await writeShards(folder, contentsOf(session.assembly).weights, { shardBytes: 2500 });
    expect(written.length).toBeGreaterThan(3);
    const state = await readState(folder);
    const { 'model.safetensors': _sum, ...files } = state.files;
    const { 'model.safetensors': _size, ...sizes } = state.sizes;
    for (const { name, sha256, bytes } of written) [files[name], sizes[name]] = [sha256, bytes];
    writeFileSync(join(folder, stateName), stateBytes({ ...state, files, sizes }));
    return folder;
  }

  test('is restored; shards that changed places, a changed index and a file that nobody saved are refused', async () => {
    const good = await sharded();
    expect(await refusal(good)).toBeNull();
    const shards = readdirSync(good).filter((name) => name.startsWith('model-'));

    const swapped = copy(good);
    for (const [from, to] of [[0, 'spare'], [1, shards[0]!], ['spare', shards[1]!]] as const) renameSync(join(swapped, typeof from === 'number' ? shards[from]! : from), join(swapped, to));
    expect((await refusal(swapped))?.code).toBe('CorruptFile');

    const index = copy(good);
    const text = readFileSync(join(index, 'model.safetensors.index.json'), 'utf8');
    writeFileSync(join(index, 'model.safetensors.index.json'), text.replace(/"total_size": \d/, (found) => found.slice(0, -1) + String((Number(found.at(-1)) + 1) % 10)));
    await expectRefused(index, 'model.safetensors.index.json', /CorruptFile/);

    // It would be read in the place of the shards.
    const more = copy(good);
    cpSync(join(saved[1]!, 'model.safetensors'), join(more, 'model.safetensors'));
    expect(await refusal(more)).toMatchObject({ code: 'CorruptFile', message: expect.stringContaining('is not among the files') });
  });
});

test('files that nobody saved and nothing reads change nothing', async () => {
  const folder = copy();
  writeFileSync(join(folder, 'notes.txt'), 'mine');
  writeFileSync(join(folder, 'other.safetensors'), 'not even one');
  expect(await refusal(folder)).toBeNull();
});

test('a manifest leads nowhere else, and lists what it must', async () => {
  const state = await readState(saved[0]!);
  const forged = async (changes: Partial<TrainerState>): Promise<string> => {
    const folder = copy();
    writeFileSync(join(folder, stateName), stateBytes({ ...state, ...changes }));
    return (await refusal(folder))?.code ?? 'restored';
  };
  for (const name of ['../secret', '/etc/hostname', 'sub/x', '..', 'a\\b']) expect(await forged({ files: { ...state.files, [name]: '0'.repeat(64) }, sizes: { ...state.sizes, [name]: 1 } }), name).toBe('CorruptState');
  const { 'model.safetensors': _, ...rest } = state.files;
  expect(await forged({ files: rest })).toBe('CorruptFile');
  const { 'optimizer.safetensors': _optimizer, ...without } = state.files;
  expect(await forged({ files: without })).toBe('CorruptFile');
  expect(await forged({ sizes: {} })).toBe('CorruptFile');
});

test('links out of the folder, fifos and devices in the place of any file are not opened', async () => {
  for (const name of readdirSync(saved[0]!)) {
    const linked = copy();
    rmSync(join(linked, name));
    symlinkSync(join(saved[0]!, name), join(linked, name));
    expect(await refusal(linked), name).toMatchObject({ code: 'OutsideFolder' });
    const piped = copy();
    rmSync(join(piped, name));
    execFileSync('mkfifo', [join(piped, name)]);
    expect((await refusal(piped))?.code, name).toMatch(/NotAFile|CorruptFile|CorruptState/);
    const device = copy();
    rmSync(join(device, name));
    symlinkSync('/dev/zero', join(device, name));
    expect((await refusal(device))?.code, name).toMatch(/OutsideFolder|NotAFile|CorruptFile|CorruptState/);
  }
});

/** A file layer whose `k`-th read from safetensors or JSON gives one wrong bit; `reads` counts. */
function lying(k: number): { readonly files: Files; readonly reads: () => number } {
  let reads = 0;
  const wrap = (file: OpenFile): OpenFile => ({
    path: file.path,
    read: async (into, position) => {
      const n = await file.read(into, position);
      if (n > 0 && ++reads === k) into[n - 1]! ^= 1;
      return n;
    },
    write: (from, position) => file.write(from, position), facts: () => file.facts(), sync: () => file.sync(), close: () => file.close(),
  });
  return { files: { ...nodeFiles, open: async (path, mode) => wrap(await nodeFiles.open(path, mode)) }, reads: () => reads };
}

test('there is no moment between check and use: whichever read gives a wrong bit, the restore fails', async () => {
  const counting = lying(-1);
  expect(await refusal(saved[0]!, counting.files)).toBeNull();
  expect(counting.reads()).toBeGreaterThan(20);
  for (let k = 1; k <= counting.reads(); k++) expect(await refusal(saved[0]!, lying(k).files), `read ${k}`).not.toBeNull();
});

describe('a checkpoint opened to be evaluated', () => {
  const backend = new ReferenceBackend({ ops: [...tensorOps, ...optimOps], precision: 'f32' });
  const opened = async (folder: string): Promise<string> => {
    try {
      await (await openModel(folder, { backend, text: { prompt: 4, fresh: 4 } }))[Symbol.asyncDispose]();
      return 'opened';
    } catch (error) {
      return isLomoError(error) ? error.code : `untyped ${String(error)}`;
    }
  };

  test('is verified too, but for the optimizer it does not use', async () => {
    expect(await opened(copy())).toBe('opened');
    for (const name of ['config.json', 'model.safetensors', 'tokenizer.json', 'tokenizer_config.json', stateName]) {
      const folder = copy();
      const bytes = readFileSync(join(folder, name));
      // A letter inside, so that it is still the same kind of file.
      const at = name.endsWith('.json') ? bytes.lastIndexOf('e') : bytes.byteLength - 3;
      bytes[at]! ^= 1;
      writeFileSync(join(folder, name), bytes);
      expect(await opened(folder), name).toMatch(/Corrupt|Tokenizer|UnsupportedConfig/);
    }
    const folder = copy();
    rmSync(join(folder, 'optimizer.safetensors'));
    expect(await opened(folder)).toBe('opened');
  });

  test('is a plain model without a manifest, and with that of another program', async () => {
    const folder = copy();
    const path = join(folder, stateName);
    writeFileSync(path, JSON.stringify({ epoch: 1, global_step: 10, log_history: [], max_steps: 20 }));
    expect(await sumsOf(folder)).toBeUndefined();
    expect(await opened(folder)).toBe('opened');
    rmSync(path);
    expect(await opened(folder)).toBe('opened');
    writeFileSync(path, '{}');
    expect(await opened(folder)).toBe('CorruptState');
  });
});

test('after all that, the checkpoints are what they were', async () => {
  for (const path of saved) {
    const state = await readState(path);
    for (const [name, sum] of Object.entries(state.files)) expect(createHash('sha256').update(readFileSync(join(path, name))).digest('hex')).toBe(sum);
  }
});
