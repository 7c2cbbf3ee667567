// What runs on the processor runs with --backend cuda, as a person types it, on the host double: plan, train, resume, eval, generate, doctor.
// Skipped where the double is not built.
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { openSession } from '@lomo/trainer';
import { describe, expect, test, vi } from 'vitest';
import { lomo, runFile } from '../../../tools/tiny/command.ts';
import { dataFile } from '../../../tools/tiny/folder.ts';
import { openBackend } from '../src/backends.ts';
import { readRun } from '../src/yaml.ts';
import { isDoubleBuilt, onDouble } from './double.ts';

const small = { backend: 'cuda', max_seq_length: 8, per_device_train_batch_size: 1, max_steps: 4, save_steps: 2, save_total_limit: 9 };
// A fiber switch costs more than a GPU's whole step, and CI's machines are busy.
vi.setConfig({ testTimeout: 300_000 });
const sha256 = (...path: string[]): string => createHash('sha256').update(readFileSync(join(...path))).digest('hex');
const extentOf = (out: string): number => (JSON.parse(out) as { optimizers: { extent: number }[] }).optimizers[0]!.extent;

test.skipIf(!isDoubleBuilt)('a plan for a GPU opens nothing of CUDA, and needs no GPU where its memory is named', async () => {
  const { path } = runFile(small);
  const nowhere = { ...onDouble, LOMO_CUDA_DRIVER: '/no/libcuda.so.1' };
  const named = await lomo(['plan', path, '--device', '24 GiB'], { env: nowhere });
  expect(named).toMatchObject({ code: 0, err: '' });
  expect(named.out).toContain('cuda, planned without a GPU');
  expect(named.out).toMatch(/^ {2}fits: [\d.]+ [KM]iB of 24\.0 GiB less 768 MiB that CUDA takes itself$/m);
  expect(named.out).toMatch(/the driver is expected to see [\d.]+ MiB taken: the arena, and 768 MiB that CUDA takes itself/);
  const unnamed = await lomo(['plan', path], { env: nowhere });
  expect(unnamed).toMatchObject({ code: 1, out: '' });
  expect(unnamed.err).toMatch(/a plan needs no GPU where the memory is named: --device "24 GiB".*\/no\/libcuda\.so\.1: /s);
});

describe.skipIf(!isDoubleBuilt)('on the double', () => {
  test.each([{ dtype: 'bf16', optim: 'adalomo' }, { dtype: 'f32', optim: 'lomo', clip_mode: 'global' }])('what `lomo plan` plans without a GPU is what a run reserves, to the byte: $dtype, $optim', async (settings) => {
    const { path } = runFile({ ...small, ...settings });
    const planned = extentOf((await lomo(['plan', path, '--json', '--device', '4 GiB'], { env: { ...onDouble, LOMO_CUDA_DRIVER: '/no/libcuda.so.1' } })).out);
    const { config } = await readRun(path, {});
    const { backend, freeMemory, rates } = await openBackend('cuda', { env: { ...process.env, ...onDouble } });
    const session = await openSession({ config, backend, memory: freeMemory(), rates: rates! });
    expect([session.plan.extent, backend.reserved()]).toEqual([planned, planned]);
    await session.close();
    await backend[Symbol.asyncDispose]();
  });

  const { folder, path } = runFile(small);
  const root = join(folder, 'runs/run');

  test('train: as planned to the byte, and the driver sees the arena and a constant, +0 after step 2', async () => {
    const { code, out, err } = await lomo(['train', path], { cwd: folder, env: onDouble });
    expect(err).toBe('');
    expect(code).toBe(0);
    expect(out).toMatch(/backend +cuda, GPU 0: lomo host double, sm_90, CUDA driver 13\.0, cuBLASLt/);
    // A run whose allocations or reservation differ from its plan ends at step 1; this is the plan that was made without a GPU.
    const planned = await lomo(['plan', path, '--json', '--device', '4 GiB'], { env: { ...onDouble, LOMO_CUDA_DRIVER: '/no/libcuda.so.1' } });
    const mebibytes = (extentOf(planned.out) / 2 ** 20).toPrecision(3);
    expect(out).toContain(`arena 6.00 MiB (${mebibytes} MiB in pages) + start-up`);
    expect(out).toMatch(new RegExp(`memory +${mebibytes.replace('.', '\\.')} MiB planned`));
    expect(out).toMatch(/GPU memory as the driver sees it: [\d.]+ MiB = arena .* \+ start-up [\d.]+ MiB; \+0 after step 2$/m);
  });

  test('resume: the bits of a run that was never stopped', async () => {
    const { code, out, err } = await lomo(['resume', path, join(root, 'step-000002'), '--output-dir', join(folder, 'again')], { cwd: folder, env: onDouble });
    expect(err).toBe('');
    expect(code).toBe(0);
    expect(out).not.toContain('warning');
    expect(sha256(folder, 'again/step-000004/model.safetensors')).toBe(sha256(root, 'step-000004/model.safetensors'));
  });

  test('a run goes on on another backend, and says that its bits will be others', async () => {
    const { code, out } = await lomo(['resume', path, join(root, 'step-000002'), '--backend', 'cpu', '--output-dir', join(folder, 'processor')], { cwd: folder, env: onDouble });
    expect(code).toBe(0);
    expect(out.match(/warning: .*/g)).toEqual([expect.stringContaining('made with backend cuda, here cpu; the run goes on, but its bits will not be')]);
    const back = await lomo(['resume', path, join(folder, 'processor/step-000004'), '--max-steps', '4', '--output-dir', join(folder, 'back')], { cwd: folder, env: onDouble });
    expect(back).toMatchObject({ code: 0, err: '' });
    expect(back.out).toContain('made with backend cpu, here cuda');
  });

  test('eval and generate say what the processor says', async () => {
    const [model, data] = [join(root, 'step-000004'), dataFile(6)];
    const loss = async (backend: string): Promise<number> => (JSON.parse((await lomo(['eval', model, '--data', data, '--samples', '0', '--max-seq-length', '8', '--batch-size', '1', '--backend', backend, '--json'], { env: onDouble })).out) as { loss: number }).loss;
    expect(Math.abs((await loss('cuda')) - (await loss('cpu')))).toBeLessThan(1e-4);
    const text = async (backend: string): Promise<string> => (await lomo(['generate', model, '--prompt', 'a d', '--max-new-tokens', '3', '--backend', backend], { env: onDouble })).out;
    expect(await text('cuda')).toBe(await text('cpu'));
  });

  test('doctor measures the GPU, its link, its start-up, and says who holds its memory', async () => {
    const { code, out } = await lomo(['doctor', '--backend', 'cuda', '--json'], { env: { ...onDouble, LOMO_DOUBLE_MEMORY: '1024', LOMO_DOUBLE_HELD: '64', LOMO_DOUBLE_HOLDER: String(process.pid) } });
    expect(code).toBe(0);
    const { gpu } = JSON.parse(out) as { gpu: { usable: boolean; gpus: { name: string }[]; startup: Record<string, number>; rates: Record<string, { perSecond: number }>; steps: Record<string, number[]>; occupancy: { holders: { pid: number; name: string; bytes: number }[] }; memory: { free: number; total: number } } };
    expect(gpu).toMatchObject({ usable: true, gpus: [{ name: 'lomo host double', architecture: 'sm_90' }], driver: { version: '13.0' }, occupancy: { holders: [{ pid: process.pid, bytes: 64 * 2 ** 20 }] } });
    expect(gpu.occupancy.holders[0]!.name).not.toBe('');
    const { context, opening, firstUse, total } = gpu.startup;
    expect(context).toBe(3 * 2 ** 20);
    expect(total).toBe(context! + opening! + firstUse!);
    expect(gpu.memory.total - gpu.memory.free).toBe(64 * 2 ** 20 + context! + opening!);
    for (const rate of ['bf16', 'f32', 'copy', 'toDevice', 'toHost']) expect(gpu.rates[rate]!.perSecond).toBeGreaterThan(1e6);
    for (const [first, second] of Object.values(gpu.steps)) expect(second).toBeLessThan(first!);
  });

  test('without NVML a run says less of its memory, and doctor names what is missing beside cuBLASLt', async () => {
    const { code, out } = await lomo(['doctor', '--backend', 'cuda'], { env: { ...onDouble, LOMO_NVML: '/no/libnvidia-ml.so.1', LOMO_CUBLASLT: '/no/libcublasLt.so.13' } });
    expect(code).toBe(1);
    expect(out).toMatch(/GPU 0 +lomo host double, sm_90/);
    expect(out).toMatch(/no GPU that lomo can use: .*NVML was not found.*libnvidia-compute-580.*and: .*cuBLASLt was not found.*\/no\/libcublasLt\.so\.13.*pip: nvidia-cublas/s);
    const { out: trained } = await lomo(['train', path, '--max-steps', '3', '--output-dir', join(folder, 'unseen')], { cwd: folder, env: { ...onDouble, LOMO_NVML: '/no/libnvidia-ml.so.1' } });
    expect(trained).toMatch(/^ {2}GPU memory as the driver sees it: \+0 after step 2$/m);
  });
});
