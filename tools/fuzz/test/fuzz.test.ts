// 100,000 hostile headers and JSON texts, from a seed: the slice of `pnpm test:long fuzz` that every CI run takes.
import { expect, test } from 'vitest';
import { fuzz } from '../src/fuzz.ts';
import { manifests, modelFolders } from '../src/mix.ts';

const seed = 20261124;

test(`100,000 hostile headers, JSON texts, indexes and configurations, seed ${seed}`, async () => {
  const { done, accepted, refused } = await fuzz({ seed, cases: 100_000, targets: modelFolders });
  expect(done).toBe(100_000);
  expect(accepted).toBeGreaterThan(20_000);
  expect(refused).toBeGreaterThan(50_000);
});

test(`5,000 hostile manifests, seed ${seed}`, async () => {
  const { accepted, refused } = await fuzz({ seed, cases: 5000, targets: manifests });
  expect(accepted).toBeGreaterThan(500);
  expect(refused).toBeGreaterThan(3000);
});
