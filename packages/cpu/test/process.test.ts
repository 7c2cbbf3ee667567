// The end of a process: with work queued, with a read pending, by exit, by exception, in a worker; it neither hangs nor aborts.
import { spawn } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { build } from 'tsup';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { packageFolder } from '../src/native.ts';

let folder = '';
beforeAll(async () => {
  folder = await mkdtemp(join(packageFolder, 'build', 'process-'));
  // A child process runs plain JavaScript: the package as one file.
  await build({
    entry: { backend: join(packageFolder, 'src/index.ts') },
    outDir: folder,
    format: ['esm'],
    config: false,
    silent: true,
    noExternal: [/@lomo\//],
    esbuildOptions: (options) => {
      options.conditions = ['@lomo/source'];
    },
  });
});
afterAll(() => rm(folder, { recursive: true }));

interface End {
  readonly code: number | null;
  readonly signal: string | null;
  readonly output: string;
  readonly seconds: number;
}

const prelude = `
import { writeSync } from 'node:fs';
import { cpu } from './backend.js';
const backend = cpu({ threads: 2, addon: ${JSON.stringify(join(packageFolder, 'build/Release/lomo_cpu.node'))} });
const memory = backend.memory('device', 64 << 20);
const a = { memory, offset: 0, shape: [1024, 1024], dtype: 'f32' };
const c = { memory, offset: 8 << 20, shape: [1024, 1024], dtype: 'f32' };
const kernel = backend.kernel('matmul', { ins: ['f32', 'f32'], inouts: [], outs: ['f32'] });
const operands = { ins: [a, a], inouts: [], outs: [c], workspace: null };
const bytes = backend.workspace(kernel, operands, [0, 1, 1]);
const workspace = bytes === 0 ? null : { memory, offset: 32 << 20, shape: [bytes], dtype: 'u8' };
const work = (n) => { for (let i = 0; i < n; i++) backend.launch(kernel, { ...operands, workspace }, [0, 1, 1], 'compute'); };
const say = (text) => writeSync(1, text);
`;

async function run(body: string): Promise<End> {
  const file = join(folder, `child${Math.random().toString(36).slice(2)}.mjs`);
  await writeFile(file, prelude + body);
  const start = performance.now();
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [file], { stdio: ['ignore', 'pipe', 'pipe'], timeout: 30_000 });
    let output = '';
    child.stdout.on('data', (chunk: Buffer) => (output += chunk.toString()));
    child.stderr.on('data', (chunk: Buffer) => (output += chunk.toString()));
    child.on('error', reject);
    child.on('close', (code, signal) => resolve({ code, signal, output, seconds: (performance.now() - start) / 1000 }));
  });
}

test('an idle backend does not keep the process alive', async () => {
  expect(await run(`work(1); await backend.read(c); say('done');`)).toMatchObject({ code: 0, signal: null, output: 'done' });
});

test('a pending read does, and is answered', async () => {
  expect(await run(`work(3); backend.read({ ...c, shape: [4] }).then((b) => say(String(b.byteLength)));`)).toMatchObject({ code: 0, signal: null, output: '16' });
});

test('the process ends at once while hundreds of kernels are queued', async () => {
  expect(await run(`work(20000);`)).toMatchObject({ code: 0, signal: null, output: '' });
});

test('process.exit with a pending read', async () => {
  expect(await run(`work(20000); backend.read(c); setTimeout(() => process.exit(7), 50);`)).toMatchObject({ code: 7, signal: null, output: '' });
});

test('an exception with work queued', async () => {
  const end = await run(`work(20000); backend.read(c); throw new Error('on purpose');`);
  expect(end).toMatchObject({ code: 1, signal: null });
  expect(end.output).toMatch(/on purpose/);
});

test('dispose with work queued, then the end', async () => {
  expect(await run(`work(5); const r = backend.read({ ...c, shape: [1] }); await backend[Symbol.asyncDispose](); await r; say('closed');`)).toMatchObject({ code: 0, signal: null, output: 'closed' });
});

test('a worker thread ended with work queued takes nothing down', async () => {
  const body = `
import { isMainThread, parentPort, Worker } from 'node:worker_threads';
if (isMainThread) {
  const worker = new Worker(new URL(import.meta.url));
  worker.on('message', async () => { await worker.terminate(); work(1); await backend.read(c); say('alive'); });
} else {
  work(20000);
  backend.read(c);
  parentPort.postMessage('busy');
}`;
  expect(await run(body)).toMatchObject({ code: 0, signal: null, output: 'alive' });
});
