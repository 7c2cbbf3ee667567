// Who takes part in a step: frozen parameters, parameters without gradient, reads nobody announced; and evaluation, in which nobody moves.
import { lomo } from '@lomo/optim';
import { rmsNorm, Stage } from '@lomo/tensor';
import type { Batch, Parameter, Tensor } from '@lomo/tensor';
import { describe, expect, test } from 'vitest';
import { refusal, segment, Trial } from './trial.ts';

const optimizer = { rule: lomo };

describe('who takes part', () => {
  test('frozen parameters never settle, and the others move as if nothing were frozen', async () => {
    const frozen = (path: string): boolean => path === 'embed' || path.includes('norm') || path === 'block 0.q' || path === 'block 0.q_bias';
    for (const split of [{ count: 1 }, { count: 4, accumulate: 'factors' }] as const) for (const headForm of ['chunks', 'tiles'] as const) {
      const [all, some] = [new Trial({ ...split, headForm, optimizer }), new Trial({ ...split, headForm, optimizer, trainable: (path) => !frozen(path) })];
      const before = new Map(await Promise.all(some.parameters.map(async (p) => [p.path, await some.hash(p)] as const)));
      await all.step(1);
      await some.step(1);
      for (const p of some.parameters) {
        expect(await some.hash(p), p.path).toBe(frozen(p.path) ? before.get(p.path) : await all.hash(all.parameter(p.path)));
        expect(p.version).toBe(frozen(p.path) ? 0 : 1);
      }
    }
  });

  test('only the head, only the embedding', async () => {
    for (const only of ['head', 'embed']) for (const headForm of ['chunks', 'tiles'] as const) {
      const trial = new Trial({ headForm, optimizer, trainable: (path) => path === only });
      const before = await trial.digest();
      await trial.step(1);
      expect(await trial.digest()).not.toBe(before);
      expect(trial.parameters.filter((p) => p.version > 0).map((p) => p.path)).toEqual([only]);
    }
  });

  /** A stage with a parameter that it names, and reads only if told so. */
  class Spare extends Stage {
    readonly name = 'spare';
    readonly spare: Parameter;
    private readonly reads: boolean;

    constructor(spare: Parameter, reads: boolean) {
      super();
      this.spare = spare;
      this.reads = reads;
    }

    forward(_: Batch, arriving: Tensor): Tensor {
      const normed = rmsNorm(arriving, this.spare, 1e-5);
      // A branch nobody differentiates, or nothing at all: what leaves does not depend on the weight.
      if (!this.reads) normed.dispose();
      return arriving.share();
    }
  }

  test('a parameter without gradient settles with zero: it decays, and does not move otherwise', async () => {
    for (const reads of [true, false]) {
      const trial = new Trial({
        count: 2,
        optimizer: { rule: lomo, weightDecay: 0.5, decays: () => true },
        stages: ([embed, ...rest], device) => {
          const spare = device.parameter('spare', { shape: [8], dtype: 'f32' });
          device.writeNumbers(spare, [1, 2, 3, 4, 5, 6, 7, 8]);
          return [embed!, new Spare(spare, reads), ...rest];
        },
      });
      await trial.step(1);
      const p = trial.parameter('spare');
      expect(p.version).toBe(1);
      expect([...trial.backend.readExact(p)]).toEqual([1, 2, 3, 4, 5, 6, 7, 8].map((w) => w * (1 - Math.fround(0.05) * 0.5)));
    }
  });

  /** A stage that reads a parameter it does not name. */
  class Thief extends Stage {
    readonly name = 'thief';
    private readonly inner: Stage;
    private readonly stolen: () => Parameter;

    constructor(inner: Stage, stolen: () => Parameter) {
      super();
      this.inner = inner;
      this.stolen = stolen;
    }

    forward(batch: Batch, arriving: Tensor): Tensor | null {
      return this.inner.forward(batch, rmsNorm(arriving, this.stolen(), 1e-5));
    }
  }

  test('a read that no stage announced is refused before anything changes: recomputed, kept, and in the last stage', async () => {
    for (const [at, keeps] of [[1, false], [1, true], [2, false]] as const) {
      const trial: Trial = new Trial({
        count: 2,
        keeps,
        optimizer,
        stages: (stages) => stages.map((stage, s) => (s === at ? new Thief(stage, () => trial.parameter(at === 2 ? 'block 0.norm1' : 'norm')) : stage)),
      });
      const [before, { live }] = [await trial.digest(), trial.device.arena];
      const error = await refusal(() => trial.step(1));
      expect(error.code).toBe('UndeclaredRead');
      expect(error.message).toMatch(/^stage 'thief' reads (block 0\.)?norm1?, which is not among its own properties/);
      expect(await trial.digest()).toBe(before);
      expect(trial.device.arena.live).toBe(live);
    }
  });

  test('a parameter the optimizer was not given is named', async () => {
    const trial = new Trial({ optimizer });
    const { passes } = new Trial({ optimizer }).optimizer;
    expect(await refusal(() => trial.step(1, passes))).toMatchObject({ code: 'UnknownParameter', message: expect.stringMatching(/^(head|norm) settled/) });
  });
});

describe('evaluation', () => {
  test("gives the step's loss and changes nothing", async () => {
    for (const headForm of ['chunks', 'tiles'] as const) for (const count of [1, 4]) {
      const trial = new Trial({ tied: true, count, headForm, optimizer });
      const [before, { live }] = [await trial.digest(), trial.device.arena];
      const evaluated = await trial.program.evaluate(trial.batches(1));
      const losses = await trial.program.tokenLosses(0);
      expect(await trial.digest()).toBe(before);
      expect(trial.device.arena.live).toBe(live);
      const stepped = await trial.step(1);
      expect(evaluated.trained).toBe(stepped.trained);
      expect(evaluated.loss).toBeCloseTo(stepped.loss, 6);
      expect(losses).toHaveLength(32 / count);
      expect(losses.filter((x) => x === 0).length).toBeGreaterThanOrEqual(32 / count / segment);
      if (count === 1 && headForm === 'chunks') expect(evaluated.lossSum).toBe(stepped.lossSum);
    }
  });

  test('no trained token: a loss of zero, and zero gradients', async () => {
    const trial = new Trial({ optimizer });
    const batches = trial.batches(1).map((batch) => ({ ...batch, targets: batch.targets.map(() => -100) }));
    const before = await trial.digest();
    expect(await trial.program.run({ batches, step: 1, seed: 3, lr: 0.05, passes: trial.optimizer.passes })).toMatchObject({ loss: 0, lossSum: 0, trained: 0 });
    expect(await trial.digest()).toBe(before);
    expect(await trial.program.evaluate(batches)).toEqual({ loss: 0, lossSum: 0, trained: 0 });
  });

  test('a batch of another shape than the plan is refused', async () => {
    const trial = new Trial({ count: 2, optimizer });
    const other = new Trial({ count: 4, optimizer }).batches(1);
    const run = (batches: typeof other) => () => trial.program.run({ batches, step: 1, seed: 1, lr: 0, passes: [] });
    expect((await refusal(run(other))).message).toBe('4 micro-batches, the plan has 2');
    expect(await refusal(run(other.slice(0, 2)))).toMatchObject({ code: 'BatchShapeError', message: 'micro-batch 0: tokens has 8 elements, the plan has 16' });
  });
});
