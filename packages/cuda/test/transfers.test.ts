// Bytes in and out beside the work: reads that hold nobody up, events that can be waited for, pinned memory the host sees; the stopwatch and
// the ranges for profilers, which cost nothing when off.
import { mkdtempSync, readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { isLomoError } from '@lomo/tensor';
import type { DType, Event, Memory, Queue, Region } from '@lomo/tensor';
import type { CudaBackend, CudaOptions } from '../src/index.ts';
import { double, onDouble } from './double.ts';

let backend: CudaBackend;
let memory: Memory;
const open = (options: CudaOptions = {}): void => {
  backend = double(options);
  memory = backend.memory('device', 32 << 20);
};
beforeEach(() => open());
afterEach(async () => {
  for (const name of ['LOMO_DOUBLE_HOLD', 'LOMO_DOUBLE_EAGER', 'LOMO_DOUBLE_NVTX']) delete process.env[name];
  await backend[Symbol.asyncDispose]();
});

const at = (offset: number, shape: readonly number[], dtype: DType = 'f32', where = memory): Region => ({ memory: where, offset, shape, dtype });
const cell = (i = 0): Region => at(256 * i, [16]);
function fill(region: Region, value: number, queue: Queue = 'compute'): Event {
  return backend.launch(backend.kernel('fill', { ins: [], inouts: ['f32'], outs: [] })!, { ins: [], inouts: [region], outs: [], workspace: null }, [value], queue);
}
const first = (bytes: ArrayBuffer): number => new Float32Array(bytes)[0]!;

test('a read does not hold the thread that feeds the queues: work enqueued behind it is fed while the GPU has not reached it', async () => {
  fill(cell(), 1);
  process.env['LOMO_DOUBLE_HOLD'] = '1';
  let arrived = false;
  const reading = backend.read(cell()).then((bytes) => {
    arrived = true;
    return first(bytes);
  });
  const { launches } = backend.counters();
  for (let i = 0; i < 100; i++) fill(cell(), 2);
  const more = [backend.read(cell()), backend.read(cell(1))];
  // Returns when all of it has been fed; with a thread that waits for the read it would not.
  (backend as unknown as { readonly native: { drain(): void } }).native.drain();
  expect([backend.counters().launches - launches, arrived, backend.counters().waits]).toEqual([100, false, 0]);
  delete process.env['LOMO_DOUBLE_HOLD'];
  // What a read sees is what was enqueued before it.
  expect([await reading, ...(await Promise.all(more)).map(first)]).toEqual([1, 2, 0]);
});

test('reads are answered in order, also one larger than all slots beside small ones', async () => {
  const bytes = Uint8Array.from({ length: 21_000_003 }, (_, i) => (i * 2654435761) >>> 24);
  backend.write(at(1024, [bytes.length], 'u8'), bytes);
  fill(cell(), 3);
  const order: string[] = [];
  const note = <T>(name: string, promise: Promise<T>): Promise<T> => promise.then((value) => {
    order.push(name);
    return value;
  });
  const [small, large, empty, last] = await Promise.all([note('small', backend.read(cell())), note('large', backend.read(at(1024, [bytes.length], 'u8'))), note('empty', backend.read(at(0, [0]))), note('last', backend.read(cell()))]);
  expect([first(small), empty.byteLength, first(last), order]).toEqual([3, 0, 3, ['small', 'large', 'empty', 'last']]);
  expect(Buffer.compare(Buffer.from(large), bytes)).toBe(0);
});

test('pinned memory: the host sees it, copies on other queues wait for nobody but their event', async () => {
  const pinned = backend.memory('pinned', 4096);
  const window = new Float32Array(pinned.host!(0, 64).buffer, 0, 16);
  window.fill(7);
  const arrived = backend.copy(cell(2), at(0, [16], 'f32', pinned), 'receive');
  await backend.reached(arrived);
  backend.wait('compute', arrived);
  const added = backend.launch(backend.kernel('add', { ins: ['f32', 'f32'], inouts: [], outs: ['f32'] })!, { ins: [cell(2), cell(2)], inouts: [], outs: [cell(3)], workspace: null }, [], 'compute');
  backend.wait('offload', added);
  await backend.reached(backend.copy(at(256, [16], 'f32', pinned), cell(3), 'offload'));
  expect(new Float32Array(pinned.host!(256, 64).slice().buffer)[5]).toBe(14);
  expect(backend.counters().waits).toBe(0);
  pinned.free();
  expect(window.length).toBe(0);
  await expect(backend.reached({ queue: 'send', ticket: 1e6 })).rejects.toSatisfy((e) => isLomoError(e, 'BadEvent'));
});

test('the stopwatch: what ran, in order, on the clock of performance.now(); the same bits; nothing reserved by a second start', async () => {
  const { stopwatch } = backend;
  const before = performance.now();
  stopwatch.start(64);
  expect(() => stopwatch.start(64)).toThrow(/stop it first/);
  const { waits } = backend.counters();
  const tickets = [fill(cell(), 1), fill(cell(1), 2, 'offload'), backend.copy(cell(2), cell(1), 'offload')].map(({ ticket }) => ticket);
  backend.write(cell(3), new Float32Array(16));
  const value = first(await backend.read(cell()));
  expect(backend.counters().waits).toBe(waits);
  const { work, lost } = await stopwatch.stop();
  expect([value, lost, work.map(({ kind }) => kind)]).toEqual([1, 0, ['launch', 'launch', 'copy', 'write', 'read']]);
  expect(work.slice(0, 3).map(({ ticket }) => ticket)).toEqual(tickets);
  for (const { start, end } of work) expect([start >= before, end > start, end < before + 60_000]).toEqual([true, true, true]);
  await expect(stopwatch.stop()).rejects.toSatisfy((e) => isLomoError(e, 'StopwatchStopped'));

  stopwatch.start(4);
  for (let i = 0; i < 10; i++) fill(cell(), i);
  const second = await stopwatch.stop();
  expect([second.work.length, second.lost]).toEqual([4, 6]);
  expect(second.work.every(({ start }, i) => i === 0 || start >= second.work[i - 1]!.end)).toBe(true);
});

test('NVTX ranges are named as the ops are; without the option nothing is opened, and what is no injection library is refused', async () => {
  const file = join(mkdtempSync(join(tmpdir(), 'lomo-nvtx-')), 'ranges');
  process.env['LOMO_DOUBLE_NVTX'] = file;
  await backend.read(cell());
  fill(cell(), 1);
  await backend[Symbol.asyncDispose]();
  open({ nvtx: onDouble.driver! });
  fill(cell(), 1);
  backend.launch(backend.kernel('add', { ins: ['f32', 'f32'], inouts: [], outs: ['f32'] })!, { ins: [cell(), cell()], inouts: [], outs: [cell(1)], workspace: null }, [], 'compute');
  await backend.read(cell(1));
  expect(readFileSync(file, 'utf8')).toBe('push fill\npop\npush add\npop\n');
  for (const [nvtx, code] of [['libm.so.6', 'WrongLibrary'], ['/no/such/injection.so', 'MissingLibrary']] as const) {
    expect(() => double({ nvtx })).toThrow(/NVTX_INJECTION64_PATH|InitializeInjectionNvtx2/);
    try {
      void double({ nvtx });
    } catch (error) {
      expect(isLomoError(error, code)).toBe(true);
    }
  }
});
