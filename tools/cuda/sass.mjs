// What the compiled kernels are made of: registers, shared memory, tensor-core and local-memory instructions of every kernel on every
// architecture, read from the fatbins by cuobjdump. `node tools/cuda/sass.mjs [FATBIN...]` prints it for those that were built, and fails
// where attention misses the tensor cores or a kernel touches local memory; products are cuBLASLt's: nothing of them is here. With `install`
// it only brings cuobjdump.
import { execFileSync, spawn } from 'node:child_process';
import { existsSync, readdirSync, statSync } from 'node:fs';
import { basename, delimiter, join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { architectures } from '../../packages/cuda/scripts/fatbin.mjs';
import { installPackages, programFolders } from '../../packages/cuda/scripts/nvcc.mjs';

/** The disassembler as PyPI packages: there is none of 13.0, and this one reads 13.0's code. */
export const packages = ['nvidia-cuda-cuobjdump==13.2.51', 'nvidia-cuda-nvdisasm==13.2.51'];
const environment = 'cuobjdump-13.2.51';
const built = fileURLToPath(new URL('../../packages/cuda/build/fatbin', import.meta.url));

/** Path of cuobjdump, in the cache folder, or null. */
export function findCuobjdump(env = process.env) {
  return programFolders(environment, env).map((folder) => join(folder, 'cuobjdump')).find((path) => existsSync(path)) ?? null;
}

/** The same, installed where it is not there yet; about 30 MB. */
export function ensureCuobjdump(env = process.env) {
  if (findCuobjdump(env) === null) installPackages(environment, packages, env);
  const path = findCuobjdump(env);
  if (path === null) throw new Error(`pip installed ${packages[0]}, but no cuobjdump is there`);
  return path;
}

/** The fatbins that the build embeds in the addon. Throws where there are none. */
export function builtFatbins() {
  const found = existsSync(built) ? readdirSync(built).filter((name) => name.endsWith('.fatbin')).sort() : [];
  if (found.length === 0) throw new Error(`no fatbins in ${built}: pnpm --filter @lomo/cuda build:native makes them`);
  return found.map((name) => join(built, name));
}

function resources(cuobjdump, fatbin) {
  const found = new Map();
  let architecture = '', name = '';
  for (const line of execFileSync(cuobjdump, ['-res-usage', fatbin], { encoding: 'utf8', maxBuffer: 1 << 26 }).split('\n')) {
    architecture = /^arch = (\w+)/.exec(line)?.[1] ?? architecture;
    name = /^ Function (\w+):/.exec(line)?.[1] ?? name;
    const used = /REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)/.exec(line);
    if (used !== null) found.set(`${architecture} ${name}`, { registers: Number(used[1]), stack: Number(used[2]), shared: Number(used[3]), local: Number(used[4]) });
  }
  return found;
}

/**
 * Every kernel of a fatbin on every architecture that it has code for: `{ file, name, architecture, registers, shared, stack, local,
 * instructions, hmma, localLoads, localStores }`; stack and local are bytes a thread, the last four count instructions.
 */
export async function kernelsIn(cuobjdump, fatbin) {
  const used = resources(cuobjdump, fatbin);
  // cuobjdump looks for nvdisasm on PATH.
  const env = { ...process.env, PATH: `${join(cuobjdump, '..')}${delimiter}${process.env.PATH ?? ''}` };
  const child = spawn(cuobjdump, ['-sass', fatbin], { env, stdio: ['ignore', 'pipe', 'inherit'] });
  const ended = new Promise((resolve, reject) => child.once('error', reject).once('close', resolve));
  const kernels = [];
  let architecture = '', last;
  for await (const line of createInterface({ input: child.stdout })) {
    const operation = /^\s+\/\*[0-9a-f]{4,}\*\/\s+(?:@!?U?P\w+\s+)?([A-Z]\w*)/.exec(line)?.[1];
    if (operation !== undefined) {
      if (last === undefined) throw new Error(`${fatbin}: an instruction before any function`);
      last.instructions++;
      if (operation === 'HMMA') last.hmma++;
      else if (operation === 'LDL') last.localLoads++;
      else if (operation === 'STL') last.localStores++;
      continue;
    }
    architecture = /^arch = (\w+)/.exec(line)?.[1] ?? architecture;
    const name = /^\s+Function : (\w+)/.exec(line)?.[1];
    if (name === undefined) continue;
    const own = used.get(`${architecture} ${name}`);
    if (own === undefined) throw new Error(`${fatbin}: cuobjdump says nothing of what ${name} takes on ${architecture}`);
    last = { file: basename(fatbin, '.fatbin'), name, architecture, ...own, instructions: 0, hmma: 0, localLoads: 0, localStores: 0 };
    kernels.push(last);
  }
  const status = await ended;
  if (status !== 0) throw new Error(`\`${cuobjdump} -sass ${fatbin}\` ended with status ${status}`);
  return kernels;
}

/** Attention in 16 bit, by name: forward, and backward's dq, dk and dv. These multiply on the tensor cores. */
export const onTensorCores = /^attention_(?:dq_|keys_)?\d+_(?:bf16|f16)$/;

/** Those that have to be there: what attention launches. */
export const attention = ['attention', 'attention_dq', 'attention_keys'].flatMap((kernel) => [64, 128, 256].map((dim) => `${kernel}_${dim}_bf16`));

/** What is wrong with kernels: one sentence each, none where all is well. `required` are names that have to be among them. */
export function sassFaults(kernels, required = []) {
  const wrong = required.filter((name) => !kernels.some((k) => k.name === name)).map((name) => `${name} is missing`);
  for (const k of kernels) {
    const at = `${k.file}: ${k.name} on ${k.architecture}`;
    if (k.instructions === 0) wrong.push(`${at} has no instructions`);
    if (k.localLoads + k.localStores > 0) wrong.push(`${at} loads from local memory ${k.localLoads} times and stores ${k.localStores} times`);
    if (k.stack + k.local > 0) wrong.push(`${at} keeps ${k.stack + k.local} bytes of local memory`);
    if (onTensorCores.test(k.name) && k.hmma === 0) wrong.push(`${at} has no HMMA: it does not multiply on the tensor cores`);
  }
  for (const name of new Set(kernels.map((k) => k.name))) {
    const lacks = architectures.filter((sm) => !kernels.some((k) => k.name === name && k.architecture === sm));
    if (lacks.length > 0) wrong.push(`${name} has no code for ${lacks.join(', ')}`);
  }
  return wrong;
}

/**
 * The report: one line a kernel, on each architecture `registers / bytes of static shared memory`, and HMMA instructions where it has any. From sm_90 on
 * the driver keeps 1,024 of these bytes for itself.
 */
export function reportOf(kernels) {
  const names = [...new Set(kernels.map((k) => k.name))];
  const cell = (name, sm) => {
    const k = kernels.find((one) => one.name === name && one.architecture === sm);
    return k === undefined ? 'none' : `${k.registers} / ${k.shared}${k.hmma > 0 ? `, ${k.hmma} HMMA` : ''}`;
  };
  const rows = [['registers / shared bytes', ...architectures], ...names.map((name) => [name, ...architectures.map((sm) => cell(name, sm))])];
  const widths = rows[0].map((_, column) => Math.max(...rows.map((row) => row[column].length)));
  return `${rows.map((row) => row.map((text, column) => text.padEnd(widths[column])).join('  ').trimEnd()).join('\n')}\n`;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  try {
    const cuobjdump = ensureCuobjdump();
    if (process.argv[2] === 'install') {
      process.stdout.write(`${cuobjdump}\n`);
      process.exit(0);
    }
    const given = process.argv.slice(2), kernels = [];
    const fatbins = given.length > 0 ? given : builtFatbins();
    // Two at a time, the largest first.
    const queue = fatbins.toSorted((a, b) => statSync(b).size - statSync(a).size);
    const work = async () => {
      for (let fatbin = queue.shift(); fatbin !== undefined; fatbin = queue.shift()) kernels.push(...(await kernelsIn(cuobjdump, fatbin)));
    };
    await Promise.all([work(), work()]);
    kernels.sort((a, b) => (a.file === b.file ? 0 : a.file < b.file ? -1 : 1));
    process.stdout.write(reportOf(kernels));
    const wrong = sassFaults(kernels, given.length > 0 ? [] : attention);
    if (wrong.length > 0) throw new Error(wrong.join('\n'));
    const on = kernels.filter((k) => k.hmma > 0);
    process.stdout.write(`${new Set(kernels.map((k) => k.name)).size} kernels on ${architectures.length} architectures, no local memory; ${new Set(on.map((k) => k.name)).size} on tensor cores\n`);
  } catch (error) {
    process.stderr.write(`${error.message}\n`);
    process.exitCode = 1;
  }
}
