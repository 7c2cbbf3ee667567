// Traces of real steps: on the CPU backend, and as `lomo train --trace` writes them.
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { cpu } from '@lomo/cpu';
import { optimOps } from '@lomo/optim';
import { tensorOps, Trace } from '@lomo/tensor';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { dataFile, modelFolder } from '../../../tools/tiny/folder.ts';
import { crossings, parseTrace } from '../../../tools/tiny/trace.ts';
import { cut, small } from './small.ts';

const ops = new Set([...tensorOps, ...optimOps].map(({ name }) => name));

describe('on the CPU backend', () => {
  const backend = cpu({ threads: 1 });
  afterAll(() => backend[Symbol.asyncDispose]());
  const tokens = 1024;
  const begun = (keeps: boolean) => {
    const made = small(backend, { tokens: tokens / 2, microBatches: 2, keeps });
    const step = (n: number) => made.program.run({ step: n, seed: 1, lr: 0.02, batches: cut(tokens, 2, { seed: n }), passes: made.optimizer.passes });
    const digest = async (): Promise<string> => {
      const hash = createHash('sha256');
      for (const p of made.model.parameters) hash.update(new Uint8Array((await made.device.read(p)).buffer));
      return hash.digest('hex');
    };
    return { ...made, step, digest };
  };

  test.each([false, true])('kept tapes %s: every launch, nested, in less than the wall time; the same bits, no allocation beside the ring', async (keeps) => {
    const [plain, traced] = [begun(keeps), begun(keeps)];
    for (let n = 1; n <= 3; n++) await plain.step(n);
    await traced.step(1);
    await traced.step(2);
    const trace = new Trace(traced.device);
    const [launches, allocations, extent] = [traced.device.launchCount, backend.counters().allocations, traced.device.arena.extent];
    const start = performance.now();
    await trace.step(3, () => traced.step(3));
    const wall = 1000 * (performance.now() - start);
    expect(backend.counters().allocations - allocations).toBe(1);
    expect(traced.device.arena.extent).toBe(extent);
    expect(await traced.digest()).toBe(await plain.digest());

    const file = parseTrace(trace.json());
    expect(crossings(file)).toEqual([]);
    const kernels = file.spans.filter(({ cat }) => cat === 'kernel');
    expect(kernels).toHaveLength(traced.device.launchCount - launches);
    expect(kernels.filter(({ name }) => !ops.has(name))).toEqual([]);
    expect(kernels.reduce((sum, { dur }) => sum + dur, 0)).toBeLessThanOrEqual(wall);
    // What runs was enqueued before, and one by one in that order.
    const enqueued = new Map(file.spans.filter(({ cat }) => cat === 'enqueue').map((span) => [span.args['ticket'], span]));
    for (const kernel of kernels) expect(kernel.ts).toBeGreaterThanOrEqual(enqueued.get(kernel.args['ticket'])!.ts);
    expect(kernels.map(({ args }) => args['ticket'])).toEqual([...enqueued.keys()]);
    // The recomputation is what keeping saves.
    expect(file.spans.some(({ cat }) => cat === 'recompute')).toBe(!keeps);
    const most = Math.max(...file.counters.filter(({ name }) => name === 'launches in the queue').map(({ args }) => args['launches']!));
    expect(most).toBeGreaterThan(1);
    plain.device.free();
    traced.device.free();
  });

  test('one at a time: a second stopwatch is refused, and one that does not run cannot be stopped', async () => {
    backend.stopwatch.start(4);
    expect(() => backend.stopwatch.start(4)).toThrow(expect.objectContaining({ code: 'StopwatchRunning' }));
    expect(await backend.stopwatch.stop()).toEqual({ work: [], lost: 0 });
    await expect(backend.stopwatch.stop()).rejects.toMatchObject({ code: 'StopwatchStopped' });
  });
});

describe('lomo train --trace', () => {
  const cli = fileURLToPath(new URL('../dist/cli.js', import.meta.url));
  beforeAll(() => {
    if (!existsSync(cli)) throw new Error(`${cli} is not there: build first (pnpm turbo run build --filter=lomo...)`);
  });
  const folder = mkdtempSync(join(tmpdir(), 'lomo-trace-'));
  const settings = {
    model_name_or_path: modelFolder(), init: 'random', datasets: [{ path: dataFile() }], max_seq_length: 16, per_device_train_batch_size: 4,
    gradient_accumulation_steps: 2, max_steps: 5, optim: 'lomo', learning_rate: 0.1, clip_mode: 'none', threads: 1,
  };
  writeFileSync(join(folder, 'run.yaml'), Object.entries(settings).map(([key, value]) => `${key}: ${JSON.stringify(value)}`).join('\n'));
  const lomo = (...more: readonly string[]) => spawnSync(process.execPath, [cli, 'train', 'run.yaml', ...more], { cwd: folder, encoding: 'utf8' });
  const weights = (name: string): Buffer => readFileSync(join(folder, name, 'step-000005', 'model.safetensors'));
  const steps = (file: string): unknown => parseTrace(readFileSync(join(folder, file), 'utf8')).other['steps'];

  test('the third step unless told; the named ones; the weights of a run without', () => {
    expect(lomo('--output-dir', 'plain').status).toBe(0);
    const third = lomo('--output-dir', 'third', '--trace', 'third.json');
    expect(third.stderr).toBe('');
    expect(third.stdout).toMatch(/traced step 3, \d+ launches: .*third\.json; open it in ui\.perfetto\.dev/);
    expect(steps('third.json')).toEqual([3]);
    const named = lomo('--output-dir', 'named', '--trace', 'named.json', '--trace-steps', '1..2', '--optim', 'lomo');
    expect(named.stdout).toMatch(/traced steps 1 to 2/);
    expect(steps('named.json')).toEqual([1, 2]);
    expect(crossings(parseTrace(readFileSync(join(folder, 'named.json'), 'utf8')))).toEqual([]);
    expect(weights('third').equals(weights('plain'))).toBe(true);
    expect(weights('named').equals(weights('plain'))).toBe(true);
  });

  test('on the reference backend', () => {
    const { status, stderr } = lomo('--output-dir', 'slow', '--backend', 'reference', '--max-steps', '3', '--trace', 'slow.json');
    expect(stderr).toBe('');
    expect(status).toBe(0);
    expect(parseTrace(readFileSync(join(folder, 'slow.json'), 'utf8')).other['backend']).toBe('reference');
  });

  test('steps that never run, a file that cannot be written, and steps without a file are said', () => {
    expect(lomo('--output-dir', 'late', '--trace', 'late.json', '--trace-steps', '9').stdout).toMatch(/late\.json: nothing was traced, for no such step ran: 5 of 5/);
    const lost = lomo('--output-dir', 'lost', '--trace', 'late.json/lost.json');
    expect(lost.status).toBe(1);
    expect(lost.stderr).toMatch(/late\.json\/lost\.json: E\w+.*give a file that can be written/);
    expect(lost.stdout).not.toMatch(/step +1\//);
    expect(lomo('--trace-steps', '3').stderr).toMatch(/--trace FILE says where/);
    expect(lomo('--trace', 'x.json', '--trace-steps', '5..2').stderr).toMatch(/expected step numbers, such as 3 or 10\.\.12/);
  });
});
