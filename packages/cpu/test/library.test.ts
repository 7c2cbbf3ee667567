// Options and what is found at run time: oneDNN, instruction sets, threads; each missing thing says what to do.
import { expect, test } from 'vitest';
import { Random } from '@lomo/tensor';
import { availableCores, cpu } from '../src/index.ts';
import type { CpuOptions, Isa } from '../src/index.ts';
import { Arena, draw } from './arena.ts';

function errorOf(options: CpuOptions): unknown {
  try {
    cpu(options);
  } catch (error) {
    return error;
  }
  return null;
}

test('a missing oneDNN names each path tried, the reason, and what to install', () => {
  const error = errorOf({ oneDnn: '/nowhere/libdnnl.so.2' });
  expect(error).toMatchObject({ name: 'LomoError', code: 'MissingLibrary' });
  expect(String(error)).toMatch(/apt-get install libdnnl2/);
  expect(String(error)).toMatch(/\/nowhere\/libdnnl\.so\.2: .*No such file/);
});

test('another library is refused', () => {
  expect(errorOf({ oneDnn: 'libm.so.6' })).toMatchObject({ code: 'WrongLibrary' });
});

test('a missing addon names the places and the command', () => {
  const error = errorOf({ addon: '/nowhere/lomo_cpu.node' });
  expect(error).toMatchObject({ code: 'MissingAddon' });
  expect(String(error)).toMatch(/npx @lomo\/cpu build/);
});

test('bad options are refused', () => {
  for (const threads of [0, 1.5, -1]) expect(errorOf({ threads })).toMatchObject({ code: 'BadOption' });
  expect(errorOf({ isa: 'sse9' as Isa })).toMatchObject({ code: 'UnsupportedIsa', message: expect.stringMatching(/portable/) });
});

test('the backend tells what it runs on', async () => {
  const backend = cpu();
  expect(backend.threads).toBe(availableCores());
  expect(['portable', 'avx2', 'avx512', 'avx512_bf16']).toContain(backend.isa);
  expect(backend.libraries).toEqual([{ name: 'oneDNN', version: expect.stringMatching(/^[23]\.\d+\.\d+$/), path: expect.stringMatching(/libdnnl\.so/) }]);
  expect(backend.traits.chunk).toBe(512);
  await backend[Symbol.asyncDispose]();
});

test('every instruction set of this machine adds alike', async () => {
  const { data, values } = draw(new Random(3), 1000, 'f32');
  let tried = 0;
  for (const isa of ['portable', 'avx2', 'avx512', 'avx512_bf16'] as const) {
    if (errorOf({ isa }) !== null) continue;
    const backend = cpu({ isa, threads: 1 });
    expect(backend.isa).toBe(isa);
    const arena = new Arena(backend, 1 << 20);
    const a = arena.put([1000], 'f32', data);
    const c = arena.region([1000]);
    arena.launch('add', { ins: [a, a], outs: [c] });
    expect(await arena.values(c)).toEqual(values.map((x) => 2 * x));
    await backend[Symbol.asyncDispose]();
    tried++;
  }
  expect(tried).toBeGreaterThan(0);
});

test('threads: affinity, shared cores and quotas count', () => {
  const machine = (files: Readonly<Record<string, string>>) => (path: string) => files[path] ?? null;
  const topology = (cpus: number, coreOf: (cpu: number) => number): Record<string, string> =>
    Object.fromEntries(
      Array.from({ length: cpus }, (_, i) => [
        [`/sys/devices/system/cpu/cpu${i}/topology/core_id`, `${coreOf(i)}\n`],
        [`/sys/devices/system/cpu/cpu${i}/topology/physical_package_id`, '0\n'],
      ]).flat(),
    );
  const hyperthreaded = { ...topology(8, (i) => i % 4), '/proc/self/status': 'Name:\tnode\nCpus_allowed_list:\t0-7\n' };
  expect(availableCores(machine(hyperthreaded))).toBe(4);
  expect(availableCores(machine({ ...hyperthreaded, '/proc/self/status': 'Cpus_allowed_list:\t0,4-5\n' }))).toBe(2);
  expect(availableCores(machine({ ...hyperthreaded, '/sys/fs/cgroup/cpu.max': '150000 100000\n' }))).toBe(2);
  expect(availableCores(machine({ ...hyperthreaded, '/sys/fs/cgroup/cpu.max': 'max 100000\n' }))).toBe(4);
  expect(availableCores(machine({ ...hyperthreaded, '/sys/fs/cgroup/cpu/cpu.cfs_quota_us': '100000\n', '/sys/fs/cgroup/cpu/cpu.cfs_period_us': '100000\n' }))).toBe(1);
});
