// Schedules: breadth-first for any placement, as a line a stage, and every wrong order refused before anything runs.
import fc from 'fast-check';
import { isLomoError } from '@lomo/tensor';
import { describe, expect, test } from 'vitest';
import type { Work } from '../src/index.ts';
import { breadthFirst, checkSchedule, printSchedule } from '../src/index.ts';

const input = { rank: 0, placement: [0, 0, 0], microBatches: 2 };
const sound = breadthFirst(input);
const refusal = (actions: readonly Work[], over = input): string => {
  try {
    checkSchedule(actions, over);
  } catch (error) {
    if (isLomoError(error, 'ScheduleError')) return error.message;
    throw error;
  }
  return 'accepted';
};
const without = (kind: Work['kind'], stage: number, microBatch: number): Work[] =>
  sound.filter((a) => !(a.kind === kind && a.stage === stage && a.microBatch === microBatch));

test('breadth-first takes every micro-batch through a stage before the next stage begins', () => {
  expect(printSchedule(sound)).toBe('F0: 0 1\nF1: 0 1\nB2: 0 1\nB1: 0 1\nB0: 0 1');
  expect(refusal(sound)).toBe('accepted');
});

test('whatever the placement, each rank does each of its actions once, and its schedule is sound', () => {
  const placements = fc.array(fc.integer({ min: 0, max: 3 }), { minLength: 1, maxLength: 9 });
  fc.assert(
    fc.property(placements, fc.integer({ min: 1, max: 5 }), (placement, microBatches) => {
      const all = [0, 1, 2, 3].flatMap((rank) => {
        const own = { rank, placement, microBatches };
        const actions = breadthFirst(own);
        checkSchedule(actions, own);
        expect(actions.every(({ stage }) => placement[stage] === rank)).toBe(true);
        return actions;
      });
      const forwards = all.filter(({ kind }) => kind === 'forward').length;
      expect([forwards, all.length - forwards]).toEqual([(placement.length - 1) * microBatches, placement.length * microBatches]);
    }),
  );
});

test('depth first is sound too: one micro-batch all the way, then the next', () => {
  const one = (microBatch: number): Work[] => [
    { kind: 'forward', stage: 0, microBatch },
    { kind: 'forward', stage: 1, microBatch },
    ...[2, 1, 0].map((stage) => ({ kind: 'backward' as const, stage, microBatch })),
  ];
  expect(refusal([...one(0), ...one(1)])).toBe('accepted');
});

describe('refused', () => {
  const cases: readonly (readonly [string, readonly Work[], RegExp])[] = [
    ['a forward before what arrives', sound.toSpliced(0, 4, ...sound.slice(2, 4), ...sound.slice(0, 2)), /forward of stage 1, micro-batch 0, runs before forward 0/],
    ['a missing forward', without('forward', 0, 1), /stage 1, micro-batch 1, runs before forward 0/],
    ['a walk before the gradient', without('backward', 2, 1), /backward of stage 1, micro-batch 1, runs before backward 2/],
    ['a stage that is never walked back', without('backward', 0, 1), /stage 0 is never walked back for micro-batch 1/],
    ['nothing at all', [], /stage 0 is never walked back/],
    ['a walk twice', [...sound, sound.at(-1)!], /backward of stage 0, micro-batch 1, happens twice/],
    ['descending micro-batches', sound.toSpliced(-2, 2, ...sound.slice(-2).toReversed()), /stage 0, micro-batch 1, is out of order/],
    ['a forward of the last stage', [...sound.slice(0, 4), { kind: 'forward', stage: 2, microBatch: 0 }, ...sound.slice(4)], /makes its loss when it is walked back/],
    ['a micro-batch too many', [...sound, { kind: 'backward', stage: 0, microBatch: 2 }], /no such stage or micro-batch/],
    ['a stage that is not there', [...sound, { kind: 'backward', stage: 3, microBatch: 0 }], /no such stage or micro-batch/],
  ];
  test.each(cases)('%s', (_, actions, expected) => {
    expect(refusal(actions)).toMatch(expected);
  });

  test("another rank's stage", () => {
    expect(refusal(sound, { ...input, placement: [0, 1, 0] })).toMatch(/stage 1, micro-batch 0, is not rank 0's/);
  });
});
