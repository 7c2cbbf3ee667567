// The verbs on the host double: order within queues and between them, faults that a kernel finds, what is refused, what a step costs.
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { isLomoError } from '@lomo/tensor';
import type { DType, Memory, Operands, Queue, Region } from '@lomo/tensor';
import type { CudaBackend } from '../src/index.ts';
import { double } from './double.ts';

let backend: CudaBackend;
let memory: Memory;
beforeEach(() => {
  backend = double();
  memory = backend.memory('device', 1 << 20);
});
afterEach(async () => {
  await backend[Symbol.asyncDispose]();
  for (const name of ['LOMO_DOUBLE_EAGER', 'LOMO_DOUBLE_FAIL']) delete process.env[name];
});

const at = (offset: number, shape: readonly number[], dtype: DType = 'f32'): Region => ({ memory, offset, shape, dtype });
const [a, b, c] = [0, 4096, 8192].map((offset) => () => at(offset, [16])) as [() => Region, () => Region, () => Region];

function launch(name: string, operands: Partial<Operands>, attributes: readonly number[] = [], queue: Queue = 'compute') {
  const { ins = [], inouts = [], outs = [] } = operands;
  const types = (regions: readonly Region[]): readonly DType[] => regions.map((r) => r.dtype);
  const kernel = backend.kernel(name, { ins: types(ins), inouts: types(inouts), outs: types(outs) });
  if (kernel === null) throw new Error(`no kernel ${name}`);
  return backend.launch(kernel, { ins, inouts, outs, workspace: null }, attributes, queue);
}
const values = async (r: Region): Promise<readonly number[]> => [...new Float32Array(await backend.read(r))];
const code = (verb: () => unknown): string => {
  try {
    verb();
  } catch (error) {
    if (isLomoError(error)) return error.code;
    throw error;
  }
  return 'nothing thrown';
};

test('memory is zero-filled, counted and given back, on both places', async () => {
  for (const place of ['device', 'pinned'] as const) {
    const before = backend.reserved();
    const other = backend.memory(place, 5_000_001);
    expect(backend.reserved() - before).toBe(5_000_001);
    const bytes = new Uint8Array(await backend.read({ memory: other, offset: 0, shape: [5_000_001], dtype: 'u8' }));
    expect(bytes.every((x) => x === 0)).toBe(true);
    other.free();
    expect(backend.reserved()).toBe(before);
    expect(code(() => other.free())).toBe('FreedMemory');
  }
});

test('bytes larger than a staging slot arrive whole, both ways', async () => {
  const bytes = Uint8Array.from({ length: 9_000_003 }, (_, i) => (i * 2654435761) >>> 24);
  const large = backend.memory('device', bytes.length);
  const whole = { memory: large, offset: 0, shape: [bytes.length], dtype: 'u8' } as const;
  backend.write(whole, bytes);
  const copy = bytes.slice();
  bytes.fill(0);
  expect(Buffer.compare(Buffer.from(await backend.read(whole)), copy)).toBe(0);
  large.free();
});

describe('queues', () => {
  /** Writes 1, adds on compute, copies on offload, overwrites on compute, reads what was copied; without the waits named in `forgotten`. */
  async function relay(forgotten: 'none' | 'before' | 'after' | 'reuse'): Promise<number> {
    backend.write(a(), new Float32Array(16).fill(1));
    launch('fill', { inouts: [b()] }, [0]);
    launch('fill', { inouts: [c()] }, [0]);
    await backend.read(a());
    const made = launch('add', { ins: [a(), a()], outs: [b()] });
    if (forgotten !== 'before') backend.wait('offload', made);
    const copied = backend.copy(c(), b(), 'offload');
    if (forgotten !== 'reuse') backend.wait('compute', copied);
    launch('fill', { inouts: [b()] }, [9]);
    if (forgotten === 'after') {
      // Reads of another queue's work without waiting for it.
      launch('fill', { inouts: [c()] }, [5]);
      backend.copy(c(), b(), 'send');
    }
    return (await values(c()))[0]!;
  }
  const underAll = async (forgotten: Parameters<typeof relay>[0]): Promise<readonly number[]> => {
    const seen: number[] = [];
    for (let eager = 0; eager < 16; eager++) {
      process.env['LOMO_DOUBLE_EAGER'] = String(eager);
      seen.push(await relay(forgotten));
    }
    return seen;
  };
  test('events order queues under every schedule of the double', async () => {
    expect(await underAll('none')).toEqual(Array(16).fill(2));
  });
  test('a forgotten wait shows under some schedule: before a copy, before reuse, after a copy', async () => {
    expect((await underAll('before')).some((x) => x !== 2)).toBe(true);
    expect((await underAll('reuse')).some((x) => x !== 2)).toBe(true);
    expect(new Set(await underAll('after')).size).toBeGreaterThan(1);
  });
});

test('a launch after warm-up allocates nothing, and the thread that feeds the queues never waits for the GPU, not for a read either', async () => {
  const step = (): void => {
    for (let i = 0; i < 40; i++) {
      backend.write(a(), new Float32Array(16).fill(i));
      launch('add', { ins: [a(), a()], outs: [b()] });
    }
  };
  step();
  await backend.read(b());
  step();
  await backend.read(b());
  const before = backend.counters();
  step();
  await backend.read(b());
  const after = backend.counters();
  expect(after.launches - before.launches).toBe(40);
  expect(after.allocations - before.allocations).toBe(0);
  expect(after.waits - before.waits).toBe(0);
});

test('what a kernel finds wrong rejects the next read and every later verb', async () => {
  const ids = at(0, [3], 'i32');
  backend.write(ids, Int32Array.of(1, 7, 2));
  launch('embedding', { ins: [ids, at(4096, [5, 4])], outs: [at(8192, [3, 4])] });
  await expect(backend.read(ids)).rejects.toMatchObject({ code: 'BadId', message: expect.stringMatching(/id 7 at token 1 is outside \[0, 5\)/) as string });
  expect(code(() => launch('fill', { inouts: [b()] }, [0]))).toBe('BadId');
});

test('a lost context is a StickyDeviceError that says what to do; the process goes on', async () => {
  process.env['LOMO_DOUBLE_FAIL'] = 'scale_f32';
  // In a process of its own, since a context is lost for the whole of one.
  const { spawnSync } = await import('node:child_process');
  const { onDouble } = await import('./double.ts');
  const script = `
    const addon = require(${JSON.stringify(onDouble.addon)});
    const packet = new Float64Array(10 + 8 * 16 + 16);
    const b = new addon.NativeBackend(packet, { device: 0, driver: ${JSON.stringify(onDouble.driver)}, cublasLt: ${JSON.stringify(onDouble.cublasLt)}, folders: [], nvtx: '' });
    const m = b.reserve(0, 256), k = b.find('scale', [0, 0], 1, 0);
    packet.set([k, 1, 0, 1, 1, 0, 0, -1, 0, 0, m, 0, 0, 1, 4, 1, 1, 1, m, 128, 0, 1, 4, 1, 1, 1, 2]);
    b.launch();
    b.read(m, 0, 64).then(() => console.log('read'), (e) => { console.log(e.code, e.message); return b.close(); }).then(() => console.log('closed'));`;
  const { stdout, status } = spawnSync(process.execPath, ['-e', script], { encoding: 'utf8' });
  expect(stdout).toMatch(/^StickyDeviceError .*planted by a test.*start again from the last checkpoint/);
  expect(stdout).toMatch(/closed\n$/);
  expect(status).toBe(0);
});

test("debug: 'sync' throws from the launch that writes a NaN", async () => {
  const careful = double({ debug: 'sync' });
  const own = careful.memory('device', 1 << 12);
  const region = (offset: number): Region => ({ memory: own, offset, shape: [2], dtype: 'f32' });
  careful.write(region(0), Float32Array.of(Infinity, 1));
  careful.write(region(256), Float32Array.of(-Infinity, 1));
  const add = careful.kernel('add', { ins: ['f32', 'f32'], inouts: [], outs: ['f32'] })!;
  expect(() => careful.launch(add, { ins: [region(0), region(256)], inouts: [], outs: [region(512)], workspace: null }, [], 'compute')).toThrow(/^add: .*NaN.*f32\[2\], f32\[2\] -> f32\[2\]/);
  await careful[Symbol.asyncDispose]();
});

test('dispose finishes the queued work, then refuses everything', async () => {
  const own = double();
  const place = own.memory('device', 4096);
  const region: Region = { memory: place, offset: 0, shape: [64], dtype: 'f32' };
  const fill = own.kernel('fill', { ins: [], inouts: ['f32'], outs: [] })!;
  own.launch(fill, { ins: [], inouts: [region], outs: [], workspace: null }, [3], 'compute');
  const pending = own.read(region);
  await own[Symbol.asyncDispose]();
  expect(new Float32Array(await pending)[63]).toBe(3);
  await own[Symbol.asyncDispose]();
  expect(own.reserved()).toBe(0);
  expect(code(() => own.memory('device', 64))).toBe('BackendClosed');
  await expect(own.read(region)).rejects.toMatchObject({ code: 'BackendClosed' });
});
