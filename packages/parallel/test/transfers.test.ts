// Transfers in a schedule: what they look like, that they are sound for any work and any absences, and that every unsound order is refused.
import fc from 'fast-check';
import { isLomoError } from '@lomo/tensor';
import { describe, expect, test } from 'vitest';
import type { Absences, Action, PassKind, Transfer, Work } from '../src/index.ts';
import { absentBoundaries, breadthFirst, checkTransfers, isTransfer, printSchedule, withTransfers } from '../src/index.ts';

const only: PassKind = { first: true, last: true, writes: true };
const all = (stages: number, what: boolean): boolean[] => Array.from({ length: stages }, () => what);
const workOf = (stages: number, microBatches = 1): readonly Work[] => breadthFirst({ rank: 0, placement: Array.from({ length: stages }, () => 0), microBatches });
const lines = (actions: readonly Action[]): string => printSchedule(actions).replaceAll('weights ', '').replaceAll('boundary', 'b').replaceAll('\n', ', ');

describe('weights that come and go', () => {
  const absences: Absences = { weights: all(5, true), boundaries: [] };

  test('are fetched a stage ahead, stay where they are needed again at once, and go back when they have been updated', () => {
    expect(lines(withTransfers(workOf(5, 2), absences, only))).toBe(
      [
        'gather 0, gather 1, F0: 0 1, release 0, gather 2, F1: 0 1, release 1, gather 3, F2: 0 1, release 2, gather 4, F3: 0 1',
        'B4: 0 1, store 4, gather 2, B3: 0 1, store 3, release 4, gather 1, B2: 0 1, store 2, release 3, gather 0, B1: 0 1, store 1, release 2, B0: 0 1',
        'store 0, release 0, release 1',
      ].join(', '),
    );
  });

  test('are only read in a pass that judges', () => {
    const judged = withTransfers(workOf(5), absences, { first: false, last: false, writes: false });
    expect(lines(judged)).toBe('gather 4, gather 3, B4: 0, release 4, gather 2, B3: 0, release 3, gather 1, B2: 0, release 2, gather 0, B1: 0, release 1, B0: 0, release 0');
  });

  test('cost two reads and a write of a stage, whatever the micro-batches; first and last stages on the way back one read less', () => {
    for (const microBatches of [1, 4]) {
      const actions = withTransfers(workOf(9, microBatches), { weights: all(9, true), boundaries: [] }, only);
      const count = (kind: Transfer['kind']): number => actions.filter((action) => action.kind === kind).length;
      expect([count('gather'), count('store'), count('release')]).toEqual([2 * 9 - 2, 9, 2 * 9 - 2]);
    }
  });
});

test('boundaries go where there is time for the way', () => {
  const work = workOf(6);
  const boundaries = absentBoundaries(work, 6);
  expect(boundaries).toEqual([false, true, true, true, false, false]);
  expect(lines(withTransfers(work, { weights: [], boundaries }, only))).toBe(
    'F0: 0, F1: 0, store b 1, F2: 0, store b 2, release b 1, F3: 0, store b 3, release b 2, F4: 0, release b 3, B5: 0, gather b 3, B4: 0, gather b 2, B3: 0, gather b 1, B2: 0, B1: 0, B0: 0',
  );
  expect(lines(withTransfers(work, { weights: [], boundaries }, { first: false, last: false, writes: false }))).toBe(
    'B5: 0, gather b 3, B4: 0, gather b 2, B3: 0, release b 3, gather b 1, B2: 0, release b 2, B1: 0, release b 1, B0: 0',
  );
});

const flags = (n: number) => fc.array(fc.boolean(), { minLength: n, maxLength: n });
const cases = fc.integer({ min: 1, max: 9 }).chain((stages) =>
  fc.record({ stages: fc.constant(stages), microBatches: fc.integer({ min: 1, max: 3 }), weights: flags(stages), wanted: flags(stages), first: fc.boolean(), last: fc.boolean(), writes: fc.boolean() }),
);

test('whatever is away and whatever a pass does, the actions are sound, and at most three stages are there at once', () => {
  fc.assert(
    fc.property(cases, ({ stages, microBatches, weights, wanted, ...pass }) => {
      const work = workOf(stages, microBatches);
      const absences = { weights, boundaries: absentBoundaries(work, stages).map((may, s) => may && wanted[s]!) };
      const actions = withTransfers(work, absences, pass);
      checkTransfers(actions, absences, pass);
      expect(actions.filter((action) => !isTransfer(action))).toEqual(pass.first ? work : work.filter(({ kind }) => kind === 'backward'));
      let [here, most] = [0, 0];
      for (const action of actions) {
        if (isTransfer(action) && action.what === 'weights' && action.kind !== 'store') here += action.kind === 'gather' ? 1 : -1;
        most = Math.max(most, here);
      }
      expect(most).toBeLessThanOrEqual(3);
    }),
    { numRuns: 300 },
  );
});

describe('refused', () => {
  const work = workOf(6);
  const absences: Absences = { weights: all(6, true), boundaries: absentBoundaries(work, 6) };
  const sound = withTransfers(work, absences, only);
  const refusal = (actions: readonly Action[]): string => {
    try {
      checkTransfers(actions, absences, only);
    } catch (error) {
      if (isLomoError(error, 'ScheduleError')) return error.message;
      throw error;
    }
    return 'accepted';
  };
  const at = (kind: Action['kind'], stage: number, what?: Transfer['what']): number => sound.findIndex((a) => a.kind === kind && a.stage === stage && (!isTransfer(a) || a.what === what));
  const without = (index: number): Action[] => sound.toSpliced(index, 1);
  const moved = (from: number, to: number): Action[] => sound.toSpliced(from, 1).toSpliced(to - (to > from ? 1 : 0), 0, sound[from]!);

  test.each<readonly [string, readonly Action[], RegExp]>([
    ['nothing gathered', work, /forward of stage 0, micro-batch 0, runs while its weights are away/],
    ['weights that never come', without(at('gather', 3, 'weights')), /forward of stage 3, micro-batch 0, runs while its weights are away/],
    ['weights that come too late to overlap', moved(at('gather', 3, 'weights'), at('forward', 3)), /forward of stage 3, micro-batch 0, waits for its weights: gathered too late/],
    ['weights that go before their last reader', moved(at('release', 2, 'weights'), at('forward', 2)), /release of the weights of stage 2 comes before anybody has used it/],
    ['updated weights that are not stored', without(at('store', 2, 'weights')), /release of the weights of stage 2 loses what has changed/],
    ['weights that never go', without(at('release', 0, 'weights')), /gather of the weights of stage 0 finds it on the device/],
    ['weights that stay at the end', without(sound.length - 1), /the weights of stage 1 are never released/],
    ['weights gathered twice', sound.toSpliced(1, 0, sound[0]!), /gather of the weights of stage 0 finds it on the device/],
    ['weights stored that are not there', [{ kind: 'store', what: 'weights', stage: 1 }, ...sound], /store of the weights of stage 1 finds it away/],
    ['a boundary that is given up before it is stored', without(at('store', 2, 'boundary')), /release of the boundary of stage 2 loses what has changed/],
    ['a boundary that does not come back', without(at('gather', 2, 'boundary')), /backward of stage 2, micro-batch 0, runs while its boundary is away/],
  ])('%s', (_, actions, expected) => {
    expect(refusal(sound)).toBe('accepted');
    expect(refusal(actions)).toMatch(expected);
  });
});
