// The build's gates, each tried on a kernel that must not pass (native/test/gates.cu), and what the build says where nvcc will not do.
import { execFile, spawnSync } from 'node:child_process';
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { beforeAll, describe, expect, test } from 'vitest';

const folder = fileURLToPath(new URL('..', import.meta.url));
const answer = spawnSync(process.execPath, ['scripts/nvcc.mjs'], { cwd: folder, encoding: 'utf8' });
const nvcc = answer.status === 0 ? answer.stdout.trim() : undefined;

describe.skipIf(nvcc === undefined)('fatbin.mjs (needs nvcc: node scripts/nvcc.mjs install)', () => {
  let status = 0;
  let lines: readonly string[] = [];
  beforeAll(async () => {
    const error = await promisify(execFile)(process.execPath, ['scripts/fatbin.mjs', nvcc ?? '', 'native/test/gates.cu'], { cwd: folder }).then(() => undefined, (thrown: unknown) => thrown as { code: number; stderr: string });
    status = error?.code ?? 0;
    lines = error?.stderr.trim().split('\n') ?? [];
  }, 240_000);
  const about = (kernel: string): readonly string[] => lines.filter((line) => line.includes(`${kernel} `));

  test('fails where any kernel is at fault', () => {
    expect(status).toBe(1);
  });
  test('registers spilled', () => {
    expect(about('gate_spills')).toHaveLength(5);
    expect(about('gate_spills')[0]).toMatch(/gates\.cu: gate_spills on sm_\d+ keeps \d+ bytes on a stack and spills [1-9]\d*/);
  });
  test('a stack frame without a spill', () => {
    expect(about('gate_stack')).toHaveLength(5);
    expect(about('gate_stack')[0]).toMatch(/keeps 64 bytes on a stack and spills 0/);
  });
  test('more registers than the kernel may take', () => {
    expect(about('gate_registers')).toHaveLength(5);
    expect(about('gate_registers')[0]).toMatch(/takes \d+ registers, its budget is 40/);
  });
  test('more shared memory than the kernel may take', () => {
    expect(about('gate_shared')).toHaveLength(5);
    expect(about('gate_shared')[0]).toMatch(/takes 4096 bytes of shared memory, its budget is 1024/);
  });
  test('an architecture without the kernel', () => {
    expect(about('gate_architecture')).toEqual(['gates.cu: gate_architecture has no code for sm_120']);
  });
  test('a kernel that says no budget, with the words to add', () => {
    expect(about('gate_silent')).toHaveLength(1);
    expect(about('gate_silent')[0]).toMatch(/has no budget; end its LOMO_KERNEL line with ' {2}\/\/ \d+ registers, 0 bytes'/);
  });
  test('and nothing against a sound one', () => {
    expect(about('gate_sound')).toEqual([]);
  });
});

describe('where nvcc will not do, the build says what to do next', () => {
  const build = (env: Readonly<Record<string, string>>): { readonly status: number | null; readonly stderr: string } =>
    spawnSync(process.execPath, ['scripts/build.mjs'], { cwd: folder, encoding: 'utf8', env: { PATH: process.env['PATH'], ...env } });
  const scratch = (): string => mkdtempSync(join(tmpdir(), 'lomo-nvcc-'));

  test('none anywhere', () => {
    const home = scratch();
    // The folders of PATH that the build itself needs hold no nvcc on a machine without CUDA; where they do, it is of another major version here.
    const { status, stderr } = build({ XDG_CACHE_HOME: home, CUDA_HOME: home });
    rmSync(home, { recursive: true });
    expect(status).toBe(1);
    expect(stderr).toContain(`CUDA_HOME names ${join(home, 'bin', 'nvcc')}, which is not there; @lomo/cuda needs nvcc of CUDA 13.`);
    expect(stderr).toContain('scripts/nvcc.mjs install brings 13.0 from PyPI');
  });
  test('one of another version, named by CUDACXX', () => {
    const home = scratch(), old = join(home, 'nvcc');
    writeFileSync(old, '#!/bin/sh\necho "Cuda compilation tools, release 12.4, V12.4.131"\n');
    chmodSync(old, 0o755);
    const { status, stderr } = build({ CUDACXX: old });
    rmSync(home, { recursive: true });
    expect(status).toBe(1);
    expect(stderr).toContain(`CUDACXX names ${old}, which is of CUDA 12.4; @lomo/cuda needs nvcc of CUDA 13.`);
  });
  test('one of another version on PATH is passed over and named', () => {
    const home = scratch(), old = join(home, 'nvcc');
    writeFileSync(old, '#!/bin/sh\necho "Cuda compilation tools, release 12.4, V12.4.131"\n');
    chmodSync(old, 0o755);
    const { stdout, stderr, status } = spawnSync(process.execPath, ['scripts/nvcc.mjs'], { cwd: folder, encoding: 'utf8', env: { PATH: home, XDG_CACHE_HOME: home } });
    rmSync(home, { recursive: true });
    // A machine with its own CUDA 13 in /usr/local/cuda answers with that.
    if (status === 0) expect(stdout.trim()).toBe('/usr/local/cuda/bin/nvcc');
    else expect(stderr).toContain(`${old}, from PATH: is of CUDA 12.4`);
  });
});
