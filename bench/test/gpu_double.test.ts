// A slice of every part of bench gpu on the host double, in this process; `pnpm bench gpu --double` is the whole rehearsal.
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { gpu } from '../src/gpu/gpu.ts';
import type { GpuOptions } from '../src/gpu/gpu.ts';
import type { Job } from '../src/gpu/process.ts';
import { work } from '../src/gpu/process.ts';
import { doubleFolder } from '../src/gpu/where.ts';

const release = ((): string | null => {
  try {
    return doubleFolder();
  } catch {
    return null;
  }
})();

test.skipIf(release === null || !existsSync(release))('every part runs on the double, is kept, and is not measured again (needs the double: node packages/cuda/scripts/build.mjs --double)', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'lomo-gpu-smoke-'));
  const where = { double: release! };
  const jobs: string[] = [];
  const start: GpuOptions['start'] = async (job, { heard }) => {
    jobs.push(job.kind);
    // The longest ones shorter than a rehearsal's: what is tested is the way through.
    const short: Job = job.kind === 'steps' ? { ...job, warmup: 0, steps: 2, seq: Math.min(job.seq, 16), batch: 1, microBatches: 1, headForm: 'chunks' } : job.kind === 'kernels' ? { ...job, seq: 8, batch: 1 } : job;
    try {
      await work(short, heard);
      return { how: 'done', words: '', seconds: 1 };
    } catch (error) {
      return { how: 'failed', words: String(error), seconds: 1 };
    }
  };
  const options: GpuOptions = {
    parts: [], where, double: where, stamp: { commit: 'c', device: 'double', driver: '0' }, scale: { tiny: true, shapes: ['16x1'], rounds: 1, cases: 1, ops: ['rope', 'lomo_update'] }, python: undefined, shared: undefined, folder,
    former: [], seconds: 600, again: false, anyCommit: false, start, say: () => {},
  };
  try {
    const first = await gpu(options);
    expect(first.missed).toEqual([]);
    expect(first.files).toHaveLength(5);
    expect(jobs.filter((kind) => kind === 'steps')).toHaveLength(8);
    const read = (part: string): Record<string, unknown> => JSON.parse(readFileSync(first.files.find((file) => file.endsWith(`gpu-${part}-double.json`))!, 'utf8')) as Record<string, unknown>;
    expect(read('conformance')).toMatchObject({ device: 'double', held: [expect.stringMatching(/^conformance: (\d+) of \1 ops/)], differs_from_double: { ops: [] } });
    expect(read('determinism')['held']).toHaveLength(5);
    expect(read('65b')['held']).toContain('tiny: 0 native allocations after step 2');
    expect(Object.keys(read('kernels')['entries'] as object)).toEqual(['kernels']);
    expect(first.ticks.some(({ state }) => state === 'proven' || state === 'refuted')).toBe(false);
    // The second call finds everything there but what failed.
    jobs.length = 0;
    const again = await gpu({ ...options, parts: ['determinism', '65b'] });
    expect([jobs, again.missed, again.files.length]).toEqual([[], [], 2]);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}, 240_000);
