// A traced step on the reference backend: the file holds every launch where it belongs, and tracing changes no bit and no plan.
import { optimOps } from '@lomo/optim';
import { lomo } from '@lomo/optim';
import { categories, Device, DryBackend, tensorOps, Trace } from '@lomo/tensor';
import { expect, test } from 'vitest';
import { crossings, enclosing, parseTrace } from '../../../tools/tiny/trace.ts';
import { makePlan, underPlan } from '../src/index.ts';
import type { TrialOptions } from './trial.ts';
import { Trial } from './trial.ts';

const ops = new Set([...tensorOps, ...optimOps].map(({ name }) => name));
const options: TrialOptions = { optimizer: { rule: lomo, clip: { norm: 0.5 } }, count: 2, blocks: 2 };

/** Most bytes live at any launch of a trace. */
function highest({ counters }: ReturnType<typeof parseTrace>): number {
  const total = (args: Readonly<Record<string, number>>): number => Object.values(args).reduce((a, b) => a + b, 0);
  return Math.round(2 ** 20 * Math.max(...counters.filter(({ name }) => name === 'memory, MiB').map(({ args }) => total(args))));
}

test('every launch of a step is there, in its phase, with its shapes; spans nest; counters come back', async () => {
  const trial = new Trial(options);
  await trial.step(1);
  const before = trial.device.launchCount;
  const trace = new Trace(trial.device);
  const start = performance.now();
  await trace.step(2, () => trial.step(2));
  const wall = 1000 * (performance.now() - start);
  const launches = trial.device.launchCount - before;
  expect(trace.facts).toEqual({ steps: [2], launches, lost: 0 });

  const file = parseTrace(trace.json());
  expect(file.other).toEqual({ backend: 'reference', steps: [2], launches, lost: 0 });
  expect([...file.lanes.values()]).toEqual(['script: enqueues', 'reference: runs']);
  expect(crossings(file)).toEqual([]);
  const kernels = file.spans.filter(({ cat }) => cat === 'kernel');
  expect(kernels).toHaveLength(launches);
  expect(file.spans.filter(({ cat }) => cat === 'enqueue').map(({ args }) => args['ticket'])).toEqual(kernels.map(({ args }) => args['ticket']));
  expect(kernels.filter(({ name }) => !ops.has(name))).toEqual([]);
  expect(kernels.reduce((sum, { dur }) => sum + dur, 0)).toBeLessThanOrEqual(wall);

  // Two passes over three kinds of stages and two micro-batches; settles are those of every parameter, in each pass.
  const device = kernels[0]!.tid;
  const spans = (cat: string) => file.spans.filter((span) => span.cat === cat && span.tid === device).map(({ name, args }) => `${name}${args['microBatch'] === undefined ? '' : ` ${args['microBatch']}`}`);
  expect(spans('pass')).toEqual(trial.optimizer.passes.map(({ name }) => `pass ${name}`));
  expect(spans('forward').filter((name) => name.includes('block'))).toEqual(['block 0', 'block 1'].flatMap((name) => [0, 1].map((m) => `forward ${name} ${m}`)));
  expect(spans('recompute').filter((name) => name.includes('block 0'))).toHaveLength(4);
  expect(spans('backward')).toHaveLength(2 * 2 * trial.stages.length);
  expect(spans('settle')).toHaveLength(2 * trial.parameters.length);
  for (const kernel of kernels.filter(({ name }) => name === 'lomo_update')) {
    expect(enclosing(file, kernel, 'settle').map(({ name }) => name)).toEqual([`settle ${kernel.args['settles'] as string}`]);
    expect(kernel.args).toMatchObject({ phase: 'backward', pass: expect.any(String) as string, stage: expect.any(String) as string });
    expect(kernel.args['inouts']).toMatch(/^f32\[\d+/);
  }

  const memory = file.counters.filter(({ name }) => name === 'memory, MiB');
  expect(memory).toHaveLength(launches);
  expect(Object.keys(memory[0]!.args)).toEqual([...categories]);
  // Recomputed, the peak may be where a result nobody reads is laid out, and no launch notes that.
  expect(highest(file)).toBeGreaterThan(0.9 * trial.device.arena.peak);
  expect(highest(file)).toBeLessThanOrEqual(trial.device.arena.peak);
  const kept = new Trial({ ...options, keeps: true });
  const whole = new Trace(kept.device);
  await whole.step(1, () => kept.step(1));
  expect(highest(parseTrace(whole.json()))).toBeCloseTo(kept.device.arena.peak, 3);
  const depth = file.counters.filter(({ name }) => name === 'launches in the queue');
  expect(depth).toHaveLength(2 * launches);
  expect(depth.at(-1)!.args).toEqual({ launches: 0 });
});

test('traced or not, the weights are the same bits, the allocations are the plan\'s', async () => {
  const [plain, traced] = [new Trial(options), new Trial(options)];
  const trace = new Trace(traced.device);
  for (let n = 1; n <= 3; n++) {
    await plain.step(n);
    await trace.step(n, () => traced.step(n));
  }
  expect(await traced.digest()).toBe(await plain.digest());
  expect(traced.device.arena.extent).toBe(plain.device.arena.extent);
  expect(trace.facts.steps).toEqual([1, 2, 3]);
  expect(crossings(parseTrace(trace.json()))).toEqual([]);

  const plan = await makePlan(plain.backend, function* (device) {
    let trial: Trial | null = null;
    yield { name: 'setup', run: () => void (trial = new Trial({ ...options, on: device })) };
    yield { name: 'step', run: () => trial!.step(1).then(() => {}) };
  });
  const held = new Trial(options);
  const first = new Trace(held.device);
  await underPlan(held.device, plan, { name: 'step', body: () => first.step(1, () => held.step(1)) });
  expect(first.facts.launches).toBe(plan.launches.get('step'));
});

test('what does not fit is counted as lost, and what an error leaves is traced', async () => {
  const trial = new Trial(options);
  const trace = new Trace(trial.device, { capacity: 10 });
  await trace.step(1, () => trial.step(1));
  const file = parseTrace(trace.json());
  expect(file.spans.filter(({ cat, tid }) => cat === 'kernel' || (cat === 'transfer' && tid === 2))).toHaveLength(10);
  expect(trace.facts.lost).toBeGreaterThan(trace.facts.launches - 11);
  expect(crossings(file)).toEqual([]);

  const broken = new Trace(trial.device);
  const failing = { ...trial.optimizer.passes[0]!, settle: () => { throw new Error('settled badly'); } };
  await expect(broken.step(2, () => trial.step(2, [failing]))).rejects.toThrow('settled badly');
  expect(crossings(parseTrace(broken.json()))).toEqual([]);
  expect(trial.device.observer).toBeNull();
  // The stopwatch is free again.
  await expect(new Trace(trial.device).step(3, () => trial.step(3))).resolves.toBeDefined();
});

test('a backend that cannot tell is refused by name', () => {
  const device = new Device(new DryBackend(new Trial(options).backend), { bytes: Infinity });
  expect(() => new Trace(device)).toThrow(/dry reference has no stopwatch/);
});
