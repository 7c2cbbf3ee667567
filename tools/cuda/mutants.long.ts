// Mistakes planted in the kernels, one at a time, and the double's tests that see each: a table, and no survivor. One build carries all mutants;
// a variable of the environment chooses. Some ten minutes of one core: `pnpm test:long cuda/mutants`.
import { spawnSync } from 'node:child_process';
import { cpSync, mkdtempSync, readFileSync, realpathSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { optimOps } from '@lomo/optim';
import { tensorOps } from '@lomo/tensor';
import { conformance } from '@lomo/tensor/conformance';
import { cuda } from '@lomo/cuda';
import type { CudaBackend } from '@lomo/cuda';
import { edgeOps } from '../../packages/cuda/test/edges.ts';
import { mutants } from './mutants.ts';

const all = [...tensorOps, ...optimOps];

const source = join(import.meta.dirname, '../../packages/cuda');
const place = mkdtempSync(join(tmpdir(), 'lomo-cuda-mutants-'));
const copy = join(place, 'packages', 'cuda');
const release = join(copy, 'build', 'double', 'Release');
const backend = (): CudaBackend => cuda({ addon: join(release, 'lomo_cuda.node'), driver: join(release, 'liblomo_double.so'), cublasLt: join(release, 'liblomo_double.so') });
afterAll(() => rmSync(place, { recursive: true, force: true }));

beforeAll(() => {
  for (const part of ['native', 'scripts', 'CMakeLists.txt', 'package.json']) cpSync(join(source, part), join(copy, part), { recursive: true });
  symlinkSync(realpathSync(join(source, 'node_modules')), join(copy, 'node_modules'));
  const header = join(place, 'mutant.h');
  writeFileSync(header, '#pragma once\n#include <cstdlib>\nstatic inline bool lomo_mutant(int n) {\n  const char* t = std::getenv("LOMO_MUTANT");\n  return t != nullptr && std::atoi(t) == n;\n}\n');
  for (const file of new Set(mutants.map((one) => one.file))) {
    const path = join(copy, 'native', file);
    writeFileSync(path, `#include "${header}"\n${readFileSync(path, 'utf8')}`);
  }
  for (const [i, { file, find, put, mistake }] of mutants.entries()) {
    const path = join(copy, 'native', file);
    const parts = readFileSync(path, 'utf8').split(find);
    if (parts.length !== 2) throw new Error(`${file}, ${mistake}: ${parts.length - 1} places hold ${JSON.stringify(find)}; one is wanted`);
    writeFileSync(path, parts.join(put.replaceAll(/\bM\b/g, `lomo_mutant(${i + 1})`)));
  }
  // A mutant that loses the context must not end the others: this copy of the double forgets it when a backend is made.
  const double = join(copy, 'native', 'double', 'cuda.cpp');
  const text = readFileSync(double, 'utf8');
  if (!text.includes('EXPORT cuInit(unsigned) { ')) throw new Error(`${double}: no cuInit where it was`);
  writeFileSync(double, text.replace('EXPORT cuInit(unsigned) { ', 'EXPORT cuInit(unsigned) { world().lost = success; '));
  // Less to optimise, sooner built.
  const recipe = join(copy, 'CMakeLists.txt');
  writeFileSync(recipe, readFileSync(recipe, 'utf8').replace('"-O2 -DNDEBUG"', '"-O1 -DNDEBUG"'));
  const { status, stdout, stderr } = spawnSync(process.execPath, [join(copy, 'scripts', 'build.mjs'), '--double'], { encoding: 'utf8' });
  if (status !== 0) throw new Error(`building the mutants failed:\n${stdout}${stderr}`);
}, 3_600_000);

/** What saw a mutant: 'conformance 0, 1', say; none where nobody did. */
async function seenBy(number: number, mutated: readonly string[]): Promise<readonly string[]> {
  process.env['LOMO_MUTANT'] = String(number);
  const seen: string[] = [];
  try {
    for (const [suite, ops, cases] of [['conformance', all, 4], ['edges', edgeOps, 2]] as const) {
      const schedules: string[] = [];
      for (const schedule of ['0', '1', '20']) {
        process.env['LOMO_DOUBLE_SEED'] = schedule;
        const chosen = ops.filter(({ name }) => mutated.includes(name));
        try {
          const rows = await conformance({ backend, ops: chosen, cases, seed: 1 + 100 * Number(schedule) });
          if (rows.some(({ failures }) => failures.length > 0)) schedules.push(schedule);
        } catch {
          schedules.push(schedule); // the context was lost
        }
      }
      if (schedules.length > 0) seen.push(`${suite}, schedule ${schedules.join(', ')}`);
    }
  } finally {
    delete process.env['LOMO_DOUBLE_SEED'];
    delete process.env['LOMO_MUTANT'];
  }
  if (seen.length > 0) return seen;
  for (const file of ['bits', 'edges', 'verbs']) {
    const { status } = spawnSync(process.execPath, [join(source, 'node_modules', 'vitest', 'vitest.mjs'), 'run', `test/${file}.test.ts`, '--testTimeout=600000'], {
      cwd: source, encoding: 'utf8', env: { ...process.env, LOMO_MUTANT: String(number), LOMO_TEST_DOUBLE: release },
    });
    if (status !== 0) return [file];
  }
  return [];
}

test('every planted mistake is seen', async () => {
  expect(await seenBy(0, [...new Set(mutants.flatMap(({ ops }) => ops))]), 'with no mutant on').toEqual([]);
  const survivors: string[] = [];
  process.stdout.write('| file | planted | seen by |\n| --- | --- | --- |\n');
  for (const [i, { file, mistake, ops }] of mutants.entries()) {
    const seen = await seenBy(i + 1, ops);
    process.stdout.write(`| ${file} | ${mistake} | ${seen.length === 0 ? '**nobody**' : seen.join('; ')} |\n`);
    if (seen.length === 0) survivors.push(`${file}: ${mistake}`);
  }
  expect(survivors).toEqual([]);
}, 7_200_000);
