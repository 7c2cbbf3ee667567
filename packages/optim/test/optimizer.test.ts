// Around the rules: clipping in all its forms, who decays, the loss scale, and the gate, which leaves every byte as it was.
import { zeroGrad } from '@lomo/tensor';
import { describe, expect, test } from 'vitest';
import type { Rule } from '../src/index.ts';
import { adalomo, adamw, decaysMatrices, lomo, Optimizer, sgd } from '../src/index.ts';
import { Given } from './given.ts';

const rules = [lomo, adalomo(), adamw(), sgd].map((rule) => [rule.name, rule] as const);
const start = { a: { shape: [2, 2], values: [1, 2, 3, 4] }, b: { shape: [2], values: [1, 1] } };
// Norms 5 and 12, together 13.
const gradients = { a: [3, 0, 0, 4], b: [0, -12] };

const close = (actual: readonly number[], expected: readonly number[]): void => {
  expect(actual.length).toBe(expected.length);
  actual.forEach((x, i) => expect(Math.abs(x - expected[i]!), `element ${i}: ${x} against ${expected[i]}`).toBeLessThan(1e-12));
};

/** What lr 1 takes away: the gradient as the rule saw it. */
async function seen(clip: object, given: Readonly<Record<string, readonly number[]>> = gradients): Promise<Record<string, number[]>> {
  const sheet = new Given(start, { rule: lomo, clip });
  await sheet.update(given, { lr: 1 });
  const left = async (path: 'a' | 'b') => (await sheet.read(path)).map((w, i) => start[path].values[i]! - w);
  return { a: await left('a'), b: await left('b') };
}

describe('clipping', () => {
  test('by value', async () => {
    const { a, b } = await seen({ value: 3.5 });
    close(a!, [3, 0, 0, 3.5]);
    close(b!, [0, -3.5]);
  });

  test('by the global norm, of all parameters together', async () => {
    const c = 6.5 / (13 + 1e-6);
    const { a, b } = await seen({ norm: 6.5 });
    close(a!, [3 * c, 0, 0, 4 * c]);
    close(b!, [0, -12 * c]);
    expect((await seen({ norm: 14 }))['b']).toEqual([0, -12]);
  });

  test("by each parameter's own norm: a coefficient each, and none is left over for the next", async () => {
    const c = 6 / (12 + 1e-6);
    const { a, b } = await seen({ norm: 6, scope: 'parameter' });
    close(a!, [3, 0, 0, 4]);
    close(b!, [0, -12 * c]);
    const turned = await seen({ norm: 6, scope: 'parameter' }, { b: gradients.b, a: gradients.a });
    close(turned['a']!, [3, 0, 0, 4]);
  });

  test('by both: the norm is that of the gradients before clamping, the coefficient comes after', async () => {
    for (const [scope, [normA, normB]] of [['global', [13, 13]], ['parameter', [5, 12]]] as const) {
      const { a, b } = await seen({ value: 3.5, norm: 2, scope });
      close(a!, [3, 0, 0, 3.5].map((g) => (g * 2) / (normA + 1e-6)));
      close(b!, [0, -3.5].map((g) => (g * 2) / (normB + 1e-6)));
    }
  });

  test.each(rules)('gives %s the clipped gradient, whatever the tile size', async (_, rule) => {
    const states: unknown[] = [];
    for (const tileBytes of [64 << 20, 1]) {
      const clipped = new Given(start, { rule, clip: { value: 2 }, tileBytes });
      await clipped.update(gradients, { lr: 0.1 });
      states.push(await clipped.everything());
      const plain = new Given(start, { rule, tileBytes });
      await plain.update({ a: [2, 0, 0, 2], b: [0, -2] }, { lr: 0.1 });
      expect(await clipped.everything()).toEqual(await plain.everything());
    }
    expect(states[0]).toEqual(states[1]);
  });

  test('the outcome names norm and coefficient; without a norm pass they are 0 and 1', async () => {
    const clipped = await new Given(start, { rule: lomo, clip: { norm: 6.5 } }).update(gradients, { lr: 1 });
    expect(clipped.gradNorm).toBeCloseTo(13, 12);
    expect(clipped.clipCoefficient).toBeCloseTo(0.5, 6);
    expect(await new Given(start, { rule: lomo }).update(gradients, { lr: 1 })).toMatchObject({ gradNorm: 0, clipCoefficient: 1, gate: 'open' });
  });

  test('passes are data: one, or a judging one before it', () => {
    const names = (options: object) => new Given(start, { rule: lomo, ...options }).optimizer.passes.map(({ name }) => name);
    expect(names({})).toEqual(['update']);
    expect(names({ clip: { norm: 1 } })).toEqual(['norm', 'update']);
    expect(names({ clip: { norm: 1 }, atomic: true })).toEqual(['norm', 'update']);
    expect(names({ clip: { norm: 1, scope: 'parameter' } })).toEqual(['update']);
    expect(names({ clip: { value: 1 }, atomic: true })).toEqual(['check', 'update']);
  });
});

describe('weight decay', () => {
  const shapes = { matrix: [2, 2], row: [1, 4], cube: [2, 1, 2], vector: [4] };
  const all = Object.fromEntries(Object.entries(shapes).map(([path, shape]) => [path, { shape, values: [1, 2, 3, 4] }]));
  const zero = Object.fromEntries(Object.keys(shapes).map((path) => [path, [0, 0, 0, 0]]));

  test.each([lomo, sgd, adamw()].map((rule) => [rule.name, rule] as const))('reaches matrices unless told otherwise (%s)', async (_, rule) => {
    const lists = [[undefined, ['matrix', 'row', 'cube']], [() => true, Object.keys(shapes)], [(p: { path: string }) => p.path === 'vector', ['vector']]] as const;
    for (const [decays, expected] of lists) {
      const given = new Given(all, { rule, weightDecay: 0.25, ...(decays === undefined ? {} : { decays }) });
      await given.update(zero, { lr: 0.5 });
      for (const path of Object.keys(shapes)) close(await given.read(path), [1, 2, 3, 4].map((w) => (expected.some((e) => e === path) ? w * 0.875 : w)));
    }
    expect([...new Given(all, { rule }).parameters.values()].map(decaysMatrices)).toEqual([true, true, true, false]);
  });

  test('of adalomo is scaled by the size of the parameter, as its steps are', async () => {
    const given = new Given({ w: { shape: [2, 2], values: [2, -2, 2, -2] } }, { rule: adalomo(), weightDecay: 0.25 });
    await given.update({ w: [0, 0, 0, 0] }, { lr: 0.5 });
    close(await given.read('w'), [1.5, -1.5, 1.5, -1.5]);
  });
});

describe('loss scale', () => {
  test.each(rules)('%s: scaled gradients under the scale are the plain ones, bit by bit, with every clip', async (_, rule) => {
    for (const clip of [{}, { value: 2 }, { norm: 3 }, { norm: 3, scope: 'parameter' as const }, { value: 2, norm: 3 }]) {
      const [plain, scaled] = [new Given(start, { rule, clip }), new Given(start, { rule, clip })];
      for (let step = 1; step <= 2; step++) {
        const outcomes = [
          await plain.update(gradients, { step, lr: 0.1 }),
          await scaled.update({ a: gradients.a.map((g) => g * 1024), b: gradients.b.map((g) => g * 1024) }, { step, lr: 0.1, lossScale: 1024 }),
        ];
        expect(outcomes[0]).toEqual(outcomes[1]);
        expect(await scaled.everything()).toEqual(await plain.everything());
      }
    }
  });
});

describe('the gate', () => {
  const sick = { a: [1, NaN, 0, 0], b: [1, 1] };

  test.each(rules)('%s: a gradient that is not finite writes neither weights nor state, of its parameter or of later ones', async (_, rule) => {
    for (const bad of [NaN, Infinity, -Infinity]) for (const tileBytes of [64 << 20, 8]) for (const at of [0, 3]) {
      const given = new Given(start, { rule, tileBytes });
      await given.update(gradients, { step: 1, lr: 0.1 });
      const before = await given.everything();
      // In the last row the first tile has been looked at before it: the sweep that checks comes first.
      const outcome = await given.update({ a: gradients.a.with(at, bad), b: gradients.b }, { step: 2, lr: 0.1 });
      expect(outcome.gate).toEqual({ at: 0 });
      expect(await given.everything(), `${bad} at ${at}, tiles of ${tileBytes} bytes`).toEqual(before);
    }
  });

  test.each(rules)('%s: earlier parameters keep their update, unless the step is judged first', async (_, rule) => {
    for (const options of [{}, { atomic: true }, { clip: { norm: 1 } }]) {
      const given = new Given(start, { rule, ...options });
      const before = await given.everything();
      const outcome = await given.update({ b: sick.b, a: sick.a }, { lr: 0.1 });
      expect(outcome.gate).toEqual({ at: 1 });
      expect(await given.read('a')).toEqual([1, 2, 3, 4]);
      if (Object.keys(options).length === 0) expect(await given.read('b')).not.toEqual([1, 1]);
      else expect(await given.everything()).toEqual(before);
    }
  });

  test('is asked no more often than needed: a judged gradient is not checked again, one of a single tile is checked by the update itself', async () => {
    const checks = async (options: object, tileBytes: number): Promise<number> => {
      const given = new Given(start, { rule: lomo, tileBytes, ...options });
      let count = 0;
      given.device.observer = { launched: (op) => (count += op.name === 'gate_check' ? 1 : 0) };
      await given.update(gradients, { lr: 0.1 });
      return count;
    };
    // Tiles of one row: two of a, one of b.
    expect([await checks({}, 1 << 20), await checks({}, 8)]).toEqual([0, 2]);
    // Of the global norm, the sum so far: its two numbers once a parameter.
    expect([await checks({ clip: { norm: 1 } }, 1 << 20), await checks({ clip: { norm: 1 } }, 8)]).toEqual([2, 2]);
    expect([await checks({ atomic: true }, 1 << 20), await checks({ atomic: true }, 8)]).toEqual([2, 3]);
  });

  test('opens again with the next step', async () => {
    const given = new Given(start, { rule: lomo });
    await given.update(sick, { step: 1, lr: 0.1 });
    expect((await given.update(gradients, { step: 2, lr: 1 })).gate).toBe('open');
    expect(await given.read('b')).toEqual([1, 13]);
  });

  test('f16: a weight that would leave its range writes nothing; one at the edge is written', async () => {
    const half = { w: { shape: [2], values: [65504, 1], dtype: 'f16' as const } };
    for (const rounding of ['nearest', 'stochastic'] as const) {
      const given = new Given(half, { rule: lomo, rounding });
      expect((await given.update({ w: [-64, 1] }, { lr: 1 })).gate).toEqual({ at: 0 });
      expect(await given.read('w')).toEqual([65504, 1]);
      expect((await given.update({ w: [32, 1] }, { step: 2, lr: 1 })).gate).toBe('open');
      expect(await given.read('w')).toEqual([65472, 0]);
    }
  });
});

describe('state', () => {
  test('is named, zero at first, and only of parameters that learn', () => {
    const mixed = { ...start, frozen: { shape: [2, 2], values: [1, 2, 3, 4], trainable: false } };
    const list = (rule: Rule): string[] => [...new Given(mixed, { rule }).optimizer.state()].map(({ path, name, tensor }) => `${path}.${name} ${String(tensor)}`);
    expect(list(lomo)).toEqual([]);
    expect(list(adalomo())).toEqual(['a.r f32 [2]', 'a.c f32 [2]', 'b.v f32 [2]']);
    expect(list(adamw())).toEqual(['a.m f32 [2, 2]', 'a.v f32 [2, 2]', 'b.m f32 [2]', 'b.v f32 [2]']);
    const fresh = new Given(mixed, { rule: adamw() });
    expect(fresh.state('a')).toEqual({ m: [0, 0, 0, 0], v: [0, 0, 0, 0] });
    expect(fresh.device.arena.usage.state.live).toBe(4 * 256);
  });

  test('a parameter that the optimizer was not given is named', () => {
    const { device, parameters, step } = new Given(start, { rule: lomo });
    const [a, b] = [parameters.get('a')!, parameters.get('b')!];
    const { passes } = new Optimizer(device, [a], { rule: lomo });
    expect(() => passes[0]!.settle(b, zeroGrad(device, b.shape), { step, order: 0 })).toThrow(/^b settled, but the optimizer was not given it/);
  });
});
