// What can be asked without a backend, on the host double: the kernel table of plans, the GPUs, memory as the driver sees it and who holds it.
import { optimOps } from '@lomo/optim';
import { Device, isLomoError, matmul, Random, tensorOps } from '@lomo/tensor';
import type { DType, KernelSignature, Region, SampleTensor, Spec } from '@lomo/tensor';
import { afterEach, expect, test } from 'vitest';
import { contextBytes, cudaTable, driverMemory, gpuOccupancy, gpuSurvey, heldBy, kernelsOf, startupBytes } from '../src/index.ts';
import { double, onDouble } from './double.ts';

const mebibyte = 2 ** 20;
const page = 2 * mebibyte;
/** The double is its own NVML. */
const place = { ...onDouble, nvml: onDouble.driver! };
const touched = ['LOMO_DOUBLE_DEVICES', 'LOMO_DOUBLE_HELD', 'LOMO_DOUBLE_HOLDER', 'LOMO_DOUBLE_MEMORY', 'LOMO_DOUBLE_NO_NVML'];
afterEach(() => {
  for (const name of touched) delete process.env[name];
});

test('the table has the kernels of a backend, with the same workspaces to the byte, for every sample of every op', async () => {
  const backend = double();
  const table = cudaTable({ addon: onDouble.addon! });
  expect(table.traits).toEqual(backend.traits);
  const memory = { place: 'device', bytes: 0, id: 0, free: () => {} } as const;
  let [launches, scratch] = [0, 0];
  for (const op of [...tensorOps, ...optimOps]) {
    for (const [seed, real] of ([['f32', 'bf16', 'f16'], ['f32', 'bf16', 'f16']] as const).flatMap((types, i) => types.map((type) => [i, type] as const))) {
      const sample = op.sample(new Random(seed));
      const typed = (dtype: DType | 'real' | 'activation'): DType => (dtype === 'real' ? real : dtype === 'activation' ? (real === 'f16' ? 'f32' : real) : dtype);
      const specs = (tensors: readonly SampleTensor[]) => tensors.map(({ shape, dtype }) => ({ shape, dtype: typed(dtype) }));
      const [ins, inouts] = [specs(sample.ins), specs(sample.inouts ?? [])];
      const outs = op.infer(ins, sample.attributes, inouts).map((spec, i) => ({ ...spec, dtype: sample.outs?.[i] === undefined ? spec.dtype : typed(sample.outs[i]!) }));
      const types = (all: readonly Spec[]): readonly DType[] => all.map(({ dtype }) => dtype);
      const signature: KernelSignature = { ins: types(ins), inouts: types(inouts), outs: types(outs) };
      const [there, planned] = [backend.kernel(op.name, signature), table.kernel(op.name, signature)];
      expect(planned === null, op.name).toBe(there === null);
      if (there === null || planned === null) continue;
      expect(planned.attributes).toEqual(there.attributes);
      const regions = (all: readonly Spec[]): Region[] => all.map(({ shape, dtype }) => ({ memory, offset: 0, shape, dtype }));
      const operands = { ins: regions(ins), inouts: regions(inouts), outs: regions(outs), workspace: null };
      const values = op.attributes.map((name) => (sample.attributes as Readonly<Record<string, number>>)[name]!);
      const bytes = table.workspace(planned, operands, values);
      expect(bytes, op.name).toBe(backend.workspace(there, operands, values));
      launches++;
      if (bytes > 0) scratch++;
    }
  }
  expect(launches).toBeGreaterThan(60);
  expect(scratch).toBeGreaterThan(10);
  expect(table.supported('rope')).toEqual(backend.supported('rope'));
  for (const verb of [() => table.memory('device', 1), () => table.wait()]) {
    let code = 'nothing thrown';
    try {
      verb();
    } catch (error) {
      if (isLomoError(error)) code = error.code;
    }
    expect(code).toBe('NoDevice');
  }
  await backend[Symbol.asyncDispose]();
});

test('the driver and its GPUs, with no context made', () => {
  process.env['LOMO_DOUBLE_DEVICES'] = '2';
  const { path, version, gpus } = gpuSurvey(place);
  expect([path, version, gpus.length]).toEqual([onDouble.driver, '13.0', 2]);
  expect(gpus[1]).toEqual({ name: 'lomo host double', architecture: 'sm_90', multiprocessors: 4, memory: 4096 * mebibyte, bus: '0000:02:00.0' });
  const { free, total } = gpuOccupancy(place);
  expect(free).toBe(total);
  expect(kernelsOf(place)).toBe('');
  expect(() => gpuSurvey({ ...place, driver: '/no/libcuda.so.1' })).toThrow(/\/no\/libcuda\.so\.1: /);
  expect(() => driverMemory({ ...place, device: 5 })).toThrow(/device 5 is not one of the 2 GPUs/);
});

test('the driver sees the arena in pages and a constant, which settles in the second round of work', async () => {
  const taken = (): number => {
    const { free, total } = driverMemory(place);
    return total - free;
  };
  const context = taken();
  expect(context).toBe(3 * mebibyte);
  const backend = double(place);
  const opened = taken();
  const device = new Device(backend, { bytes: 5 * mebibyte + 17 });
  expect(taken() - opened).toBe(3 * page);
  const [a, b, c] = [1, 2, 3].map(() => device.allocate({ shape: [8, 8], dtype: 'f32' }, 'workspace'));
  const after: number[] = [];
  for (let step = 0; step < 4; step++) {
    matmul(a!, b!, { tb: true, into: c! });
    await device.reached();
    after.push(taken());
  }
  expect(after[0]).toBeGreaterThan(opened + 3 * page);
  expect(new Set(after.slice(1)).size).toBe(1);
  expect(after[3]! - 3 * page).toBeLessThan(contextBytes + startupBytes);
  device.free();
  await backend[Symbol.asyncDispose]();
  expect(gpuOccupancy(place).free).toBe(gpuOccupancy(place).total);
});

test('memory that others hold: who, by pid and name; and what is said where nobody can tell', async () => {
  process.env['LOMO_DOUBLE_MEMORY'] = '64';
  process.env['LOMO_DOUBLE_HELD'] = '48';
  process.env['LOMO_DOUBLE_HOLDER'] = String(process.ppid);
  const [holder] = gpuOccupancy(place).holders;
  expect(holder).toMatchObject({ pid: process.ppid, bytes: 48 * mebibyte, name: expect.stringMatching(/./) as string });
  expect(heldBy(place)).toBe(`by ${holder!.name} (pid ${process.ppid}) 0.05 GiB`);
  const backend = double(place);
  expect(() => backend.memory('device', 32 * mebibyte)).toThrow(new RegExp(`It is held by .* \\(pid ${process.ppid}\\) 0\\.05 GiB`));
  expect(backend.reserved()).toBe(0);
  process.env['LOMO_DOUBLE_HOLDER'] = '4000001';
  expect(heldBy(place)).toBe('by pid 4000001 0.05 GiB');
  process.env['LOMO_DOUBLE_NO_NVML'] = '1';
  expect(heldBy(place)).toMatch(/^by whom cannot be told \(cuda: nvmlInit_v2 ended with status 9/);
  expect(() => gpuOccupancy({ ...place, nvml: '/no/libnvidia-ml.so.1' })).toThrow(/NVML was not found.*It comes with the NVIDIA driver.*\/no\/libnvidia-ml\.so\.1: /s);
  await backend[Symbol.asyncDispose]();
});
