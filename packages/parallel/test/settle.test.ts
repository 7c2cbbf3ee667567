// The mission: updating while the walk back is under way gives the bits of the textbook, which keeps every gradient and updates at the end.
import { adalomo, adamw, lomo, sgd } from '@lomo/optim';
import type { Clip } from '@lomo/optim';
import { describe, expect, test } from 'vitest';
import type { TrialOptions } from './trial.ts';
import { Trial } from './trial.ts';

const rules = [lomo, adalomo(), adamw(), sgd];
const clips: readonly (readonly [string, Clip])[] = [
  ['no clip', {}],
  ['global norm, two passes', { norm: 0.3 }],
  ["parameters' own norms", { norm: 0.2, scope: 'parameter' }],
];
const splits: readonly (readonly [string, Partial<TrialOptions>])[] = [
  ['one batch', { count: 1 }],
  ['four micro-batches, kept factors', { count: 4, accumulate: 'factors' }],
  ['four micro-batches, a buffer', { count: 4, accumulate: 'buffer' }],
];

describe.each(rules.map((rule) => [rule.name, rule] as const))('%s', (_, rule) => {
  describe.each(clips)('%s', (_name, clip) => {
    test.each(splits)('fused is unfused, bit by bit: %s; tied or not, recomputed or kept, both heads', async (_split, split) => {
      for (const tied of [false, true]) for (const headForm of ['chunks', 'tiles'] as const) {
        const digests = new Set<string>();
        for (const keeps of [false, true]) {
          const options = { tied, keeps, headForm, ...split, optimizer: { rule, clip, weightDecay: 0.1 } };
          const [fused, unfused] = [new Trial(options), new Trial(options)];
          const before = await fused.digest();
          const { live } = fused.device.arena;
          for (let n = 1; n <= 2; n++) {
            const results = [await fused.step(n), await unfused.unfused(n)];
            expect(results[0]!.loss).toBe(results[1]!.loss);
            expect(await fused.digest(), `tied ${tied}, keeps ${keeps}, ${headForm}, step ${n}`).toBe(await unfused.digest());
          }
          expect(fused.device.arena.live).toBe(live);
          expect(await fused.digest()).not.toBe(before);
          digests.add(await fused.digest());
        }
        expect(digests.size).toBe(1);
      }
    });
  });
});

test('lomo is p (1 - lr wd) - lr g of the gradients put aside, by arithmetic that shares nothing with the rule', async () => {
  for (const split of splits) {
    const options: TrialOptions = { tied: true, ...split[1], optimizer: { rule: lomo, weightDecay: 0.1 } };
    const [fused, other] = [new Trial(options), new Trial(options)];
    const gradients = await other.gradients(1);
    await fused.step(1);
    const lr = Math.fround(0.05);
    for (const p of fused.parameters) {
      const [g, old] = [gradients.get(p.path)!, other.backend.readExact(other.parameter(p.path))];
      const keep = p.shape.length >= 2 ? 1 - lr * 0.1 : 1;
      expect(fused.backend.readExact(p), p.path).toEqual(old.map((w, i) => w * keep - lr * g[i]!));
    }
  }
});
