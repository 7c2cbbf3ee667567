// What bench gpu makes of its measurements: bars, utilisation, resuming, differences, claims.
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createModel } from '@lomo/models';
import { lomo } from '@lomo/optim';
import { Device, DryBackend, ReferenceBackend } from '@lomo/tensor';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { modelWork } from '../src/assembly.ts';
import { tick } from '../src/gpu/claims.ts';
import { concludeConformance, differences, errorsOf, rowDifferences } from '../src/gpu/conformance.ts';
import type { OpVerdict } from '../src/gpu/conform.ts';
import { concludeDeterminism } from '../src/gpu/determinism.ts';
import type { Conclusion, FindingsOptions } from '../src/gpu/findings.ts';
import { Findings } from '../src/gpu/findings.ts';
import { concludeKernels } from '../src/gpu/kernels.ts';
import { concludeLargest } from '../src/gpu/largest.ts';
import { parseSeen } from '../src/gpu/machine.ts';
import type { Scale } from '../src/gpu/part.ts';
import { Budget, runLines } from '../src/gpu/runner.ts';
import { bestOf, concludeTrain, utilisation } from '../src/gpu/train.ts';
import { modelConfig } from '../src/models.ts';

const gibibyte = 2 ** 30;
const scale: Scale = { tiny: false, shapes: ['1024x1', '1024x4'], rounds: 2, cases: 1 };

/** Findings made up for a conclusion. */
function found(data: Readonly<Record<string, unknown>>, failed: Readonly<Record<string, string>> = {}) {
  return { get: <T>(id: string) => data[id] as T | undefined, has: (id: string) => data[id] !== undefined && failed[id] === undefined, failure: (id: string) => failed[id], ids: Object.keys(data) };
}

test("LLaMA-7B's operations and utilisation, against numbers worked out by hand", () => {
  // 32 layers of 4 x 4096^2 + 3 x 4096 x 11008 = 202,375,168, and a head of 32000 x 4096: 6,607,077,376 numbers in linear layers. Six
  // operations each for 1024 tokens: 40,593,883,398,144. Attention: six times 1024^2 x 4096 x 32 / 1 for its causal half: 824,633,720,832.
  const json = modelConfig('7b');
  const model = createModel(json, new Device(new DryBackend(new ReferenceBackend({ ops: [] })), { bytes: Infinity }), { dtype: 'bf16', maxLength: 1024 });
  expect(model.size).toBe(6_738_415_616);
  const work = modelWork(model, { json, dtype: 'bf16', seq: 1024, batch: 1, microBatches: 1, rule: lomo, keeps: true });
  expect(work).toBe(40_593_883_398_144 + 824_633_720_832);
  // 41.42 TFLOP in 100 ms are 414.2 TFLOP/s: 41.88 % of 989.
  expect(utilisation(work, 0.1, 989e12)).toBeCloseTo(0.418792, 6);
  expect(createModel(modelConfig('65b'), new Device(new DryBackend(new ReferenceBackend({ ops: [] })), { bytes: Infinity }), {}).size).toBe(65_285_660_672);
});

/** Ours at a rate, of which a token is 40 GFLOP. */
const ours = (tokens: number, tokensPerSecond: number, more: object = {}) => ({ model: '7b', tokens, kept: true, arena: 13 * gibibyte, reserved: 13 * gibibyte, driver: null, losses: [10.4], times: [1], tokensPerSecond, work: tokens * 40e9, ...more });
const peer = (rate: number, loss = 10.5) => ({ tokens_per_s: rate, losses: [loss], checkpointed: false, reserved: 20 * gibibyte });
const limits = { 'limits of the GPU': { products: 600e12, size: 8192, bytes: 3e12 }, 'limits of PyTorch': { limits: { products: 700e12 }, versions: { torch: '2' } } };

test('train: the bars of speed and memory, each with its numbers', () => {
  const { held, missed, open } = concludeTrain(
    found({
      ...limits, 'ours 1024x1 #1': ours(1024, 9000), 'ours 1024x1 #2': ours(1024, 9600), 'ours 1024x4 #1': ours(4096, 11000), 'ours 1024x4 #2': ours(4096, 11000), 'ours 1024x1 recomputed': ours(1024, 7000),
      'lomo 1024x1 #1': peer(5000), 'lomo 1024x1 #2': peer(5000), 'hook 1024x1 #1': peer(7500), 'hook 1024x1 #2': peer(8000), 'hook 1024x4 #1': peer(9500), 'hook 1024x4 #2': peer(9500), 'compiled 1024x1 #1': peer(20000),
    }),
    scale,
  );
  // 11,000 tokens/s of 40 GFLOP are 440 TFLOP/s: 63 % of the better product, which is PyTorch's. Compiled counts as no eager one.
  expect(held).toEqual([
    '63 % of the product peak of the same call (700 TFLOP/s) at 1024x4, the bar is 60 %, the goal 75 %',
    '1024x1: 1.20 x the strongest eager PyTorch (hook; 1.20 to 1.20 over 2 rounds), the bar is 1.2 x',
    'arena 13.00 GiB at 1024x1, recomputed (the driver says nothing), the bar is 13.2 GiB',
    "first losses of ours and PyTorch's 1 % apart, at most 3 % from random weights",
  ]);
  expect(missed).toEqual(['at the best (1024x4): 1.16 x the strongest eager PyTorch (hook 1024x4; 1.16 to 1.16 over 2 rounds), the bar is 1.2 x']);
  expect(open).toEqual([]);
});

test('train: other losses, a larger arena and what is not measured are never let pass', () => {
  const { held, missed, open, figure } = concludeTrain(found({ ...limits, 'ours 1024x1 #1': ours(1024, 9000), 'ours 1024x1 recomputed': ours(1024, 1, { arena: 13.3 * gibibyte, reserved: 13.3 * gibibyte }), 'lomo 1024x1 #1': peer(5000, 9) }, { 'ours 1024x4 #1': 'OutOfMemory' }), scale);
  expect(held).toEqual(['1024x1: 1.80 x the strongest eager PyTorch (lomo; 1.80 to 1.80 over 1 rounds), the bar is 1.2 x', 'at the best (1024x1): 1.80 x the strongest eager PyTorch (lomo 1024x1; 1.80 to 1.80 over 1 rounds), the bar is 1.2 x']);
  expect(missed).toEqual([expect.stringMatching(/^arena 13\.30 GiB/), expect.stringMatching(/^first losses .* 16 % apart/)]);
  expect(open).toEqual(['share of the product peak: no shape of 4096 tokens or more is measured', 'ours 1024x1 #2: not measured', 'ours 1024x4 #1: OutOfMemory', 'ours 1024x4 #2: not measured']);
  expect(figure).toBe('2 bars held, 2 missed');
  expect(bestOf(['a', 'b', 'c'], (shape) => ({ a: [3, 1], b: [2.5], c: [] })[shape]!)).toBe('b');
});

test('65b: a loss that does not fall, memory past the plan, and a smaller shape are said', () => {
  const good = { model: '65b', parameters: 65e9, passedOver: [], tokens: 4096, arena: 128 * gibibyte, reserved: 128 * gibibyte, driver: { before: 0, open: gibibyte, second: 128.5 * gibibyte, end: 128.5 * gibibyte }, draw: 1, times: [9, 9, 5], losses: [10.4, 10, 9], tokensPerSecond: 800, work: 1.6e15, laterAllocations: 0 };
  expect(concludeLargest(found({ steps: good }))).toMatchObject({ missed: [], open: [], held: { length: 4 }, figure: expect.stringMatching(/^65b on one card: 800 tokens\/s \(5\.00 s a step, 313 TFLOP\/s/) as string });
  const bad = concludeLargest(found({ steps: { ...good, model: '30b', passedOver: ['65b: too large'], losses: [10.4, 11], reserved: 1, laterAllocations: 2, driver: { ...good.driver, end: 130 * gibibyte } } }));
  expect(bad.missed).toHaveLength(4);
  expect(bad.open).toEqual(['65B: this device has no room for it; the largest shape that fits is 30b (65b: too large)']);
});

const verdict = (op: string, digest: string, more: Partial<OpVerdict> = {}): OpVerdict => ({ op, dtype: 'f32', cases: 2, share: 0.5, digest, failures: [], skipped: [], ...more });

test('conformance: failures, and what differs from the double', () => {
  const [device, double] = [[verdict('add', 'a'), verdict('rope', 'b', { share: 0.7 }), verdict('mul', 'c', { failures: ['seed 1: off'] })], [verdict('add', 'a'), verdict('rope', 'x'), verdict('mul', 'c', { cases: 1 })]];
  expect(differences(device, double)).toEqual({ compared: 2, differ: [{ op: 'rope', dtype: 'f32', device: 0.7, double: 0.5 }] });
  const row = (name: string, status: 'held' | 'missed', error: string) => ({ name, status, error, bar: '1', measure: 'max_abs' as const, note: '' });
  expect(rowDifferences([row('a', 'held', '0.2'), row('b', 'held', '0.5'), row('c', 'missed', 'Infinity'), row('d', 'held', '1')], [row('a', 'held', '0.3'), row('b', 'held', '0.1'), row('c', 'held', '0.1')]).map((one) => one.row)).toEqual(['b', 'c']);
  const { held, missed, open, data } = concludeConformance(found({ 'every op on the device': device, 'every op on the double': double, memcheck: { errors: 0, ops: 3, words: '' }, racecheck: { errors: 2, ops: 3, words: '' } }), { former: [] });
  expect(held).toEqual(['memcheck: 0 errors in 3 ops and dtypes']);
  expect(missed).toEqual(['conformance: 2 of 3 ops and dtypes within their bars, 6 cases', 'racecheck: 2 errors in 3 ops and dtypes']);
  expect(open).toEqual(['golden on the device: not measured']);
  expect(data).toMatchObject({ differs_from_double: { compared: 2, ops: [{ op: 'rope' }] } });
});

test("logs of NVIDIA's checkers", () => {
  expect([errorsOf('========= ERROR SUMMARY: 0 errors\n'), errorsOf('========= RACECHECK SUMMARY: 3 hazards displayed (2 errors, 1 warning)\n'), errorsOf('========= Error: Device not supported\n')]).toEqual([0, 3, null]);
});

test('determinism: other bits and other rows are named', () => {
  const run = (digest: string) => ({ digest, losses: [1] });
  const { held, missed, open } = concludeDeterminism(found({ 'first run': run('a'), 'second run': run('a'), recomputed: run('b'), rows: { compared: 4, differ: [{ product: '[rows, 8] x [8, 8]', rows: 7 }] } }), scale);
  expect(held).toEqual(['second run: the bits of the first run after 1 steps']);
  expect(missed).toEqual(["recomputed: SHA-256 b, the first run's is a after 1 steps", 'rows of products: 1 of 4 differ: [rows, 8] x [8, 8] with 7 rows']);
  expect(open).toEqual(['small tiles: not measured', 'four micro-batches: not measured']);
});

test('kernels: shares of their limits, and PyTorch beside them', () => {
  const kernel = { id: 'k', op: 'rope', shapes: 'f32[1]', ins: [], inouts: [], outs: [], attributes: {}, milliseconds: 2, flops: 1, bytes: 3e9, share: 0.5, bound: 'memory' };
  const { figure, open } = concludeKernels(found({ kernels: { limits: { products: 7e14, bytes: 3e12, size: 1 }, kernels: [kernel, { ...kernel, id: 'short', milliseconds: 0.001 }] }, PyTorch: [{ id: 'k', what: 'rope', milliseconds: 3 }] }));
  expect(figure).toBe('50 % of their limits, geometric mean of 1 kernels; PyTorch takes 1.50 x as long, over 1 of them');
  expect(open).toEqual([]);
});

test('claims: proven by bars held, refuted by bars missed, open without them', () => {
  const conclusion = (more: Partial<Conclusion>): Conclusion => ({ lines: [], figure: '', held: [], missed: [], open: [], ...more });
  const bars = { conformance: { conclusion: conclusion({ held: ['conformance: all', 'golden: all'] }), findings: found({ a: { room: 100, arena: 95, seenByNvml: true, driver: { before: 1, open: 2 ** 29 + 1, second: 2 ** 30, end: 2 ** 30 } } }) }, determinism: { conclusion: conclusion({ held: ['second run: equal'], missed: ['rows of products: differ'] }), findings: found({}) } };
  const states = Object.fromEntries(tick(bars).map(({ name, state }) => [name, state]));
  expect(states).toEqual({ speed: 'open', 'memory ordering between blocks': 'proven', "cuBLASLt's choices": 'open', "a row's bits do not depend on how many rows there are": 'refuted', 'the bits of exp, rsqrt and fast division': 'open', 'the bytes that a context and lazily loaded code take': 'proven', 'what the driver calls free can be reserved in one piece': 'proven', 'what NVML shows from inside a container': 'proven' });
  expect(tick(bars).at(-3)!.words).toBe('512 to 512 MiB once a backend is open, 1024 to 1024 beside the arena at the end, at most +0 MiB after step 2, over 1 runs');
});

let work: string;
beforeAll(() => {
  work = mkdtempSync(join(tmpdir(), 'lomo-bench-test-'));
});
afterAll(() => rmSync(work, { recursive: true, force: true }));

test('findings go on where the last call ended: same device, same commit, what did not fail', () => {
  const options = (more: Partial<FindingsOptions> = {}): FindingsOptions => ({ folder: join(work, 'out'), name: 'gpu-train', stamp: { commit: 'c1', device: 'H', driver: '580' }, former: [], again: false, anyCommit: false, ...more });
  const first = new Findings(options());
  first.put('a', { data: { x: 1 } }, 2);
  first.put('b', { failed: 'out of memory' }, 2);
  first.put('part', { data: [1], failed: 'ended after 9 s' }, 9);
  const file = first.save({ lines: [], figure: 'so far', held: ['h'], missed: [], open: ['o'], data: { more: 1 } });
  expect(JSON.parse(readFileSync(file, 'utf8'))).toMatchObject({ name: 'gpu-train', commit: 'c1', device: 'H', driver: '580', figure: 'so far', held: ['h'], open: ['o'], more: 1, entries: { a: { commit: 'c1', seconds: 2 } } });
  const seen = (more: Partial<FindingsOptions>): readonly boolean[] => ['a', 'b', 'part'].map((id) => new Findings(options(more)).has(id));
  expect(seen({})).toEqual([true, false, false]);
  expect(new Findings(options()).get('part')).toEqual([1]);
  expect(seen({ again: true })).toEqual([false, false, false]);
  expect(seen({ stamp: { commit: 'c2', device: 'H', driver: '580' } })).toEqual([false, false, false]);
  expect(seen({ stamp: { commit: 'c2', device: 'H', driver: '580' }, anyCommit: true })).toEqual([true, false, false]);
  expect(seen({ stamp: { commit: 'c1', device: 'other', driver: '580' } })).toEqual([false, false, false]);
  expect(seen({ folder: join(work, 'elsewhere'), former: [join(work, 'out')] })).toEqual([true, false, false]);
});

test("a program's lines are heard as they come; one that fails says its last words, one that is late is ended", async () => {
  const heard: unknown[] = [];
  const node = (text: string, seconds = 60) => runLines([process.execPath, '-e', text], { seconds, heard: (line) => void heard.push(line) });
  expect(await node('console.log(JSON.stringify({ a: 1 })); console.log("{ no JSON"); process.stdout.write(`{"b":2}`)')).toMatchObject({ how: 'done', words: '' });
  expect(heard).toEqual([{ a: 1 }, { b: 2 }]);
  expect(await node('console.log("{}"); throw new Error("no room")')).toMatchObject({ how: 'failed', words: expect.stringMatching(/^status 1: [^]*no room/) as string });
  expect(await node('console.log("{}"); setInterval(() => {}, 1000)', 0.5)).toMatchObject({ how: 'out of time' });
  expect(await runLines(['/no/such/program'], { seconds: 1, heard: () => {} })).toMatchObject({ how: 'failed' });
  expect(new Budget(4).left).toBe(0);
  expect(new Budget(100).left).toBeGreaterThan(90);
});

test("the driver's tool", () => {
  expect(parseSeen('NVIDIA H200, 580.159.04, 143771, 512, 143259')).toEqual({ name: 'NVIDIA H200', driver: '580.159.04', total: 143771 * 2 ** 20, used: 512 * 2 ** 20, free: 143259 * 2 ** 20 });
  expect([parseSeen('No devices were found'), parseSeen('a, b, c, d, e')]).toEqual([null, null]);
});
