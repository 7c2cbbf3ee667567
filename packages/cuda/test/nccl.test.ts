// Communicators on the host double: what ranks get, in which order sums are taken, what queues order, and how mistakes and lost ranks end.
// Ranks are backends of this process on GPUs of their own; once, a rank is another process.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { fromBf16, isLomoError, toBf16 } from '@lomo/tensor';
import type { DType, Event, Region } from '@lomo/tensor';
import type { Communicator, CudaBackend, CudaOptions } from '../src/index.ts';
import { double, onDouble } from './double.ts';

interface Rank {
  readonly backend: CudaBackend;
  readonly comm: Communicator;
  readonly at: (offset: number, shape: readonly number[], dtype?: DType) => Region;
}

const made: CudaBackend[] = [];
beforeEach(() => {
  process.env['LOMO_DOUBLE_DEVICES'] = '3';
});
afterEach(async () => {
  await Promise.all(made.splice(0).map((backend) => backend[Symbol.asyncDispose]()));
  for (const name of ['LOMO_DOUBLE_DEVICES', 'LOMO_DOUBLE_EAGER', 'LOMO_DOUBLE_NCCL']) delete process.env[name];
});

function backendOf(options: CudaOptions = {}): CudaBackend {
  const backend = double(options);
  made.push(backend);
  return backend;
}

function ranks(size: number, timeout = 20_000): readonly Rank[] {
  const backends = Array.from({ length: size }, (_, device) => backendOf({ device }));
  const id = backends[0]!.communicatorId();
  return backends.map((backend, rank) => {
    const memory = backend.memory('device', 1 << 16);
    return { backend, comm: backend.communicator({ rank, size, id, timeout }), at: (offset, shape, dtype = 'f32') => ({ memory, offset, shape, dtype }) };
  });
}

/** What `verb` rejects or throws, as 'Code: message'. */
async function failure(verb: () => unknown): Promise<string> {
  try {
    await verb();
  } catch (error) {
    if (isLomoError(error)) return `${error.code}: ${error.message}`;
    throw error;
  }
  return 'nothing';
}

const fround = Math.fround;
const n = 37;
const draw = (rank: number, i: number): number => fround((((i + 1) * 2654435761 + rank * 40503) % 2 ** 20) / 2 ** 17 - 4);
// Round a value of the dtype to itself, one f32 operation before.
const rounders: Partial<Record<DType, (x: number) => number>> = { f32: fround, bf16: (x) => fromBf16(toBf16(x)), i32: (x) => x | 0, u8: (x) => x & 255 };

function bytesOf(dtype: DType, values: readonly number[]): Uint8Array {
  if (dtype === 'f32') return new Uint8Array(Float32Array.from(values).buffer);
  if (dtype === 'i32') return new Uint8Array(Int32Array.from(values).buffer);
  if (dtype === 'bf16') return new Uint8Array(Uint16Array.from(values, toBf16).buffer);
  return Uint8Array.from(values);
}

describe.each([2, 3])('%d ranks', (size) => {
  const each = Math.ceil(n / size);
  test.each(['f32', 'bf16', 'i32', 'u8'] as const)('all_reduce of %s: every rank has the bits of the ring, part c beginning at rank c + 1', async (dtype) => {
    const group = ranks(size);
    const round = rounders[dtype]!;
    const own = (rank: number): number[] => Array.from({ length: n }, (_, i) => (dtype === 'f32' || dtype === 'bf16' ? round(draw(rank, i)) : round((i * 7919 + rank * 100_003) * 31)));
    const want = Array.from({ length: n }, (_, i) => {
      const c = Math.floor(i / each);
      let sum = own((c + 1) % size)[i]!;
      for (let hop = 2; hop <= size; hop++) sum = round(sum + own((c + hop) % size)[i]!);
      return sum;
    });
    group.forEach(({ backend, comm, at }, rank) => {
      backend.write(at(0, [n], dtype), bytesOf(dtype, own(rank)));
      comm.allReduce(at(0, [n], dtype), 'compute');
    });
    for (const { backend, at } of group) expect(new Uint8Array(await backend.read(at(0, [n], dtype)))).toEqual(bytesOf(dtype, want));
  });

  test('all_gather, reduce_scatter and broadcast, also in place; a maximum', async () => {
    const group = ranks(size);
    group.forEach(({ backend, comm, at }, rank) => {
      backend.write(at(0, [size, 4]), Float32Array.from({ length: 4 * size }, (_, i) => 10 * rank + i));
      backend.write(at(256, [4]), new Float32Array(4).fill(rank + 1));
      comm.reduceScatter(at(16 * rank, [4]), at(0, [size, 4]), 'compute');
      comm.allGather(at(512, [size, 4]), at(256, [4]), 'compute');
      comm.allReduce(at(256, [4]), 'compute', 'max');
      backend.write(at(1024, [3], 'u8'), Uint8Array.of(rank, rank, rank));
      comm.broadcast(at(1024, [3], 'u8'), size - 1, 'compute');
    });
    const total = (size * (size - 1)) / 2;
    for (const [rank, { backend, at }] of group.entries()) {
      expect([...new Float32Array(await backend.read(at(16 * rank, [4])))]).toEqual([0, 1, 2, 3].map((i) => 10 * total + size * (4 * rank + i)));
      expect([...new Float32Array(await backend.read(at(512, [size, 4])))]).toEqual(Array.from({ length: 4 * size }, (_, i) => 1 + Math.floor(i / 4)));
      expect([...new Float32Array(await backend.read(at(256, [1])))]).toEqual([size]);
      expect([...new Uint8Array(await backend.read(at(1024, [3], 'u8')))]).toEqual(Array(3).fill(size - 1));
    }
  });
});

test('f16 sums are rounded at every hop', async () => {
  const group = ranks(2);
  const bits = [Uint16Array.of(0x6800, 0x0001, 0x7bff), Uint16Array.of(0x3c00, 0x0001, 0x7bff)]; // 2048 and 1, the least twice, the most twice
  group.forEach(({ backend, comm, at }, rank) => {
    backend.write(at(0, [3], 'f16'), bits[rank]!);
    comm.allReduce(at(0, [3], 'f16'), 'compute');
  });
  for (const { backend, at } of group) expect([...new Uint16Array(await backend.read(at(0, [3], 'f16')))]).toEqual([0x6800, 0x0002, 0x7c00]);
});

describe('exchanges', () => {
  /** A ring of P = 3: every rank fills on compute, passes on through `send`, uses what came on compute. Rank 0's first number at the end. */
  async function around(forgotten: 'none' | 'before' | 'after' | 'reuse'): Promise<number> {
    const group = ranks(3);
    const fill = (r: Rank, region: Region, value: number): Event => {
      const kernel = r.backend.kernel('fill', { ins: [], inouts: ['f32'], outs: [] })!;
      return r.backend.launch(kernel, { ins: [], inouts: [region], outs: [], workspace: null }, [value], 'compute');
    };
    group.forEach((r, rank) => {
      const [mine, came, kept] = [r.at(0, [16]), r.at(256, [16]), r.at(512, [16])];
      const made = fill(r, mine, 10 + rank);
      if (forgotten !== 'before') r.backend.wait('send', made);
      const passed = r.comm.exchange({ sends: [{ region: mine, to: (rank + 1) % 3 }], receives: [{ region: came, from: (rank + 2) % 3 }] }, 'send');
      if (forgotten !== 'after') r.backend.wait('compute', passed);
      const copied = r.backend.copy(kept, came, 'compute');
      if (forgotten !== 'after' && forgotten !== 'reuse') r.backend.wait('send', copied);
      r.comm.exchange({ sends: [{ region: kept, to: (rank + 1) % 3 }], receives: [{ region: came, from: (rank + 2) % 3 }] }, 'send');
    });
    const numbers = await Promise.all(group.map(({ backend, at }) => backend.read(at(512, [16]))));
    await Promise.all(made.splice(0).map((backend) => backend[Symbol.asyncDispose]()));
    return new Float32Array(numbers[0]!)[0]!;
  }
  const underAll = async (forgotten: Parameters<typeof around>[0]): Promise<readonly number[]> => {
    const seen: number[] = [];
    for (const eager of [0, 1, 4, 5]) {
      process.env['LOMO_DOUBLE_EAGER'] = String(eager);
      seen.push(await around(forgotten));
    }
    return seen;
  };
  test('are ordered with other queues by events, under every schedule', async () => {
    expect(await underAll('none')).toEqual([12, 12, 12, 12]);
  });
  test('a forgotten wait before or after one shows under some schedule', async () => {
    expect((await underAll('before')).some((x) => x !== 12)).toBe(true);
    expect((await underAll('after')).some((x) => x !== 12)).toBe(true);
  });

  test('four parcels each way in one call, on queues of one\'s own choice', async () => {
    const [a, b] = ranks(2) as [Rank, Rank];
    const part = (r: Rank, offset: number, i: number): Region => r.at(offset + 4 * i, [i === 3 ? 5 : 1], 'i32');
    for (const [rank, r] of [a, b].entries()) {
      r.backend.write(r.at(0, [8], 'i32'), Int32Array.from({ length: 8 }, (_, i) => 100 * rank + i));
      await r.backend.read(r.at(0, [1]));
      const four = [0, 1, 2, 3];
      const passed = r.comm.exchange({ sends: four.map((i) => ({ region: part(r, 0, i), to: 1 - rank })), receives: four.map((i) => ({ region: part(r, 256, i), from: 1 - rank })) }, rank === 0 ? 'send' : 'receive');
      r.backend.wait('compute', passed);
    }
    a.comm.send(a.at(256, [8], 'i32'), 1, 'compute');
    b.comm.receive(b.at(512, [8], 'i32'), 0, 'offload');
    b.backend.wait('compute', b.comm.receive(b.at(1024, [1], 'u8'), 0, 'receive'));
    a.comm.send(a.at(4, [1], 'u8'), 1, 'compute');
    expect([...new Int32Array(await b.backend.read(b.at(256, [8], 'i32')))]).toEqual([0, 1, 2, 3, 4, 5, 6, 7]);
    expect([...new Int32Array(await b.backend.read(b.at(512, [8], 'i32')))]).toEqual([100, 101, 102, 103, 104, 105, 106, 107]);
    expect([...new Uint8Array(await b.backend.read(b.at(1024, [1], 'u8')))]).toEqual([1]);
  });

  test('after warm-up a call allocates nothing and the host waits for nothing', async () => {
    const group = ranks(2);
    const step = (): void => {
      for (let i = 0; i < 20; i++) for (const [rank, { comm, at }] of group.entries()) comm.exchange({ sends: [{ region: at(0, [16]), to: 1 - rank }], receives: [{ region: at(256, [16]), from: 1 - rank }] }, 'compute');
    };
    const settle = (): Promise<unknown> => Promise.all(group.map(({ backend, at }) => backend.read(at(256, [16]))));
    step();
    await settle();
    step();
    await settle();
    const before = group.map(({ backend }) => backend.counters());
    step();
    await settle();
    group.forEach(({ backend }, rank) => {
      const after = backend.counters();
      expect({ allocations: after.allocations - before[rank]!.allocations, waits: after.waits - before[rank]!.waits }).toEqual({ allocations: 0, waits: 0 });
    });
  });
});

describe('mistakes', () => {
  test('counts that differ are told on both sides', async () => {
    const [a, b] = ranks(2) as [Rank, Rank];
    a.comm.send(a.at(0, [16]), 1, 'compute');
    b.comm.receive(b.at(0, [8]), 0, 'compute');
    expect(await failure(() => b.backend.read(b.at(0, [1])))).toMatch(/^NcclError: .*rank 1 of 2: invalid usage .*receives 8 elements of type 7 from rank 0, whose send 1 has 16 of type 7/);
    expect(await failure(() => a.backend.read(a.at(0, [1])))).toMatch(/^NcclError: .*rank 0 of 2: .*send 1 to rank 1 .*is not what that rank receives/);
    expect(await failure(() => a.comm.allReduce(a.at(0, [1]), 'compute'))).toMatch(/^NcclError/);
  });

  test('collectives in another order are told', async () => {
    const [a, b] = ranks(2) as [Rank, Rank];
    a.comm.allReduce(a.at(0, [4]), 'compute');
    a.comm.broadcast(a.at(0, [4]), 0, 'compute');
    b.comm.broadcast(b.at(0, [4]), 0, 'compute');
    b.comm.allReduce(b.at(0, [4]), 'compute');
    expect(await failure(() => a.backend.read(a.at(0, [1])))).toMatch(/^NcclError: .*collective 1 is all_reduce of 4 .* on rank 0, but broadcast of 4 .* on rank 1/);
  });

  test('a send without a receive ends after the timeout, and says what waits', async () => {
    const [a] = ranks(2, 200) as [Rank, Rank];
    a.backend.wait('compute', a.comm.send(a.at(64, [3], 'u8'), 1, 'send'));
    expect(await failure(() => a.backend.read(a.at(0, [1])))).toMatch(/^CommunicatorTimeout: .*rank 0 of 2: exchange \(call 1 of this communicator: sends 3 u8 to rank 1\) began 0\.\d s ago and has not ended: another rank is gone/);
  });

  test('two sends head-on wait for one another: told within the timeout; as one call they pass', async () => {
    const [a, b] = ranks(2, 300) as [Rank, Rank];
    for (const [rank, { comm, at }] of [a, b].entries()) comm.exchange({ sends: [{ region: at(0, [16]), to: 1 - rank }], receives: [{ region: at(256, [16]), from: 1 - rank }] }, 'compute');
    await Promise.all([a, b].map(({ backend, at }) => backend.read(at(0, [1]))));
    for (const [rank, { comm, at }] of [a, b].entries()) {
      comm.send(at(0, [16]), 1 - rank, 'compute');
      comm.receive(at(256, [16]), 1 - rank, 'compute');
    }
    expect(await failure(() => a.backend.read(a.at(0, [1])))).toMatch(/^CommunicatorTimeout: .*exchange \(call 2 of this communicator: sends 16 f32 to rank 1\) began/);
    expect(await failure(() => b.backend.read(b.at(0, [1])))).toMatch(/^CommunicatorTimeout: .*sends 16 f32 to rank 0/);
  });

  test('ranks and regions that cannot be', async () => {
    const [a] = ranks(2) as [Rank, Rank];
    expect(await failure(() => a.comm.send(a.at(0, [1]), 2, 'send'))).toMatch(/^BadPeer: exchange: rank 2 is not one of 2/);
    expect(await failure(() => a.comm.receive(a.at(0, [1]), 0, 'send'))).toMatch(/^BadPeer: .*this rank: copy instead/);
    expect(await failure(() => a.comm.broadcast(a.at(0, [1]), -1, 'send'))).toMatch(/^BadPeer/);
    expect(await failure(() => a.comm.exchange({}, 'send'))).toMatch(/^BadArity/);
    expect(await failure(() => a.comm.allGather(a.at(0, [3]), a.at(64, [2]), 'send'))).toMatch(/^SizeMismatch: allGather: f32\[2\] of each of 2 ranks do not make f32\[3\]/);
    const id = a.backend.communicatorId();
    expect(await failure(() => a.backend.communicator({ rank: 2, size: 2, id }))).toMatch(/^BadOption: cuda: rank 2 is not one of 2/);
    expect(await failure(() => a.backend.communicator({ rank: 0, size: 0, id }))).toMatch(/^BadOption/);
    expect(await failure(() => a.backend.communicator({ rank: 0, size: 1, id, timeout: 0 }))).toMatch(/^BadOption/);
    expect(await failure(() => a.backend.communicator({ rank: 0, size: 1, id: id.subarray(1) }))).toMatch(/^BadOption: .*128 bytes, got 127/);
  });

  test('ranks that do not come, sizes that differ, one GPU for two ranks', async () => {
    const alone = backendOf();
    const region = (backend: CudaBackend): Region => ({ memory: backend.memory('device', 64), offset: 0, shape: [1], dtype: 'f32' });
    const reads = async (backend: CudaBackend, comm: Communicator): Promise<string> => {
      const one = region(backend);
      comm.allReduce(one, 'compute');
      return failure(() => backend.read(one));
    };
    expect(await reads(alone, alone.communicator({ rank: 0, size: 2, id: alone.communicatorId(), timeout: 100 }))).toMatch(/^CommunicatorTimeout: .*rank 0 of 2: not all ranks came .* within 0\.1 s/);
    const [x, y] = [backendOf({ device: 1 }), backendOf({ device: 2 })];
    const id = x.communicatorId();
    const [first, second] = [x.communicator({ rank: 0, size: 2, id }), y.communicator({ rank: 1, size: 3, id })];
    expect(await reads(x, first)).toMatch(/^NcclError: .*could not be made: invalid usage .*rank 1 is one of 3/);
    expect(await reads(y, second)).toMatch(/^NcclError/);
    const [p, q] = [backendOf(), backendOf()];
    const shared = p.communicatorId();
    const same = [p.communicator({ rank: 0, size: 2, id: shared }), q.communicator({ rank: 1, size: 2, id: shared })] as const;
    expect(await reads(p, same[0])).toMatch(/^NcclError: .*use the same GPU 0/);
    expect(await reads(q, same[1])).toMatch(/^NcclError/);
  });
});

describe('a rank that is gone', () => {
  test('abort sets a waiting read free, with its reason', async () => {
    const [a, b] = ranks(2) as [Rank, Rank];
    await b.backend[Symbol.asyncDispose]();
    a.comm.allReduce(a.at(0, [16]), 'compute');
    const pending = failure(() => a.backend.read(a.at(0, [16])));
    await new Promise((resolve) => setTimeout(resolve, 100));
    const began = performance.now();
    a.comm.abort(new Error('rank 1 sent no heartbeat for 5 s'));
    expect(await pending).toMatch(/^CommunicatorAborted: .*rank 0 of 2: the communicator was aborted: rank 1 sent no heartbeat for 5 s/);
    expect(performance.now() - began).toBeLessThan(1000);
    expect(await failure(() => a.comm.allReduce(a.at(0, [1]), 'compute'))).toMatch(/^CommunicatorAborted/);
    await a.backend[Symbol.asyncDispose]();
    a.comm.abort(new Error('again'));
  });

  test('the end of a process does not wait for others', async () => {
    const script = `${inAnotherProcess}
      join(0, 2, addon.communicatorId(b), 600000);
      reduce();
      b.read(m, 0, 4).catch(() => {});
      setTimeout(() => { b.stop(); console.log('stopped'); }, 200);`;
    const child = spawn(process.execPath, ['-e', script], { stdio: ['ignore', 'pipe', 'inherit'] });
    let said = '';
    child.stdout.on('data', (text) => (said += String(text)));
    const [status] = (await once(child, 'exit')) as [number];
    expect([said, status]).toEqual(['stopped\n', 0]);
  });

  test('ranks of two processes; the other one killed', async () => {
    const backend = backendOf();
    const id = backend.communicatorId();
    const script = `${inAnotherProcess}
      join(1, 2, Uint8Array.from(JSON.parse(process.argv[1])), 20000);
      b.write(m, 0, new Uint8Array(Float32Array.of(5).buffer));
      reduce();
      b.read(m, 0, 4).then((x) => { console.log(new Float32Array(x)[0]); setInterval(() => {}, 1000); });`;
    const child = spawn(process.execPath, ['-e', script, JSON.stringify([...id])], { stdio: ['ignore', 'pipe', 'inherit'] });
    const said = once(child.stdout, 'data');
    const comm = backend.communicator({ rank: 0, size: 2, id, timeout: 20_000 });
    const one: Region = { memory: backend.memory('device', 64), offset: 0, shape: [1], dtype: 'f32' };
    backend.write(one, Float32Array.of(2));
    comm.allReduce(one, 'compute');
    expect(new Float32Array(await backend.read(one))[0]).toBe(7);
    expect(String(((await said) as [Buffer])[0])).toBe('7\n');
    child.kill('SIGKILL');
    await once(child, 'exit');
    comm.allReduce(one, 'compute');
    const pending = failure(() => backend.read(one));
    comm.abort(new Error(`process ${child.pid} was killed`));
    expect(await pending).toMatch(/^CommunicatorAborted: .*was killed/);
  });
});

/** The addon without our TypeScript: b a backend, m its memory, join and reduce. */
const inAnotherProcess = `
  const addon = require(${JSON.stringify(onDouble.addon)});
  const packet = new Float64Array(10 + 8 * 16 + 16);
  const path = ${JSON.stringify(onDouble.driver)};
  const b = new addon.NativeBackend(packet, { device: 0, driver: path, cublasLt: path, nccl: path, folders: [] });
  const m = b.reserve(0, 256);
  let number;
  const join = (rank, size, id, timeout) => { number = addon.join(b, rank, size, id, timeout); };
  const reduce = () => { packet.set([b.find('all_reduce', [0], 0, 1), 0, 1, 0, 2, 0, 0, -1, 0, 0, m, 0, 0, 1, 1, 1, 1, 1, number, 0]); b.launch(); };`;

describe('the library', () => {
  test('is opened when asked for, not before', async () => {
    const backend = backendOf({ nccl: '/no/such/libnccl.so.2' });
    expect(backend.facts.libraries.map((l) => l.name)).toEqual(['CUDA driver', 'cuBLASLt']);
    expect(await failure(() => backend.nccl())).toMatch(/^MissingLibrary: .*NCCL was not found\. .*pip install nvidia-nccl-cu13[\s\S]*\/no\/such\/libnccl\.so\.2: cannot open/);
    expect(backendOf().nccl()).toMatchObject({ name: 'NCCL', version: '2.27.7' });
  });

  test('every place is tried: the loader, the given folders, pip, the system', async () => {
    const said = await failure(() => backendOf({ nccl: '', folders: ['/some/venv'] }).nccl());
    if (!said.startsWith('MissingLibrary')) return expect(said).toBe('nothing'); // a machine that has NCCL
    for (const place of ['libnccl.so.2', '/some/venv/libnccl.so.2', '/some/venv/nvidia/nccl/lib/libnccl.so.2', '/usr/lib64/libnccl.so.2']) expect(said).toContain(`\n  ${place}: `);
  });

  test('too old, or another one', async () => {
    process.env['LOMO_DOUBLE_NCCL'] = '2708';
    expect(await failure(() => backendOf().nccl())).toMatch(/^NcclTooOld: .* is NCCL 2\.7\.8; lomo needs 2\.18/);
    process.env['LOMO_DOUBLE_NCCL'] = '21705';
    expect(await failure(() => backendOf().nccl())).toMatch(/^NcclTooOld: .* is NCCL 2\.17\.5/);
    expect(await failure(() => backendOf({ nccl: 'libm.so.6' }).nccl())).toMatch(/^WrongLibrary: .*libm\.so\.6.* has no ncclGetVersion/);
  });
});
