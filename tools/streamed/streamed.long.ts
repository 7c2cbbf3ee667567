// A model four times as large as the memory its process may have is trained, to the bits of one that stays; and what streaming costs where
// memory is ample: `pnpm test:long streamed`. The first needs root and the memory controller of cgroup v1, and a built `lomo`.
import { createHash } from 'node:crypto';
import { spawnSync } from 'node:child_process';
import { createReadStream, existsSync, mkdirSync, mkdtempSync, readFileSync, rmdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, expect, test } from 'vitest';
import { streamedBeside } from '../../apps/lomo/test/streamed_beside.ts';
import { dataFile, modelFolder } from '../tiny/folder.ts';

const mebibyte = 2 ** 20;
const limit = 256 * mebibyte;
const cli = fileURLToPath(new URL('../../apps/lomo/dist/cli.js', import.meta.url));
const controller = '/sys/fs/cgroup/memory';
const missing =
  process.getuid?.() !== 0 ? 'not root' : !existsSync(`${controller}/memory.limit_in_bytes`) ? 'no cgroup v1 memory controller' : !existsSync(cli) ? 'lomo is not built' : null;
if (missing !== null) process.stderr.write(`  skipped: a process of limited memory (${missing})\n`);

const folder = mkdtempSync(join(tmpdir(), 'lomo-streamed-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** 269,043,456 numbers: 1.002 GiB in f32. */
const model = { hidden_size: 768, intermediate_size: 2048, num_hidden_layers: 38, num_attention_heads: 12, num_key_value_heads: 12 };

/** Runs `lomo train` with `settings`, in a control group of its own with `bytes` of memory where given. */
function train(name: string, settings: Readonly<Record<string, unknown>>, bytes: number | null) {
  const path = join(folder, `${name}.yaml`);
  writeFileSync(path, Object.entries({ ...settings, output_dir: join(folder, name) }).map(([key, value]) => `${key}: ${JSON.stringify(value)}\n`).join(''));
  const group = `${controller}/lomo-${process.pid}-${name}`;
  if (bytes !== null) {
    mkdirSync(group);
    writeFileSync(`${group}/memory.limit_in_bytes`, String(bytes));
  }
  try {
    const enter = bytes === null ? '' : `echo $$ > ${group}/cgroup.procs; `;
    const { status, stdout, stderr } = spawnSync('/bin/sh', ['-c', `${enter}exec "$0" "$@"`, process.execPath, cli, 'train', path], { encoding: 'utf8', maxBuffer: 2 ** 26 });
    const most = bytes === null ? 0 : Number(readFileSync(`${group}/memory.max_usage_in_bytes`, 'utf8'));
    return { status, text: stdout + stderr, most };
  } finally {
    if (bytes !== null) rmdirSync(group);
  }
}

async function sha256(path: string): Promise<string> {
  const hash = createHash('sha256');
  for await (const chunk of createReadStream(path)) hash.update(chunk as Buffer);
  return hash.digest('hex');
}

test.skipIf(missing !== null)(
  '1 GiB of weights in a process of 256 MiB: trained by stages: auto, refused resident, and the bits of a run with memory to spare',
  async () => {
    const settings = {
      model_name_or_path: modelFolder(model), init: 'random', datasets: [{ path: dataFile() }], max_seq_length: 64, per_device_train_batch_size: 2,
      gradient_accumulation_steps: 2, max_steps: 2, optim: 'lomo', learning_rate: 0.01, clip_mode: 'none', threads: 1,
    };
    const refused = train('refused', { ...settings, stages: 'resident' }, limit);
    expect(refused.status).not.toBe(0);
    expect(refused.text).toMatch(/the run needs 1\.\d+ GiB/);
    const small = train('small', settings, limit);
    process.stderr.write(small.text.replaceAll(/^/gm, '  '));
    expect(small.status, small.text).toBe(0);
    expect(small.text).toMatch(/weights +streamed: resident the run needs/);
    expect(small.most).toBeLessThanOrEqual(limit);
    const ample = train('ample', { ...settings, stages: 'resident' }, null);
    expect(ample.status, ample.text).toBe(0);
    const weights = (name: string): string => join(folder, name, 'step-000002', 'model.safetensors');
    expect(await sha256(weights('small'))).toBe(await sha256(weights('ample')));
  },
  1_800_000,
);

test('beside a resident run, with the file in the page cache', async () => {
  for (const tokens of [256, 1024]) {
    const { ratio, resident, streamed, bytes } = await streamedBeside({ tokens, rounds: 5, file: folder });
    const percent = (x: number): string => `${(100 * x).toFixed(1)} %`;
    process.stderr.write(
      `  ${tokens} tokens, ${(bytes / mebibyte).toFixed(0)} MiB moved a step: resident ${resident.milliseconds.toFixed(0)} ms (device idle ${percent(resident.idle)}), streamed ${streamed.milliseconds.toFixed(0)} ms (idle ${percent(streamed.idle)}), ratio ${ratio.toFixed(3)}\n`,
    );
    expect(streamed.idle - resident.idle).toBeLessThan(0.15);
  }
}, 1_800_000);
