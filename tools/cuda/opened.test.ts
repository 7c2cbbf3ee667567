// Who has no GPU meets nothing of CUDA: the shared libraries that `lomo` has open at the end of its commands on the cpu, as the process
// itself reports them.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { beforeAll, expect, test } from 'vitest';
import { cli, runFile } from '../tiny/command.ts';

const root = join(import.meta.dirname, '../..');
const preload = pathToFileURL(join(import.meta.dirname, 'opened.mjs')).href;
/** NVIDIA's libraries and this project's addon for them. */
const ofNvidia = /\/lib(?:cuda|cudart|cublas|cublasLt|nccl|nvrtc|nvJitLink|nvidia-ml|nvToolsExt|cudadebugger)\b|\/nvidia\//i;
const ofCuda = (path: string): boolean => ofNvidia.test(path) || path.endsWith('lomo_cuda.node');

/** Libraries open at the end of `node args`, of all Node processes it started too. Throws where it fails. */
function openedBy(args: readonly string[], cwd = root): readonly string[] {
  const folder = mkdtempSync(join(import.meta.dirname, 'scratch-'));
  try {
    const file = join(folder, 'opened');
    const { status, stdout, stderr } = spawnSync(process.execPath, args, { cwd, encoding: 'utf8', env: { ...process.env, NODE_OPTIONS: `--import=${preload}`, LOMO_OPENED_FILE: file } });
    if (status !== 0) throw new Error(`node ${args.join(' ')} ended with ${status}\n${stdout}${stderr}`);
    return [...new Set(readFileSync(file, 'utf8').trim().split('\n'))];
  } finally {
    rmSync(folder, { recursive: true });
  }
}

const run = runFile({ max_steps: 2, output_dir: 'out' });
beforeAll(() => {
  if (!existsSync(cli)) throw new Error(`${cli} is not there: build first (pnpm turbo run build --filter=lomo...)`);
  return () => rmSync(run.folder, { recursive: true });
});

test.each(['train', 'plan'])('lomo %s on the cpu opens nothing of CUDA', (command) => {
  const opened = openedBy([cli, command, run.path], run.folder);
  expect(opened.filter((path) => path.endsWith('lomo_cpu.node')), 'its own addon is seen').toHaveLength(1);
  expect(opened.filter(ofCuda)).toEqual([]);
});

test('so does importing the package for GPUs, which opens its addon only when it is asked something', () => {
  expect(openedBy([join(root, 'packages', 'cuda', 'dist', 'index.js')]).filter(ofCuda)).toEqual([]);
});

// `lomo doctor` looks whether there is a GPU, with the addon where that is built; without a driver nothing of NVIDIA's comes of it.
test.skipIf(['/dev/nvidiactl', '/dev/dxg'].some(existsSync))('lomo doctor opens nothing of NVIDIA where there is no driver (this machine has one)', () => {
  expect(openedBy([cli, 'doctor']).filter((path) => ofNvidia.test(path))).toEqual([]);
});

const double = join(root, 'packages', 'cuda', 'build', 'double', 'Release');
test.skipIf(!existsSync(double))('the test sees what it looks for: a process that opens the addon (needs the double: pnpm --filter @lomo/cuda test:double)', () => {
  const opened = openedBy(['--input-type=module', '--eval', `process.dlopen({ exports: {} }, ${JSON.stringify(join(double, 'lomo_cuda.node'))});`]);
  expect(opened.filter(ofCuda)).toEqual([join(double, 'lomo_cuda.node')]);
});
