// One .cu file to one fatbin with code for every architecture, cached outside the clone by what goes into it. Fails on register spills, on
// stack frames, where a kernel takes more than its line in the file says, and where one lacks an architecture.
import { execFile, execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { copyFileSync, existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { cacheFolder, findNvcc } from './nvcc.mjs';

// Each real architecture with the virtual one it is compiled through: no kernel uses what 8.6 or 8.9 have beyond 8.0, and one front-end
// run for the three saves a quarter of a cold build.
const through = { sm_80: 'compute_80', sm_86: 'compute_80', sm_89: 'compute_80', sm_90: 'compute_90', sm_120: 'compute_120' };
/** Real architectures, and the virtual one whose PTX newer GPUs compile for themselves. */
export const architectures = Object.keys(through);
export const ptx = 'compute_90';

const native = join(dirname(fileURLToPath(import.meta.url)), '..', 'native');
const flags = ['-std=c++20', '-O3', '-fmad=false', '-DLOMO_DEVICE', '-Xptxas=-v,-warn-spills', '--expt-relaxed-constexpr', `-I${native}`];
const targets = [...Object.entries(through).map(([sm, virtual]) => `-gencode=arch=${virtual},code=${sm}`), `-gencode=arch=${ptx},code=${ptx}`];

/** The file and every header of ours that it includes, however deep. */
function sources(file) {
  const found = new Set([file]);
  for (const one of found) {
    for (const [, name] of readFileSync(one, 'utf8').matchAll(/^#include "(gpu\/[^"]+)"/gm)) found.add(join(native, name));
  }
  return [file, ...[...found].slice(1).toSorted((a, b) => (a < b ? -1 : 1))];
}

const declaration = /^LOMO_KERNEL\((\w+),.*?\)(?:\s*\/\/(.*))?$/gm;
const budget = /^ (\d+) registers, ([\d,]+) bytes$/;

/**
 * What a file's kernels may take, from the comment that ends each LOMO_KERNEL line: registers a thread, static shared bytes a block.
 * Kernel name to `{ registers, shared }`, or to null where the line says nothing.
 */
export function budgetsOf(text) {
  const budgets = new Map();
  for (const [, name, comment] of text.matchAll(declaration)) {
    const found = budget.exec(comment ?? '');
    budgets.set(name, found === null ? null : { registers: Number(found[1]), shared: Number(found[2].replaceAll(',', '')) });
  }
  return budgets;
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

/** The most a kernel takes on any architecture, as its line should say it: registers are lent by eights, 255 at most. */
function needed(kernels, name) {
  const own = kernels.filter((k) => k.name === name);
  return `${Math.min(255, Math.ceil(Math.max(...own.map((k) => k.registers)) / 8) * 8)} registers, ${Math.max(...own.map((k) => k.shared)).toLocaleString('en-US')} bytes`;
}

/** What is wrong with a file's compiled kernels: one sentence each, none where all is well. `text` is the file, `name` what to call it. */
export function faultsOf(kernels, text, name) {
  const wrong = [];
  const budgets = budgetsOf(text);
  for (const k of kernels) {
    const at = `${name}: ${k.name} on ${k.architecture}`;
    const allowed = budgets.get(k.name);
    if (allowed && k.registers > allowed.registers) wrong.push(`${at} takes ${k.registers} registers, its budget is ${allowed.registers}`);
    if (allowed && k.shared > allowed.shared) wrong.push(`${at} takes ${k.shared} bytes of shared memory, its budget is ${allowed.shared}`);
    if (k.stack > 0 || k.spilled > 0) wrong.push(`${at} keeps ${k.stack} bytes on a stack and spills ${k.spilled}`);
  }
  for (const kernel of new Set([...budgets.keys(), ...kernels.map((k) => k.name)])) {
    const has = kernels.filter((k) => k.name === kernel).map((k) => k.architecture);
    const lacks = architectures.filter((sm) => !has.includes(sm));
    if (lacks.length > 0) wrong.push(`${name}: ${kernel} has no code for ${lacks.join(', ')}`);
    if (!budgets.has(kernel)) wrong.push(`${name}: ${kernel} stands on no LOMO_KERNEL line of its own, so nothing says what it may take`);
    else if (budgets.get(kernel) === null) wrong.push(`${name}: ${kernel} has no budget; end its LOMO_KERNEL line with '  // ${has.length === 0 ? 'N registers, N bytes' : needed(kernels, kernel)}' (node scripts/fatbin.mjs --budgets FILE does)`);
  }
  return wrong;
}

// Budgets, and comments that have a line to themselves.
function withoutComments(text) {
  return text.replaceAll(declaration, (line) => line.replace(/\s*\/\/.*$/, '')).replaceAll(/^[ \t]*\/\/.*\n/gm, '');
}

/** The file with a budget at the end of every LOMO_KERNEL line that has none: what its kernel takes now. */
export function withBudgets(text, kernels) {
  return text.replaceAll(declaration, (line, name, comment) => (comment !== undefined || !kernels.some((k) => k.name === name) ? line : `${line}  // ${needed(kernels, name)}`));
}

const versionOf = (nvcc) => execFileSync(nvcc, ['--version'], { encoding: 'utf8' });

/** Compiles `file` with `nvcc`, or finds it compiled: `{ fatbin, kernels }`, the path in the cache and the kernels as ptxas reports them. */
export async function compiled(nvcc, file) {
  const version = versionOf(nvcc);
  // Where the clone lies is no part of it, nor are comments, budgets among them: a new one compiles nothing again.
  const hash = createHash('sha256').update(JSON.stringify([version, flags.slice(0, -1), targets, basename(file)]));
  for (const source of sources(file)) hash.update(`\0${basename(source)}\0`).update(withoutComments(readFileSync(source, 'utf8')));
  const cached = join(cacheFolder(), 'fatbin', `${basename(file, '.cu')}-${hash.digest('hex').slice(0, 32)}`);
  if (!existsSync(`${cached}.json`)) {
    mkdirSync(dirname(cached), { recursive: true });
    const partial = `${cached}.${process.pid}`;
    const { stdout, stderr } = await promisify(execFile)(nvcc, ['-fatbin', ...targets, ...flags, file, '-o', partial], { maxBuffer: 1 << 28 });
    renameSync(partial, `${cached}.fatbin`);
    writeFileSync(`${partial}.json`, JSON.stringify(kernelsOf(stdout + stderr)));
    renameSync(`${partial}.json`, `${cached}.json`);
  }
  return { fatbin: `${cached}.fatbin`, kernels: JSON.parse(readFileSync(`${cached}.json`, 'utf8')) };
}

/**
 * Compiles `file` to `out`, if given, and returns its kernels. Throws with every fault, having written nothing. Budgets are what nvcc 13.0
 * gave: another release of CUDA 13 may take a register more, and then the fault is only printed.
 */
export async function compile(nvcc, file, out) {
  const { fatbin, kernels } = await compiled(nvcc, file);
  const wrong = faultsOf(kernels, readFileSync(file, 'utf8'), basename(file));
  if (wrong.length > 0) {
    if (/release 13\.0,/.test(versionOf(nvcc))) throw new Error(wrong.join('\n'));
    process.stderr.write(`${wrong.join('\n')}\n`);
  }
  if (out !== undefined) {
    mkdirSync(dirname(out), { recursive: true });
    copyFileSync(fatbin, out);
  }
  return kernels;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const given = process.argv.slice(2), writes = given[0] === '--budgets';
  try {
    if (writes) {
      for (const file of given.slice(1)) writeFileSync(file, withBudgets(readFileSync(file, 'utf8'), (await compiled(findNvcc(), file)).kernels));
    } else {
      const [nvcc, file, out] = given;
      const kernels = await compile(nvcc, file, out);
      if (out === undefined) for (const k of kernels) process.stdout.write(`${k.architecture} ${k.name}: ${k.registers} registers, ${k.shared} bytes shared, ${k.stack} stack, ${k.spilled} spilled\n`);
    }
  } catch (error) {
    process.stderr.write(`${error.stderr ?? ''}${error.message}\n`);
    process.exitCode = 1;
  }
}
