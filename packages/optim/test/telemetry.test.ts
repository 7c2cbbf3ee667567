// Telemetry: its numbers by hand, group by group, for every rule and for rules that know nothing of it; and that it changes no bit.
import { Random } from '@lomo/tensor';
import type { DType } from '@lomo/tensor';
import { describe, expect, test } from 'vitest';
import type { OptimizerOptions, Rule } from '../src/index.ts';
import { adalomo, adamw, groupByRole, lomo, sgd } from '../src/index.ts';
import type { UpdateOptions } from './given.ts';
import { Given } from './given.ts';

const rules = [lomo, adalomo(), adamw(), sgd];
const named = rules.map((rule) => [rule.name, rule] as const);

/** A LLaMA's names; every group has a parameter, attention two. */
const shapes = {
  'model.embed_tokens.weight': [12, 5], 'model.layers.0.self_attn.q_proj.weight': [6, 5], 'model.layers.0.self_attn.o_proj.weight': [5, 6],
  'model.layers.0.mlp.up_proj.weight': [9, 5], 'model.layers.0.input_layernorm.weight': [5], 'lm_head.weight': [12, 5],
};
const paths = Object.keys(shapes) as (keyof typeof shapes)[];

function start(dtype: DType) {
  const random = new Random(1);
  return Object.fromEntries(paths.map((path) => [path, { shape: shapes[path], dtype, values: random.normal(shapes[path].reduce((a, b) => a * b, 1)) }]));
}

function gradients(seed: number): Record<string, Float64Array> {
  const random = new Random(seed);
  return Object.fromEntries(paths.map((path) => [path, random.normal(shapes[path].reduce((a, b) => a * b, 1)).map((x) => (x > 1 ? 0 : x))]));
}

/** A step with telemetry read at its end. */
async function measured(given: Given, g: Readonly<Record<string, ArrayLike<number>>>, options: UpdateOptions) {
  await given.update(g, { ...options, measured: true });
  return given.optimizer.telemetry!.read();
}

describe('by hand', () => {
  const unit = 2 ** -7; // of bf16 in [1, 2)

  test('to nearest: what arrives of movements of 0.1, 0.4, 0.6 and 3 units', async () => {
    const given = new Given({ w: { shape: [2, 2], values: [1, 1, 1, 1], dtype: 'bf16' } }, { rule: lomo, rounding: 'nearest', telemetry: true });
    const { all } = await measured(given, { w: [0.1, 0.4, 0.6, 3].map((m) => -m * unit) }, { lr: 1 });
    expect(await given.read('w')).toEqual([1, 1, 1 + unit, 1 + 3 * unit]);
    expect(all.elements).toBe(4);
    expect(all.changed).toBe(0.5);
    expect(all.lost).toBeCloseTo(1 - 4 / 4.1, 12);
    expect(all.noise).toBeCloseTo(Math.hypot(0.1, 0.4, 0.4) / Math.hypot(0.1, 0.4, 0.6, 3), 12);
    expect(all.ratio).toBeCloseTo((Math.hypot(1, 3) * unit) / 2, 12);
    expect(all.gradNorm).toBeCloseTo(Math.hypot(0.1, 0.4, 0.6, 3) * unit, 12);
  });

  test('a movement too small for 16 bits is lost whole to nearest, and arrives on the mean under stochastic rounding', async () => {
    const n = 4096;
    const w = { w: { shape: [64, 64], values: new Float64Array(n).fill(1), dtype: 'bf16' as const } };
    const g = { w: new Float64Array(n).fill(-0.05 * unit) };
    const nearest = await measured(new Given(w, { rule: lomo, rounding: 'nearest', telemetry: true }), g, { lr: 1 });
    expect(nearest.all).toMatchObject({ changed: 0, lost: 1, noise: 1, ratio: 0 });
    const given = new Given(w, { rule: lomo, rounding: 'stochastic', telemetry: true });
    const stochastic = await measured(given, g, { lr: 1 });
    // Each element moves by a whole unit with probability 0.05: lost is a sample of mean 0.
    expect(Math.abs(stochastic.all.lost!)).toBeLessThan(4 * Math.sqrt(0.95 / 0.05 / n));
    expect(stochastic.all.noise).toBeGreaterThan(3);
    expect(stochastic.all.changed).toBe((await given.read('w')).filter((x) => x !== 1).length / n);
  });

  test('f32 loses nothing; decay and movements against the gradient count as meant', async () => {
    const given = new Given({ w: { shape: [2, 2], values: [1, -2, 3, 0] } }, { rule: lomo, weightDecay: 0.5, telemetry: true });
    const { all } = await measured(given, { w: [1, 0, 0, 0] }, { lr: 0.1 });
    expect(await given.read('w')).toEqual([0.95 - 0.1, -1.9, 2.8499999999999996, 0]);
    expect(all).toMatchObject({ changed: 0.75, lost: 0, noise: 0, gradNorm: 1 });
    expect(all.ratio).toBeCloseTo(Math.hypot(0.15, 0.1, 0.15) / Math.sqrt(14), 12);
  });

  test('nothing meant to move: nothing to lose', async () => {
    const given = new Given({ w: { shape: [2, 2], values: [1, 2, 3, 4] } }, { rule: lomo, telemetry: true });
    expect((await measured(given, { w: [0, 0, 0, 0] }, { lr: 0.1 })).all).toEqual({ group: 'all', elements: 4, changed: 0, lost: null, noise: null, ratio: 0, gradNorm: 0 });
  });

  test('the gradient norm is that before any clip, unscaled', async () => {
    for (const clip of [{}, { value: 0.1 }, { norm: 1 }, { norm: 1, scope: 'parameter' as const }]) {
      const given = new Given({ a: { shape: [2, 2], values: [1, 2, 3, 4] }, b: { shape: [2], values: [1, 1] } }, { rule: lomo, clip, telemetry: true });
      const { all, groups } = await measured(given, { a: [24, 0, 0, 32], b: [0, -96] }, { lr: 0.1, lossScale: 8 });
      expect(all.gradNorm).toBeCloseTo(13, 12);
      expect(groups).toHaveLength(1);
    }
  });
});

describe('groups', () => {
  test('embedding, attention, mlp, norms, head, by the names of Hugging Face checkpoints', async () => {
    const given = new Given(start('f32'), { rule: lomo, telemetry: true });
    const { all, groups } = await measured(given, gradients(2), { lr: 0.1 });
    expect(groups.map(({ group, elements }) => [group, elements])).toEqual([['embedding', 60], ['attention', 60], ['mlp', 45], ['norms', 5], ['head', 60]]);
    expect(all.elements).toBe(230);
    expect(all.gradNorm).toBeCloseTo(Math.hypot(...groups.map(({ gradNorm }) => gradNorm)), 12);
    const more = ['model.layers.3.self_attn.q_norm.weight', 'transformer.wte.weight', 'model.norm.weight', 'model.layers.0.block_sparse_moe.experts.1.w1.weight', 'x'];
    expect(more.map((path) => groupByRole({ path }))).toEqual(['norms', 'embedding', 'norms', 'mlp', 'other']);
  });

  test('are any function of the parameter; frozen parameters count nowhere', async () => {
    const mixed = { ...start('f32'), frozen: { shape: [3], values: [1, 2, 3], trainable: false } };
    const given = new Given(mixed, { rule: lomo, telemetry: { groupOf: (p) => (p.path.includes('layers.0') ? 'layer 0' : 'rest') } });
    const { groups } = await measured(given, gradients(2), { lr: 0.1 });
    expect(groups.map(({ group, elements }) => [group, elements])).toEqual([['rest', 120], ['layer 0', 110]]);
  });
});

/** A rule as somebody else would write it: `rule` without a word about telemetry. */
function foreign(rule: Rule): Rule {
  const { measures: _, ...rest } = rule;
  return { ...rest, update: (p, g, state, { sums: _sums, ...context }) => rule.update(p, g, state, context) };
}

describe.each(named)('%s', (_, rule) => {
  const options = (more: Partial<OptimizerOptions> = {}): OptimizerOptions => ({ rule, weightDecay: 0.1, ...more });

  test.each(['f32', 'bf16', 'f16'] as const)('%s: the weights are those of steps without it, and it says what happened to them', async (dtype) => {
    for (const rounding of ['nearest', 'stochastic'] as const) {
      const [plain, given] = [new Given(start(dtype), options({ rounding })), new Given(start(dtype), options({ rounding, telemetry: true }))];
      for (let step = 1; step <= 3; step++) {
        const before = new Map(await Promise.all(paths.map(async (path) => [path, await given.read(path)] as const)));
        await plain.update(gradients(step), { step, lr: 0.01 });
        const { all, groups } = await measured(given, gradients(step), { step, lr: 0.01 });
        expect(await given.everything()).toEqual(await plain.everything());
        for (const one of [all, ...groups]) {
          const own = paths.filter((path) => one.group === 'all' || groupByRole({ path }) === one.group);
          let [n, changed, moved2, size2, norm2] = [0, 0, 0, 0, 0];
          for (const path of own) {
            const [was, is, g] = [before.get(path)!, await given.read(path), gradients(step)[path]!];
            was.forEach((w, i) => {
              n++;
              changed += is[i] === w ? 0 : 1;
              moved2 += (is[i]! - w) ** 2;
              size2 += w ** 2;
              norm2 += g[i]! ** 2;
            });
          }
          expect(one.changed).toBeCloseTo(changed / n, 12);
          expect(one.ratio).toBeCloseTo(Math.sqrt(moved2 / size2), 12);
          expect(one.gradNorm).toBeCloseTo(Math.sqrt(norm2), 12);
          if (dtype === 'f32') expect(one).toMatchObject({ lost: 0, noise: 0 });
          else expect(Number.isFinite(one.lost) && Number.isFinite(one.noise)).toBe(true);
        }
      }
    }
  });

  test('the same numbers for every tile height', async () => {
    const found: unknown[] = [];
    for (const tileBytes of [64 << 20, 3 * 20, 1]) {
      const given = new Given(start('bf16'), { ...options({ telemetry: true }), tileBytes });
      found.push(await measured(given, gradients(1), { lr: 0.01 }));
    }
    expect(found[1]).toEqual(found[0]);
    expect(found[2]).toEqual(found[0]);
  });

  test('written by somebody who never heard of it: the same weights, the same numbers but what was meant', async () => {
    for (const dtype of ['f32', 'bf16'] as const) for (const tileBytes of [64 << 20, 3 * 20]) {
      const own = new Given(start(dtype), { ...options({ telemetry: true }), tileBytes });
      const other = new Given(start(dtype), { ...options({ rule: foreign(rule), telemetry: true }), tileBytes });
      for (let step = 1; step <= 2; step++) {
        const [theirs, ours] = [await measured(other, gradients(step), { step, lr: 0.01 }), await measured(own, gradients(step), { step, lr: 0.01 })];
        expect(await other.everything()).toEqual(await own.everything());
        for (const [i, group] of [theirs.all, ...theirs.groups].entries()) {
          const want = [ours.all, ...ours.groups][i]!;
          expect(group).toEqual({ ...want, lost: null, noise: null, ratio: group.ratio, gradNorm: group.gradNorm });
          expect(group.ratio).toBeCloseTo(want.ratio, 12);
          expect(group.gradNorm).toBeCloseTo(want.gradNorm, 12);
        }
      }
    }
  });

  test('the same numbers by whatever passes', async () => {
    const found: unknown[] = [];
    for (const more of [{ clip: { norm: 2 } }, { clip: { norm: 2 }, spill: 'memory' as const }]) {
      found.push(await measured(new Given(start('bf16'), options({ ...more, telemetry: true })), gradients(1), { lr: 0.01 }));
    }
    expect(found[1]).toEqual(found[0]);
  });
});

test('a parameter larger than what is kept of old weights is watched slice by slice, and a sick last row still writes nothing', async () => {
  const random = new Random(3);
  const shape = [700, 500]; // 1.4 MB in f32, slices hold 1 MiB
  const [values, g] = [random.normal(350_000), random.normal(350_000)];
  const own = new Given({ w: { shape, values } }, { rule: lomo, telemetry: true, bytes: 1 << 23 });
  const other = new Given({ w: { shape, values } }, { rule: foreign(lomo), telemetry: true, bytes: 1 << 23 });
  const [ours, theirs] = [await measured(own, { w: g }, { lr: 0.1 }), await measured(other, { w: g }, { lr: 0.1 })];
  expect(await other.everything()).toEqual(await own.everything());
  expect(theirs.all).toMatchObject({ changed: ours.all.changed, lost: null });
  expect(theirs.all.ratio).toBeCloseTo(ours.all.ratio, 12);
  const before = await other.everything();
  expect((await other.update({ w: g.with(349_999, NaN) }, { step: 2, lr: 0.1, measured: true })).gate).toEqual({ at: 0 });
  expect(await other.everything()).toEqual(before);
});

test('a foreign rule that leaves a parameter alone is not said to have done to it what it did to the one before', async () => {
  const { measures: _, ...rest } = lomo;
  const picky: Rule = { ...rest, name: 'picky', update: (p, g, state, context) => (p.path === 'left' ? undefined : lomo.update(p, g, state, context)) };
  const given = new Given({ moved: { shape: [1, 2], values: [1, 2] }, left: { shape: [1, 2], values: [5, 6] } }, { rule: picky, telemetry: { groupOf: ({ path }) => path } });
  await given.update({ moved: [1, 1], left: [1, 1] }, { lr: 1, measured: true });
  const { groups } = await given.optimizer.telemetry!.read();
  expect(groups.map(({ group, changed, ratio }) => [group, changed, ratio > 0])).toEqual([['moved', 1, true], ['left', 0, false]]);
});

describe('what it costs', () => {
  /** Launches and allocations of one step. */
  async function work(options: OptimizerOptions, update: UpdateOptions) {
    const given = new Given(start('bf16'), options);
    await given.update(gradients(1), update);
    const launches: string[] = [];
    const allocations: string[] = [];
    given.device.observer = { launched: (op, { outs }) => launches.push(`${op.name} ${outs.length}`) };
    given.device.arena.observer = { allocated: ({ category, bytes }) => allocations.push(`${category} ${bytes}`) };
    await given.update(gradients(2), { ...update, step: 2 });
    return { launches, allocations };
  }

  test.each(named)('%s: nothing at a step that is not measured; a sum a parameter and one fill at others, and no allocation', async (_, rule) => {
    const without = await work({ rule }, { lr: 0.1 });
    const idle = await work({ rule, telemetry: true }, { lr: 0.1 });
    expect(idle).toEqual(without);
    const busy = await work({ rule, telemetry: true }, { lr: 0.1, measured: true });
    expect(busy.launches.length).toBe(without.launches.length + paths.length + 1);
    expect(busy.launches.filter((name) => name.startsWith('update_total'))).toHaveLength(paths.length);
    expect(busy.allocations).toEqual(without.allocations);
    const watched = await work({ rule: foreign(rule), telemetry: true }, { lr: 0.1, measured: true });
    expect(watched.allocations).toEqual(without.allocations);
  });

  test('without the option there is nothing: measured passes are the passes', () => {
    const { optimizer, device } = new Given(start('bf16'), { rule: lomo });
    expect(optimizer.telemetry).toBeNull();
    expect(optimizer.measuredPasses).toBe(optimizer.passes);
    expect(device.arena.usage.workspace.live).toBe(0);
  });
});
