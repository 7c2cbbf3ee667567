// What a person meets where CUDA, the GPU or its memory is not as a run needs it, through the built command on the host double: sentences
// that name the next step, an exit code, no aborted process, the last checkpoint whole. Skipped where the double is not built.
import { createHash } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test, vi } from 'vitest';
import { lomo, runFile } from '../../../tools/tiny/command.ts';
import { modelFolder } from '../../../tools/tiny/folder.ts';
import { isDoubleBuilt, onDouble } from './double.ts';

vi.setConfig({ testTimeout: 300_000 });

const mebibyte = 2 ** 20;

describe.skipIf(!isDoubleBuilt)('before anything is started', () => {
  test.each<[string, Record<string, string>, RegExp]>([
    ['no driver', { LOMO_CUDA_DRIVER: '/no/libcuda.so.1' }, /the CUDA driver was not found.*driver \(580 or newer\).*Tried:\n {2}\/no\/libcuda\.so\.1: /s],
    ['a driver too old', { LOMO_DOUBLE_VERSION: '12040' }, /is for CUDA 12\.4; lomo's kernels need 13\.0: install the NVIDIA driver 580 or newer/],
    ['no GPU', { LOMO_DOUBLE_DEVICES: '0' }, /the driver sees no GPU.*CUDA_VISIBLE_DEVICES.*nvidia-smi -L/],
    ['an old GPU', { LOMO_DOUBLE_CAPABILITY: '75' }, /is sm_75; lomo's kernels need sm_80/],
    ['a GPU that the kernels were not compiled for', { LOMO_DOUBLE_NO_CODE: '1' }, /has no code for .*: build @lomo\/cuda with this GPU's architecture/],
    ['no cuBLASLt', { LOMO_CUBLASLT: '/no/libcublasLt.so.13' }, /cuBLASLt was not found.*pip install nvidia-cublas.*\/no\/libcublasLt\.so\.13: /s],
    ['no addon', { LOMO_CUDA_ADDON: '/no/lomo_cuda.node' }, /@lomo\/cuda has no native addon.*Compile it: .*\/no\/lomo_cuda\.node: /s],
  ])('%s', async (_, env, message) => {
    const { folder, path } = runFile({ backend: 'cuda' });
    const { code, signal, err } = await lomo(['train', path], { cwd: folder, env: { ...onDouble, ...env } });
    expect({ code, signal }).toEqual({ code: 1, signal: null });
    expect(err).toMatch(message);
    expect(existsSync(join(folder, 'runs'))).toBe(false);
  });

  test('a GPU that is not there', async () => {
    const { err, code } = await lomo(['train', runFile({ backend: 'cuda' }).path, '--gpu', '3'], { env: onDouble });
    expect(code).toBe(1);
    expect(err).toMatch(/device 3 is not one of the 1 GPUs that the driver sees/);
    const processor = await lomo(['train', runFile().path, '--gpu', '0']);
    expect(processor.code).toBe(1);
    expect(processor.err).toMatch(/gpu: 0 names a GPU, and the backend is cpu: give backend: cuda/);
  });

  test('the package is not installed', async () => {
    const without = `export const resolve = (name, context, next) => { if (name === '@lomo/cuda') throw Object.assign(new Error("Cannot find package '@lomo/cuda' imported from here"), { code: 'ERR_MODULE_NOT_FOUND' }); return next(name, context); };`;
    const hook = `data:text/javascript,${encodeURIComponent(`import { register } from 'node:module'; register(${JSON.stringify(`data:text/javascript,${encodeURIComponent(without)}`)});`)}`;
    const { err, code } = await lomo(['train', runFile({ backend: 'cuda' }).path], { node: ['--import', hook] });
    expect(code).toBe(1);
    expect(err).toMatch(/backend: cuda needs the package @lomo\/cuda, which is not installed here: npm install @lomo\/cuda; or train on the processor with --backend cpu/);
    expect((await lomo(['doctor', '--backend', 'cpu'], { node: ['--import', hook] })).out).toMatch(/no GPU that lomo can use: .*npm: @lomo\/cuda/s);
  });

  test('doctor without a driver: one paragraph, every path tried, what brings it; the processor is enough for exit code 0', async () => {
    const env = { ...onDouble, LOMO_CUDA_DRIVER: '' };
    const { code, out } = await lomo(['doctor'], { env });
    expect(code).toBe(0);
    // A machine with a driver gets further.
    if (!out.includes('kernels for a GPU')) expect(out).toMatch(/no GPU that lomo can use: cuda: the CUDA driver was not found.*libcuda\.so\.1: .*what brings it: apt: nvidia-driver-580.*The processor's backend needs none of this\./s);
    expect((await lomo(['doctor', '--backend', 'cuda', '--json'], { env })).code).toBe(1);
  });
});

describe.skipIf(!isDoubleBuilt)('memory', () => {
  // Large enough that kept activations make a difference of mebibytes; nothing of it is run.
  const settings = { backend: 'cuda', model_name_or_path: modelFolder({ hidden_size: 64, intermediate_size: 160, num_hidden_layers: 4, max_position_embeddings: 128 }), max_seq_length: 128, per_device_train_batch_size: 8, gradient_checkpointing: false };
  const needed = async (path: string): Promise<number> => (JSON.parse((await lomo(['plan', path, '--device', '24 GiB', '--json'], { env: onDouble })).out) as { optimizers: { extent: number }[] }).optimizers[0]!.extent;
  /** MiB of a GPU on which `free` are left for a run. */
  const gpu = (free: number): number => free + 3 + 2 + 256;

  test('out of device memory by the plan: categories, what asks at the peak and where, each smaller setting with its saving', async () => {
    const { folder, path } = runFile(settings);
    const extent = await needed(path);
    const memory = gpu(Math.floor(extent / mebibyte));
    const { code, err } = await lomo(['train', path], { cwd: folder, env: { ...onDouble, LOMO_DOUBLE_MEMORY: String(memory) } });
    expect(code).toBe(1);
    expect(err).toMatch(/the run needs [\d.]+ MiB, [\d.]+ MiB are free; nothing has been started\n {2}saved +[\d.]+ MiB\n/);
    expect(err).toMatch(/\n {2}most when .* asks for [\d.]+ [KM]iB of \w+, in step, pass update, \w+ of .*\n/);
    expect(err).toMatch(/what fits:\n {2}gradient_checkpointing: true: [\d.]+ [KM]iB, [\d.]+ x the time, saves [\d.]+ MiB/);
    // The same GPU, but others hold what is missing: they are named.
    const held = await lomo(['train', path], { cwd: folder, env: { ...onDouble, LOMO_DOUBLE_MEMORY: String(memory + 100), LOMO_DOUBLE_HELD: '100', LOMO_DOUBLE_HOLDER: String(process.pid) } });
    expect(held.code).toBe(1);
    expect(held.err).toMatch(new RegExp(`of the GPU's memory 100 MiB were taken before, by \\S.* \\(pid ${process.pid}\\) 0\\.10 GiB: end them, wait for them, or choose another GPU with --gpu`));
    expect(existsSync(join(folder, 'runs'))).toBe(false);
  });

  test('refused by the driver although the plan fits: the same, and nothing is left behind', async () => {
    const { folder, path } = runFile(settings);
    const env = { ...onDouble, LOMO_DOUBLE_REFUSE: '1' };
    const { code, err } = await lomo(['train', path], { cwd: folder, env });
    expect(code).toBe(1);
    expect(err).toMatch(/asked for on GPU 0 with 0\.00 GiB reserved already; .* are free, and refused all the same: .*\nnothing has been started; it was for\n {2}saved +[\d.]+ MiB\n/);
    expect(err).toMatch(/\n {2}most when .*\nwhat needs less:\n(?: {2}.*\n)*? {2}gradient_checkpointing: true: saves [\d.]+ MiB, then needs [\d.]+ [KM]iB, [\d.]+ x the time/);
    expect(existsSync(join(folder, 'runs'))).toBe(false);
  });
});

describe.skipIf(!isDoubleBuilt)('a device error that does not go away', () => {
  const small = { backend: 'cuda', max_seq_length: 8, per_device_train_batch_size: 1, max_steps: 4, save_steps: 2, save_total_limit: 9 };
  const { folder, path } = runFile(small);
  const model = join(folder, 'runs/run/step-000004/model.safetensors');

  test('in step 3: what is safe, the command that goes on, exit code 75; it ends in the bits of a run that met none', async () => {
    const { code, signal, err } = await lomo(['train', path], { cwd: folder, env: { ...onDouble, LOMO_DOUBLE_FAIL: 'cross_entropy_f32:3' } });
    expect({ code, signal }).toEqual({ code: 75, signal: null });
    expect(err).toMatch(/lomo: step 3: .*work enqueued earlier failed on the GPU, and nothing more runs in this process/);
    expect(err).toContain('\n  the last checkpoint is whole: runs/run/step-000002\n');
    expect(err).toContain(`\n  next, in a new process: lomo train ${path} (goes on from there)\n`);
    expect(err).toContain('LOMO_CUDA_SYNC=1');
    const again = await lomo(['train', path], { cwd: folder, env: onDouble });
    expect(again).toMatchObject({ code: 0, err: '' });
    expect(again.out).toContain('resuming from runs/run/step-000002');
    const digest = (file: string): string => createHash('sha256').update(readFileSync(file)).digest('hex');
    const whole = await lomo(['train', path, '--output-dir', join(folder, 'whole')], { cwd: folder, env: onDouble });
    expect(whole).toMatchObject({ code: 0, err: '' });
    expect(digest(model)).toBe(digest(join(folder, 'whole/step-000004/model.safetensors')));
  });

  test('while every launch is waited for: the kernel by name and shapes', async () => {
    const { code, err } = await lomo(['train', path, '--output-dir', join(folder, 'sync')], { cwd: folder, env: { ...onDouble, LOMO_CUDA_SYNC: '1', LOMO_DOUBLE_FAIL: 'cross_entropy_f32' } });
    expect(code).toBe(75);
    expect(err).toMatch(/lomo: step 1: cross_entropy: .*\(operands i32\[64\], .*f32\[64, 32\]/);
    expect(err).toContain('nothing had been saved yet');
  });
});
