// NVIDIA's own headers, and NCCL, from PyPI into a virtual environment outside the clone, and whether our declarations agree with them.
// `node scripts/headers.mjs install` brings them, 800 MB; `node scripts/headers.mjs` compares.
import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { cacheFolder } from './nvcc.mjs';

const native = join(dirname(fileURLToPath(import.meta.url)), '..', 'native');
const packages = ['nvidia-nccl-cu13==2.27.7', 'nvidia-cublas==13.0.2.14'];

/** What is compared: our api.h, the namespace of its entries, the header, and where pip puts that. */
export const interfaces = [
  { name: 'cuda', api: 'driver/api.h', scope: 'cu', header: 'nvidia/cu13/include/cuda.h' },
  { name: 'cublas', api: 'cublas/api.h', scope: 'cublas', header: 'nvidia/cu13/include/cublasLt.h' },
  { name: 'nccl', api: 'nccl/api.h', scope: 'nccl', header: 'nvidia/nccl/include/nccl.h' },
];

/** The virtual environment with NCCL and the headers. */
export function headersFolder(env = process.env) {
  return join(cacheFolder(env), 'headers-13.0');
}

function sitePackages(venv) {
  const lib = join(venv, 'lib');
  return existsSync(lib) ? readdirSync(lib).map((python) => join(lib, python, 'site-packages')) : [];
}

/** Path of a header as pip brings it, or null. */
export function findHeader(header, env = process.env) {
  const venvs = [headersFolder(env), join(cacheFolder(env), 'nvcc-13.0.88')];
  return venvs.flatMap(sitePackages).map((folder) => join(folder, header)).find((path) => existsSync(path)) ?? null;
}

/** Compiles our declarations of one interface against its header: { complaints, entries }, the compiler's words, '' where they agree. Throws where the header is not there. */
export function compare({ name, api, scope, header }, env = process.env) {
  const found = findHeader(header, env);
  if (found === null) throw new Error(`${header} is not there: node scripts/headers.mjs install brings it`);
  const entries = [...readFileSync(join(native, api), 'utf8').matchAll(/^ {2}X\((?:[\w:]+\*?, |const char\*, )?(\w+), "(\w+)"/gm)];
  if (entries.length === 0) throw new Error(`${api}: no entries`);
  const checks = entries.map(([, ours, theirs]) => `static_assert(Calls<decltype(lomo::${scope}::Entries::${ours}), decltype(&${theirs})>::value, "${theirs}");`);
  const folder = mkdtempSync(join(tmpdir(), 'lomo-headers-'));
  try {
    const file = join(folder, `${name}.cpp`);
    writeFileSync(file, `#include "test/headers_${name}.cpp"\n${checks.join('\n')}\n`);
    const includes = interfaces.map((other) => findHeader(other.header, env)).filter((path) => path !== null).flatMap((path) => ['-isystem', dirname(path)]);
    const { status, stderr, error } = spawnSync(env.CXX ?? 'g++', ['-std=c++20', '-fsyntax-only', `-I${native}`, ...includes, file], { encoding: 'utf8' });
    if (error !== undefined) throw error;
    return { complaints: status === 0 ? '' : stderr, entries: entries.length };
  } finally {
    rmSync(folder, { recursive: true });
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  if (process.argv[2] === 'install') {
    const venv = headersFolder();
    execFileSync('python3', ['-m', 'venv', venv], { stdio: 'inherit' });
    execFileSync(join(venv, 'bin', 'pip'), ['install', '--quiet', '--no-deps', ...packages], { stdio: 'inherit' });
  } else {
    for (const one of interfaces) {
      const { complaints, entries } = compare(one);
      process.stdout.write(complaints === '' ? `${one.name}: ${entries} functions, numbers and structs agree\n` : complaints);
      if (complaints !== '') process.exitCode = 1;
    }
  }
}
