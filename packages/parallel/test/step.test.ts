// One step seen from inside: who reads what when, what it keeps, and what a rejected one leaves as it was.
import { adalomo, adamw, lomo } from '@lomo/optim';
import type { Rule } from '@lomo/optim';
import type { Parameter, Stage, Tensor } from '@lomo/tensor';
import { describe, expect, test } from 'vitest';
import type { TrialOptions } from './trial.ts';
import { refusal, Trial } from './trial.ts';

const optimizer = { rule: lomo };

describe('the mission, watched', () => {
  test('every read of a weight in a step, in all micro-batches, is of its old value; then it changes, once', async () => {
    for (const options of [{ tied: true }, { tied: false, headForm: 'tiles' }, { keeps: true, headForm: 'chunks' }, { optimizer: { rule: lomo, clip: { norm: 0.2 } } }] as const) {
      const count = 4;
      const trial = new Trial({ accumulate: 'factors', optimizer, ...options, count });
      const before = new Map(await Promise.all(trial.parameters.map(async (p) => [p, await trial.hash(p)] as const)));
      const reads = new Map<Parameter, Promise<string>[]>();
      const updates: string[] = [];
      trial.device.observer = {
        launched: (op, { ins, inouts }) => {
          for (const p of trial.parameters) {
            // The hash is taken before this returns: nothing has run in between.
            if (ins.some((t) => t.block === p.block)) reads.set(p, [...(reads.get(p) ?? []), trial.hash(p)]);
            if (inouts.some((t) => t.block === p.block)) updates.push(`${op.name} ${p.path}`);
          }
        },
      };
      await trial.step(1);
      expect(updates.toSorted()).toEqual(trial.parameters.map((p) => `lomo_update ${p.path}`).toSorted());
      for (const p of trial.parameters) {
        const hashes = await Promise.all(reads.get(p)!);
        expect(hashes.length, p.path).toBeGreaterThanOrEqual(count);
        expect(new Set(hashes), p.path).toEqual(new Set([before.get(p)]));
        expect(await trial.hash(p), p.path).not.toBe(before.get(p));
      }
    }
  });

  test('parameters settle last stage first, each once, and a tied one where it was read first', async () => {
    const trial = new Trial({ tied: true, count: 2, optimizer });
    const order: string[] = [];
    await trial.step(1, [{ name: 'watch', settle: (p) => order.push(p.path), finish: () => {} }]);
    expect(order).toHaveLength(trial.parameters.length);
    expect([order[0], order.at(-1)]).toEqual(['norm', 'embed']);
    expect(trial.parameters.map((p) => p.version)).toEqual(trial.parameters.map(() => 1));
  });
});

describe('memory of a step', () => {
  test('each micro-batch more costs a boundary after every stage but the last', async () => {
    const peak = async (count: number, blocks: number, clip = {}): Promise<number> => {
      // 32 tokens of 8 floats: 1024 bytes a boundary, a multiple of the alignment.
      const trial = new Trial({ blocks, count, tokens: 32 * count, optimizer: { rule: lomo, clip } });
      trial.device.arena.resetPeaks();
      await trial.step(1);
      return trial.device.arena.usage.boundary.peak;
    };
    for (const blocks of [1, 3]) {
      const growth = (blocks + 1) * 32 * 8 * 4;
      const [two, three, six] = [await peak(2, blocks), await peak(3, blocks), await peak(6, blocks)];
      expect([three - two, six - three]).toEqual([growth, 3 * growth]);
      // Two passes keep the boundaries until the second one, beside the gradients on their way down in the first.
      expect((await peak(3, blocks, { norm: 1 })) - (await peak(2, blocks, { norm: 1 }))).toBe(growth + 32 * 8 * 4);
    }
  });

  test('recomputed tapes: one stage and one micro-batch at a time; kept tapes: all of them', async () => {
    const peaks = async (blocks: number, keeps: boolean) => {
      const trial = new Trial({ blocks, keeps, count: 2, optimizer });
      trial.device.arena.resetPeaks();
      await trial.step(1);
      return trial.device.arena.usage;
    };
    const [one, four] = [await peaks(1, false), await peaks(4, false)];
    expect(four.recomputed.peak).toBe(one.recomputed.peak);
    expect(four.saved.peak).toBe(0);
    const [keptOne, keptFour] = [await peaks(1, true), await peaks(4, true)];
    expect(keptFour.saved.peak).toBeGreaterThan(3 * keptOne.saved.peak);
  });

  test('gradients: the same peak for any number of blocks and micro-batches', async () => {
    const peak = async (blocks: number, count: number): Promise<number> => {
      const trial = new Trial({ blocks, count, tokens: 8 * count, accumulate: 'buffer', headForm: 'chunks', optimizer });
      trial.device.arena.resetPeaks();
      await trial.step(1);
      return trial.device.arena.usage.gradient.peak;
    };
    expect(await peak(4, 4)).toBe(await peak(1, 4));
    expect(await peak(4, 8)).toBe(await peak(1, 2));
  });
});

test('a gradient of one tile is made once, also for a rule that sweeps it three times; smaller tiles are made for every sweep', async () => {
  const made = async (rule: Rule, tileBytes: number): Promise<number> => {
    const trial = new Trial({ headForm: 'chunks', optimizer: { rule }, tileBytes });
    let products = 0;
    trial.device.observer = { launched: (op) => (products += op.name === 'weight_grad' ? 1 : 0) };
    await trial.step(1);
    return products;
  };
  expect(await made(adalomo(), 1 << 20)).toBe(await made(lomo, 1 << 20));
  expect(await made(adalomo(), 1)).toBeGreaterThan(1.5 * (await made(lomo, 1)));
});

describe('clipping by the global norm', () => {
  test('uses the norm of all gradients together, also where one layer outweighs the rest', async () => {
    for (const [path, factor] of [['block 0.down', 1e-3], ['norm', 1e4], ['block 0.q', 1]] as const) {
      const options: TrialOptions = { count: 4, accumulate: 'factors', optimizer: { rule: lomo, clip: { norm: 0.5 } } };
      const trials = [new Trial(options), new Trial(options)] as const;
      for (const trial of trials) {
        const p = trial.parameter(path);
        trial.backend.writeExact(p, trial.backend.readExact(p).map((w) => w * factor));
      }
      const gradients = await trials[1].gradients(1);
      let square = 0;
      for (const g of gradients.values()) for (const x of g) square += x * x;
      const norm = Math.sqrt(square);
      const { gradNorm, clipCoefficient } = await trials[0].step(1);
      expect(Math.abs(gradNorm / norm - 1)).toBeLessThan(1e-12);
      const coefficient = Math.min(1, 0.5 / (norm + 1e-6));
      expect(clipCoefficient).toBeCloseTo(coefficient, 6);
      const lr = Math.fround(0.05);
      for (const p of trials[0].parameters) {
        const [g, old] = [gradients.get(p.path)!, trials[1].backend.readExact(trials[1].parameter(p.path))];
        trials[0].backend.readExact(p).forEach((w, i) => expect(Math.abs(w - (old[i]! - lr * coefficient * g[i]!))).toBeLessThan(1e-12 * (1 + Math.abs(w))));
      }
    }
  });
});

describe('numbers that are not finite', () => {
  const rules = [lomo, adalomo(), adamw()].map((rule) => [rule.name, rule] as const);

  test.each(rules)('in the loss of one micro-batch: not a byte changes, and the micro-batch is named (%s)', async (_, rule) => {
    for (const split of [{ count: 1 }, { count: 4, accumulate: 'factors' }, { count: 4, accumulate: 'buffer' }] as const) for (const headForm of ['chunks', 'tiles'] as const) {
      const trial = new Trial({ ...split, headForm, optimizer: { rule, weightDecay: 0.1 } });
      await trial.step(1);
      const batches = trial.batches(2);
      // A token that occurs in no other micro-batch reads a row of NaN.
      batches.forEach((batch, m) => batch.tokens.forEach((id, t) => {
        if (id === 18) batch.tokens[t] = 17;
        if (m === batches.length - 1 && t === 0) batch.tokens[t] = 18;
      }));
      trial.backend.writeExact(trial.parameter('embed').rows(18, 19), new Float64Array(8).fill(NaN));
      const before = await trial.digest();
      const error = await refusal(() => trial.program.run({ batches, step: 2, seed: 3, lr: 0.05, passes: trial.optimizer.passes }));
      expect(error.code).toBe('NonFiniteLoss');
      expect(error.message).toBe(`step 2: the loss is NaN (micro-batches ${split.count - 1}); no weight has changed`);
      expect(await trial.digest()).toBe(before);
    }
  });

  /** Block 0's output, whose gradient is infinite in micro-batch 1. */
  const ruined = (stage: Stage): Stage => {
    const forward = stage.forward.bind(stage);
    stage.forward = (batch, arriving) => {
      const out = forward(batch, arriving)!;
      const { device } = out;
      const copy = device.allocate(out, device.category);
      device.copy(copy, out);
      const ruin = (dy: Tensor): Tensor => {
        const bad = device.allocate(dy, 'workspace');
        device.copy(bad, dy);
        if (batch.start > 0) device.writeNumbers(bad.rows(0, 1), Array(dy.shape[1]).fill(Infinity));
        return bad;
      };
      device.recorder?.record({ op: { name: 'ruin', backward: (_, dys) => [ruin(dys[0]!)] }, ins: [out], outs: [copy], attributes: null });
      out.dispose();
      return copy;
    };
    return stage;
  };
  const sick: TrialOptions = { blocks: 3, count: 2, stages: ([embed, one, two, ...rest]) => [embed!, one!, ruined(two!), ...rest], optimizer };

  test('born in a layer: exactly the layers above it have changed, and the step says that it is torn', async () => {
    const trial = new Trial(sick);
    const before = new Map(await Promise.all(trial.parameters.map(async (p) => [p.path, await trial.hash(p)] as const)));
    const error = await refusal(() => trial.step(1));
    expect(error.code).toBe('TornStep');
    const changed: string[] = [];
    for (const p of trial.parameters) if ((await trial.hash(p)) !== before.get(p.path)) changed.push(p.path);
    expect(new Set(changed)).toEqual(new Set(trial.parameters.map((p) => p.path).filter((path) => /^(block 2|norm|head)/.test(path))));
    expect(error.message).toMatch(new RegExp(`the gradient of block 1\\..* is not finite; ${changed.length} parameters had been updated before it`));
  });

  test('born in a layer, judged before the first write: not a byte changes', async () => {
    for (const careful of [{ atomic: true }, { clip: { norm: 1 } }]) {
      const trial = new Trial({ ...sick, optimizer: { rule: lomo, ...careful } });
      const before = await trial.digest();
      expect((await refusal(() => trial.step(1))).code).toBe('NonFiniteGradient');
      expect(await trial.digest()).toBe(before);
    }
  });
});
