// What a user meets where CUDA is not there, or not as it should be: typed errors that say what to do. No process ends.
import { fileURLToPath } from 'node:url';
import { afterEach, expect, test } from 'vitest';
import { isLomoError } from '@lomo/tensor';
import { cuda } from '../src/index.ts';
import type { CudaOptions } from '../src/index.ts';
import { double, onDouble } from './double.ts';

const touched = ['LOMO_DOUBLE_VERSION', 'LOMO_DOUBLE_DEVICES', 'LOMO_DOUBLE_CAPABILITY', 'LOMO_DOUBLE_MEMORY', 'LOMO_DOUBLE_HELD'];
afterEach(() => {
  for (const name of touched) delete process.env[name];
});

function failure(options: CudaOptions): { readonly code: string; readonly message: string } {
  try {
    void cuda({ ...onDouble, ...options });
  } catch (error) {
    if (isLomoError(error)) return error;
    throw error;
  }
  return { code: 'nothing thrown', message: '' };
}

test('no driver: every path tried, with the loader\'s words, and what to look at', () => {
  const { code, message } = failure({ driver: '' });
  // A machine with a driver gets further, and then meets an addon without device code.
  if (code !== 'MissingDeviceCode') {
    expect(code).toBe('MissingDriver');
    expect(message).toMatch(/libcuda\.so\.1: .*cannot open shared object file/);
    expect(message).toMatch(/\/usr\/lib64\/libcuda\.so\.1: /);
    expect(message).toMatch(/nvidia-smi/);
  }
  expect(failure({ driver: '/no/such/libcuda.so' })).toMatchObject({ code: 'MissingDriver', message: expect.stringContaining('/no/such/libcuda.so: ') as string });
});

test('a driver too old, no device, an old GPU, a device that is not there', () => {
  process.env['LOMO_DOUBLE_VERSION'] = '12040';
  expect(failure({})).toMatchObject({ code: 'DriverTooOld', message: expect.stringMatching(/for CUDA 12\.4; .* 13\.0: install the NVIDIA driver 580/) as string });
  delete process.env['LOMO_DOUBLE_VERSION'];
  process.env['LOMO_DOUBLE_DEVICES'] = '0';
  expect(failure({})).toMatchObject({ code: 'NoDevice', message: expect.stringMatching(/CUDA_VISIBLE_DEVICES/) as string });
  process.env['LOMO_DOUBLE_DEVICES'] = '2';
  expect(failure({ device: 2 })).toMatchObject({ code: 'BadOption', message: expect.stringMatching(/device 2 is not one of the 2 GPUs/) as string });
  process.env['LOMO_DOUBLE_CAPABILITY'] = '75';
  expect(failure({})).toMatchObject({ code: 'WrongArchitecture', message: expect.stringMatching(/sm_75; .* sm_80/) as string });
});

test('an addon that was built from older sources', () => {
  // Any other addon stands for it: it loads, and has not what this package asks for.
  const addon = fileURLToPath(new URL('../../cpu/build/Release/lomo_cpu.node', import.meta.url));
  expect(failure({ addon })).toMatchObject({ code: 'StaleAddon', message: expect.stringMatching(/lomo_cpu\.node was built from older sources.*Compile it again: npx lomo-cuda build/) as string });
});

test('cuBLASLt missing, or another library in its place', () => {
  expect(failure({ cublasLt: '/no/libcublasLt.so' })).toMatchObject({ code: 'MissingLibrary', message: expect.stringMatching(/pip install nvidia-cublas[\s\S]*\/no\/libcublasLt\.so: /) as string });
  expect(failure({ cublasLt: '', folders: ['/some/where'] })).toMatchObject({ code: 'MissingLibrary', message: expect.stringContaining('/some/where/libcublasLt.so.13: ') as string });
  expect(failure({ cublasLt: 'libm.so.6' })).toMatchObject({ code: 'WrongLibrary', message: expect.stringMatching(/libm\.so\.6.* has no cublasLtCreate/) as string });
});

test('out of memory, and memory held by somebody else', async () => {
  process.env['LOMO_DOUBLE_MEMORY'] = '64';
  const backend = double();
  const code = (bytes: number): string => {
    try {
      backend.memory('device', bytes).free();
    } catch (error) {
      if (isLomoError(error)) return `${error.code}: ${error.message}`;
      throw error;
    }
    return 'nothing thrown';
  };
  expect(code(80 << 20)).toMatch(/^OutOfMemory: cuda: 83886080 bytes .* asked for on GPU 0 with 0\.00 GiB reserved already; .*lomo plan/);
  process.env['LOMO_DOUBLE_HELD'] = '48';
  expect(code(32 << 20)).toMatch(/^MemoryHeld: .*held by other processes.*nvidia-smi/);
  expect(code(8 << 20)).toBe('nothing thrown');
  expect(code(0)).toMatch(/^BadSize/);
  expect(backend.reserved()).toBe(0);
  await backend[Symbol.asyncDispose]();
});
