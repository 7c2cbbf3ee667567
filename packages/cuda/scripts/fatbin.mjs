// One .cu file to one fatbin with code for every architecture, cached outside the clone by what goes into it. Fails on register spills,
// on stack frames, and where a kernel takes more than the file's `// Budget:` line says.
import { execFile, execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { copyFileSync, existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { cacheFolder } from './nvcc.mjs';

/** Real architectures, and the virtual one whose PTX newer GPUs compile for themselves. */
export const architectures = ['sm_80', 'sm_86', 'sm_89', 'sm_90', 'sm_120'];
export const ptx = 'compute_90';

const native = join(dirname(fileURLToPath(import.meta.url)), '..', 'native');
const flags = ['-std=c++20', '-O3', '-fmad=false', '-DLOMO_DEVICE', '-Xptxas=-v,-warn-spills', '--expt-relaxed-constexpr', `-I${native}`];

/** The file and every header of ours that it includes, however deep. */
function sources(file) {
  const found = new Set([file]);
  for (const one of found) {
    for (const [, name] of readFileSync(one, 'utf8').matchAll(/^#include "(gpu\/[^"]+)"/gm)) found.add(join(native, name));
  }
  return [file, ...[...found].slice(1).toSorted((a, b) => (a < b ? -1 : 1))];
}

/** What a file allows its kernels: registers a thread, static shared bytes a block. Throws where it does not say. */
export function budgetOf(text, file) {
  const found = /^\/\/ Budget: (\d+) registers, ([\d,]+) bytes of shared memory/m.exec(text);
  if (found === null) throw new Error(`${file}: no line '// Budget: N registers, N bytes of shared memory.'`);
  return { registers: Number(found[1]), shared: Number(found[2].replaceAll(',', '')) };
}

/** Kernels of ptxas's report: name, architecture, registers, static shared bytes, stack and spilled bytes. */
export function kernelsOf(report) {
  const kernels = [];
  for (const line of report.split('\n')) {
    const entry = /Compiling entry function '(\w+)' for '(\w+)'/.exec(line);
    if (entry !== null) kernels.push({ name: entry[1], architecture: entry[2], registers: 0, shared: 0, stack: 0, spilled: 0 });
    const last = kernels.at(-1);
    if (last === undefined) continue;
    const stack = /(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads/.exec(line);
    if (stack !== null) [last.stack, last.spilled] = [Number(stack[1]), Number(stack[2]) + Number(stack[3])];
    const used = /Used (\d+) registers/.exec(line);
    if (used !== null) last.registers = Number(used[1]);
    const shared = /(\d+) bytes smem/.exec(line);
    if (shared !== null) last.shared = Number(shared[1]);
  }
  return kernels;
}

/** Compiles `file` with `nvcc` to `out`; returns its kernels as ptxas reports them. */
export async function compile(nvcc, file, out) {
  const version = execFileSync(nvcc, ['--version'], { encoding: 'utf8' });
  const targets = [...architectures.map((sm) => `-gencode=arch=${sm.replace('sm', 'compute')},code=${sm}`), `-gencode=arch=${ptx},code=${ptx}`];
  // Where the clone lies is no part of it.
  const hash = createHash('sha256').update(JSON.stringify([version, flags.slice(0, -1), targets, basename(file)]));
  for (const source of sources(file)) hash.update(`\0${basename(source)}\0`).update(readFileSync(source));
  const cached = join(cacheFolder(), 'fatbin', `${basename(file, '.cu')}-${hash.digest('hex').slice(0, 32)}`);
  if (!existsSync(`${cached}.json`)) {
    mkdirSync(dirname(cached), { recursive: true });
    const partial = `${cached}.${process.pid}`;
    const { stdout, stderr } = await promisify(execFile)(nvcc, ['-fatbin', ...targets, ...flags, file, '-o', partial], { maxBuffer: 1 << 28 });
    const report = stdout + stderr;
    const kernels = kernelsOf(report);
    renameSync(partial, `${cached}.fatbin`);
    writeFileSync(`${partial}.json`, JSON.stringify(kernels));
    renameSync(`${partial}.json`, `${cached}.json`);
  }
  const kernels = JSON.parse(readFileSync(`${cached}.json`, 'utf8'));
  const budget = budgetOf(readFileSync(file, 'utf8'), file);
  const wrong = [];
  for (const k of kernels) {
    const name = `${basename(file)}: ${k.name} on ${k.architecture}`;
    if (k.registers > budget.registers) wrong.push(`${name} takes ${k.registers} registers, the budget is ${budget.registers}`);
    if (k.shared > budget.shared) wrong.push(`${name} takes ${k.shared} bytes of shared memory, the budget is ${budget.shared}`);
    if (k.stack > 0 || k.spilled > 0) wrong.push(`${name} keeps ${k.stack} bytes on a stack and spills ${k.spilled}`);
  }
  for (const name of new Set(kernels.map((k) => k.name))) {
    const has = kernels.filter((k) => k.name === name).map((k) => k.architecture);
    for (const sm of architectures) if (!has.includes(sm)) wrong.push(`${basename(file)}: ${name} has no code for ${sm}`);
  }
  if (wrong.length > 0) throw new Error(wrong.join('\n'));
  if (out !== undefined) {
    mkdirSync(dirname(out), { recursive: true });
    copyFileSync(`${cached}.fatbin`, out);
  }
  return kernels;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [nvcc, file, out] = process.argv.slice(2);
  try {
    const kernels = await compile(nvcc, file, out);
    if (out === undefined) for (const k of kernels) process.stdout.write(`${k.architecture} ${k.name}: ${k.registers} registers, ${k.shared} bytes shared, ${k.stack} stack, ${k.spilled} spilled\n`);
  } catch (error) {
    process.stderr.write(`${error.stderr ?? ''}${error.message}\n`);
    process.exitCode = 1;
  }
}
