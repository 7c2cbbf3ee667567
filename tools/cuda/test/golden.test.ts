// A slice of shared/golden on CUDA's kernels, by the checker and the bars that the CPU is held to: logits and gradients of a family, every rule on
// given gradients, 20 updates of one run. `pnpm test:long cuda` takes the whole folder.
import { cp, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { existsSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { double } from '../../../packages/cuda/test/double.ts';
import { checkFolder } from '../../golden/src/check.ts';
import { Engine } from '../../golden/src/engine.ts';
import type { Row } from '../../golden/src/row.ts';
import { lineOf } from '../../golden/src/table.ts';

const shared = join(import.meta.dirname, '../../../../shared');
const golden = join(shared, 'golden');
let folder = '';
// The checker only asks whether a backend rounds to f32, as the CPU's does.
let engine: Engine;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'lomo-cuda-golden-'));
  engine = new Engine('cpu', double());
});
afterAll(async () => {
  await engine[Symbol.asyncDispose]();
  await rm(folder, { recursive: true, force: true });
});

/** Checks copies of some parts of the folder; what is not there is skipped by the checker, which says so. */
async function rowsOf(parts: readonly string[], options: { readonly steps?: number; readonly runs?: readonly string[] } = {}): Promise<readonly Row[]> {
  const copy = await mkdtemp(join(folder, 'part-'));
  for (const part of parts) await cp(join(golden, part), join(copy, part), { recursive: true, mode: 0 });
  if (options.runs !== undefined) {
    const path = join(copy, 'stories260k', 'trajectories.json');
    const file = JSON.parse(await readFile(path, 'utf8')) as { runs: Record<string, unknown> };
    file.runs = Object.fromEntries(Object.entries(file.runs).filter(([name]) => options.runs!.includes(name)));
    await rm(path); // the copy keeps the original's write protection
    await writeFile(path, JSON.stringify(file));
  }
  const rows: Row[] = [];
  for await (const row of checkFolder(copy, { engine, elsewhere: { models: [], shared }, steps: options.steps ?? 1 })) rows.push(row);
  expect(rows.filter(({ status }) => status === 'missed').map(lineOf)).toEqual([]);
  return rows.filter(({ status }) => status === 'held');
}

describe.skipIf(!existsSync(golden))('shared/golden (skipped where ../shared/golden is absent)', () => {
  test.each(['llama', 'qwen3'])('logits, losses and gradients of models/%s, with both heads', async (family) => {
    const names = (await rowsOf([`models/${family}`])).map(({ name }) => name);
    for (const what of ['logits', 'loss', 'token losses', 'gradients', 'gradients, head by vocabulary tiles']) expect(names).toContain(`models/${family}/${what}`);
  });

  test('every rule on given gradients: weights and state after each of five steps', async () => {
    const held = await rowsOf(['rules']);
    expect(held.filter(({ name }) => name.includes('/weights after 1')).length).toBeGreaterThanOrEqual(9);
    expect(held.some(({ name }) => name === 'rules/adalomo/state after 5')).toBe(true);
  });

  test('20 updates of LOMO on stories260k: losses, norms, all weights', async () => {
    const names = (await rowsOf(['stories260k/trajectories.json', 'stories260k/batches.json', 'stories260k/weights'], { runs: ['lomo'], steps: 20 })).map(({ name }) => name);
    for (const what of ['losses', 'gradient norms', 'weights after 1', 'weights after 20']) expect(names).toContain(`stories260k/trajectories/lomo/${what}`);
  });
});
