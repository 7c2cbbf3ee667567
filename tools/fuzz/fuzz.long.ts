// Ten million hostile cases: `pnpm test:long fuzz`, about a quarter of an hour of one core. FUZZ_CASES and FUZZ_SEED change them; a failure
// names the seed and the case, which FUZZ_FROM runs alone (FUZZ_FROM=123 FUZZ_CASES=1 FUZZ_SEED=...).
import { writeSync } from 'node:fs';
import { expect, test } from 'vitest';
import { fuzz, report } from './src/fuzz.ts';
import { manifests, modelFolders } from './src/mix.ts';

const setting = (name: string, otherwise: number): number => Number(process.env[name] ?? otherwise);
const seed = setting('FUZZ_SEED', Date.now() % 2 ** 31);
const cases = setting('FUZZ_CASES', 10_000_000);

test(`${cases} hostile headers, JSON texts, indexes and configurations, seed ${seed}`, async () => {
  writeSync(2, `fuzz: ${cases} cases, seed ${seed}\n`);
  const result = await fuzz({ seed, cases, from: setting('FUZZ_FROM', 0), targets: modelFolders, onProgress: (progress) => report(progress, cases) });
  report(result, cases);
  writeSync(2, `fuzz: ${JSON.stringify(result.byTarget)}\n`);
  expect(result.accepted + result.refused).toBe(cases);
}, 7_200_000);

test(`${cases / 20} hostile manifests of checkpoints, seed ${seed}`, async () => {
  const result = await fuzz({ seed, cases: cases / 20, targets: manifests, onProgress: (progress) => report(progress, cases / 20) });
  report(result, cases / 20);
  expect(result.accepted + result.refused).toBe(cases / 20);
}, 3_600_000);
