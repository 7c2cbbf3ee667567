// @lomo/cuda's numbers on the host double against the golden folder: logits, gradients, rules, rounding, trajectories, within the bars of
// the cpu backend. Builds the double first. Half an hour on one core: `pnpm test:long cuda`.
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { beforeAll, expect, test } from 'vitest';
import build from '../../packages/cuda/test/build.ts';
import { double } from '../../packages/cuda/test/double.ts';
import { checkFolder } from '../golden/src/check.ts';
import { Engine } from '../golden/src/engine.ts';
import { lineOf } from '../golden/src/table.ts';

const shared = fileURLToPath(new URL('../../../shared', import.meta.url));

beforeAll(build);

test('every bar of shared/golden is held', async () => {
  // The engine only asks whether a backend rounds to f32, as cpu does.
  const engine = new Engine('cpu', double());
  const missed: string[] = [];
  let held = 0;
  try {
    for await (const row of checkFolder(join(shared, 'golden'), { engine, elsewhere: { models: [], shared }, steps: 20 })) {
      const line = lineOf(row);
      process.stdout.write(`${line}\n`);
      if (row.status === 'missed') missed.push(line);
      else if (row.status === 'held') held++;
    }
  } finally {
    await engine[Symbol.asyncDispose]();
  }
  expect(missed).toEqual([]);
  expect(held).toBeGreaterThan(100);
}, 7_200_000);
