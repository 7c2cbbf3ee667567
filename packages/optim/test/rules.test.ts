// Every rule and every clip against PyTorch in float64, with state, and against numbers worked out by hand.
import { describe, expect, test } from 'vitest';
import type { Clip, OptimizerOptions, Rule } from '../src/index.ts';
import { adalomo, adamw, lomo, sgd } from '../src/index.ts';
import { Given } from './given.ts';
import type { GoldenTensor } from './golden.ts';
import { golden, goldenTensors, hasGolden } from './golden.ts';

interface GoldenRun {
  readonly rule: string;
  readonly lr: number;
  readonly weight_decay?: number;
  readonly beta1?: number;
  readonly beta2?: number;
  readonly eps?: number;
  readonly clip_value: number | null;
  readonly clip_norm: number | null;
  readonly decays: 'all' | 'matrices' | 'none';
  readonly clip_coefficient: readonly number[] | null;
}

function ruleOf(run: GoldenRun): Rule {
  switch (run.rule) {
    case 'lomo':
      return lomo;
    case 'sgd':
      return sgd;
    case 'adalomo':
      return adalomo();
    case 'adamw':
      return adamw({ beta1: run.beta1!, beta2: run.beta2!, eps: run.eps! });
    default:
      throw new Error(`no rule '${run.rule}'`);
  }
}

function optionsOf(run: GoldenRun): OptimizerOptions {
  const clip: Clip = { ...(run.clip_value === null ? {} : { value: run.clip_value }), ...(run.clip_norm === null ? {} : { norm: run.clip_norm }) };
  return { rule: ruleOf(run), clip, weightDecay: run.weight_decay ?? 0, ...(run.decays === 'all' ? { decays: () => true } : {}) };
}

/** Largest distance, as a share of the largest value. */
function distance(actual: ArrayLike<number>, expected: GoldenTensor): number {
  expect(actual.length).toBe(expected.values.length);
  const largest = expected.values.reduce((most, x) => Math.max(most, Math.abs(x)), 0);
  return expected.values.reduce((most, x, i) => Math.max(most, Math.abs(x - actual[i]!)), 0) / largest;
}

const files = ['rules/rules.json', 'rules/rules.safetensors'] as const;
const present = files.every(hasGolden);
const { steps, runs } = present ? golden<{ steps: number; runs: Record<string, GoldenRun> }>(files[0]) : { steps: 0, runs: { 'every run': null } };

describe('five steps on given gradients, to 1e-12 of PyTorch in float64', () => {
  test.skipIf(!present).each(Object.entries(runs))('%s (skipped where ../shared/golden/rules is absent)', async (name, run) => {
    const tensors = goldenTensors(files[1]);
    const names = [...tensors.keys()].flatMap((key) => (key.startsWith('start/') ? [key.slice(6)] : []));
    expect(names.length).toBeGreaterThanOrEqual(5);
    for (const tileBytes of [64 << 20, 2 * 10 * 8]) {
      const given = new Given(Object.fromEntries(names.map((n) => [n, tensors.get(`start/${n}`)!])), { ...optionsOf(run!), tileBytes });
      let states = 0;
      for (let t = 1; t <= steps; t++) {
        const gradients = Object.fromEntries(names.map((n) => [n, tensors.get(`gradient/${t}/${n}`)!.values]));
        const { clipCoefficient } = await given.update(gradients, { step: t, lr: run!.lr });
        if (run!.clip_coefficient !== null) expect(Math.abs(clipCoefficient - run!.clip_coefficient[t - 1]!)).toBeLessThan(1e-7);
        for (const n of names) {
          expect(distance(await given.read(n), tensors.get(`${name}/${t}/${n}`)!), `${n}, step ${t}`).toBeLessThan(1e-12);
          for (const [part, values] of Object.entries(given.state(n))) {
            const expected = tensors.get(`${name}/${t}/${n}.${part}`);
            if (expected === undefined) continue;
            expect(distance(values, expected), `${n}.${part}, step ${t}`).toBeLessThan(1e-12);
            states++;
          }
        }
      }
      // AdaLomo's state is part of the table: r and c of every matrix, v of every vector.
      if (run!.rule === 'adalomo') expect(states).toBe(steps * names.reduce((sum, n) => sum + Math.min(2, tensors.get(`start/${n}`)!.shape.length), 0));
    }
  });
});

const close = (actual: readonly number[], expected: readonly number[]): void => {
  expect(actual.length).toBe(expected.length);
  actual.forEach((x, i) => expect(Math.abs(x - expected[i]!), `element ${i}: ${x} against ${expected[i]}`).toBeLessThan(1e-14 * Math.max(1, Math.abs(expected[i]!))));
};

describe('by hand', () => {
  test('lomo and sgd: p (1 - lr wd) - lr g', async () => {
    for (const rule of [lomo, sgd]) {
      const given = new Given({ w: { shape: [2, 2], values: [1, -2, 0.5, 4] } }, { rule, weightDecay: 0.5 });
      await given.update({ w: [1, 1, -2, 0] }, { lr: 0.1 });
      close(await given.read('w'), [0.85, -2, 0.675, 3.8]);
      expect([...given.optimizer.state()]).toEqual([]);
    }
  });

  test('adamw: the first step is lr g / (|g| + eps), the second has both averages', async () => {
    const given = new Given({ w: { shape: [1, 3], values: [1, -2, 3] } }, { rule: adamw() });
    await given.update({ w: [0.5, -4, 0] }, { step: 1, lr: 0.1 });
    close(await given.read('w'), [1 - 0.05 / (0.5 + 1e-8), -2 + 0.4 / (4 + 1e-8), 3]);
    close(given.state('w')['m']!, [0.05, -0.4, 0]);
    close(given.state('w')['v']!, [0.00025, 0.016, 0]);
    await given.update({ w: [1, 4, 0] }, { step: 2, lr: 0.1 });
    close(given.state('w')['m']!, [0.145, 0.04, 0]);
    close(given.state('w')['v']!, [0.00124975, 0.031984, 0]);
    close(await given.read('w'), [0.8034818006385087, -1.9052631581315789, 3]);
  });

  test('adalomo, a vector: v, no shrinking below RMS 1, steps scaled by the RMS of the parameter', async () => {
    const given = new Given({ b: { shape: [2], values: [3, -4] } }, { rule: adalomo() });
    await given.update({ b: [2, -5] }, { step: 1, lr: 0.1 });
    // The first update is the sign of the gradient; RMS(p) = sqrt(12.5).
    close(await given.read('b'), [3 - 0.1 * Math.sqrt(12.5), -4 + 0.1 * Math.sqrt(12.5)]);
    close(given.state('b')['v']!, [4, 25]);
    await given.update({ b: [1, 1] }, { step: 2, lr: 0.1 });
    close(given.state('b')['v']!, [2.2769524675044477, 11.21561974003558]);
    close(await given.read('b'), [2.435312334977409, -3.741578052376455]);
  });

  test('adalomo, a matrix: factored moments; an update of RMS above 1 is shrunk to 1, one below is left alone', async () => {
    const start = { w: { shape: [2, 2], values: [1, -1, 2, -2] } };
    const small = new Given(start, { rule: adalomo(), weightDecay: 0.1 });
    await small.update({ w: [1, 2, 3, 4] }, { lr: 0.1 });
    close(small.state('w')['r']!, [2.5, 12.5]);
    close(small.state('w')['c']!, [5, 10]);
    close(await small.read('w'), [0.8617141245599992, -1.1573936924560457, 1.8040604561467664, -2.1232965572466127]);
    // RMS 2.64 before shrinking.
    const large = new Given(start, { rule: adalomo(), weightDecay: 0.1 });
    await large.update({ w: [10, 1, 1, 1] }, { lr: 0.1 });
    close(large.state('w')['r']!, [50.5, 1]);
    close(await large.read('w'), [0.9239000431743117, -1.027031689376438, 1.9255341457210364, -2.272834494448791]);
  });

  test('adalomo: a parameter of RMS below eps2 moves as if it had eps2', async () => {
    const given = new Given({ b: { shape: [2], values: [0, 0] } }, { rule: adalomo() });
    await given.update({ b: [7, -0.1] }, { lr: 0.5 });
    close(await given.read('b'), [-0.0005, 0.0005]);
  });

  test('adalomo: without any gradient nothing moves and nothing turns into NaN', async () => {
    const given = new Given({ w: { shape: [2, 3], values: [1, 2, 3, 4, 5, 6] }, b: { shape: [2], values: [1, 2] } }, { rule: adalomo() });
    for (let step = 1; step <= 3; step++) await given.update({ w: new Float64Array(6), b: new Float64Array(2) }, { step, lr: 0.1 });
    expect(await given.read('w')).toEqual([1, 2, 3, 4, 5, 6]);
    expect(await given.read('b')).toEqual([1, 2]);
  });
});
