// The check of machine code, tried on kernels that must not pass: packages/cuda/native/test/gates.cu. The built kernels themselves are
// checked by `node tools/cuda/sass.mjs`, a phase of `npm test`.
import { join } from 'node:path';
import { beforeAll, describe, expect, test } from 'vitest';
import { compiled } from '../../packages/cuda/scripts/fatbin.mjs';
import { findNvcc } from '../../packages/cuda/scripts/nvcc.mjs';
import { attention, findCuobjdump, kernelsIn, onTensorCores, reportOf, sassFaults } from './sass.mjs';

const nvccHere = (): string | null => {
  try {
    return findNvcc();
  } catch {
    return null;
  }
};
const nvcc = nvccHere(), cuobjdump = findCuobjdump();

describe.skipIf(nvcc === null || cuobjdump === null)('machine code (needs nvcc and cuobjdump: npm test installs them)', () => {
  let kernels: Awaited<ReturnType<typeof kernelsIn>> = [];
  beforeAll(async () => {
    const { fatbin } = await compiled(nvcc ?? '', join(import.meta.dirname, '../../packages/cuda/native/test/gates.cu'));
    kernels = await kernelsIn(cuobjdump ?? '', fatbin);
  });
  const about = (name: string): readonly string[] => sassFaults(kernels).filter((line: string) => line.includes(` ${name} `) || line.startsWith(`${name} `));

  test('a kernel of attention without tensor cores is found on every architecture', () => {
    expect(about('attention_64_bf16')).toHaveLength(5);
    expect(about('attention_64_bf16')[0]).toMatch(/attention_64_bf16 on sm_\d+ has no HMMA/);
  });
  test('so are loads and stores of local memory', () => {
    expect(about('gate_stack').some((line) => /loads from local memory [1-9]\d* times and stores [1-9]\d* times/.test(line))).toBe(true);
    expect(about('gate_spills').filter((line) => line.includes('from local memory'))).toHaveLength(5);
  });
  test('and a missing architecture, and a missing kernel', () => {
    expect(about('gate_architecture')).toEqual(['gate_architecture has no code for sm_120']);
    expect(sassFaults([], attention)).toHaveLength(9);
  });
  test('nothing is said against a sound kernel', () => {
    expect(about('gate_sound')).toEqual([]);
    expect(kernels.filter((one) => one.name === 'gate_sound').map((one) => one.architecture).toSorted((a, b) => a.localeCompare(b))).toEqual(['sm_120', 'sm_80', 'sm_86', 'sm_89', 'sm_90']);
    expect(reportOf(kernels)).toMatch(/^gate_sound +\d+ \/ \d+/m);
  });
});

test('attention in 16 bit is meant, f32 and the sums before backward are not', () => {
  expect(attention.every((name) => onTensorCores.test(name))).toBe(true);
  expect(['attention_64_f16', 'attention_dq_128_f16'].every((name) => onTensorCores.test(name))).toBe(true);
  expect(['attention_64_f32', 'attention_delta_bf16'].some((name) => onTensorCores.test(name))).toBe(false);
});
