// A million samples are laid out in turns: timers and signals have theirs meanwhile, and the steps are those that are laid out at once.
import { createHash } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import type { StepsOptions } from '../src/index.ts';
import { shuffling } from '../src/shuffle.ts';
import { Steps } from '../src/steps.ts';
import type { StepsInput } from '../src/steps.ts';
import { atOnce, inTurns } from '../src/turns.ts';

/** Samples of which only the lengths are known. */
function inputOf(samples: number): StepsInput {
  const lengths = Int32Array.from({ length: samples }, (_, i) => 20 + ((i * 7919) % 480));
  return {
    lengths, targets: lengths.map((length) => length >> 1), maxSeqLength: 512, padId: 0, order: (epoch) => shuffling(samples, 42, epoch),
    sampleAt: (index) => ({ index, ids: new Int32Array(lengths[index] ?? 0).fill(index), trained: new Uint8Array(lengths[index] ?? 0).fill(1), where: `mem:${index}` }),
  };
}

/** SHA-256 of which samples every so-many-th step holds, in which micro-batch. */
function digest(steps: Steps, stride = 1): string {
  const hash = createHash('sha256').update(JSON.stringify(steps.report()));
  for (let i = 0; i < steps.length; i += stride) hash.update(JSON.stringify(steps.at(i).batches.map(({ samples, starts }) => [samples, [...starts]])));
  return hash.digest('hex');
}

const ways: readonly (readonly [string, StepsOptions])[] = [
  ['filled by tokens', { capacity: 2048, microBatches: 4, epochs: 2 }],
  ['by sequences', { capacity: 2048, sequencesPerStep: 64, maxSteps: 100 }],
  ['one sample a row', { capacity: 2048, packing: false, lastStep: 'drop' }],
];

describe('steps laid out in turns', () => {
  it.each(ways)('%s, are those laid out at once', async (_, options) => {
    const input = inputOf(3_000);
    const [whole, turned] = [Steps.atOnce(input, options), await Steps.inTurns(input, options)];
    expect(digest(turned)).toBe(digest(whole));
    const wider = turned.widened(whole.maxSegments + 3);
    expect(digest(wider)).toBe(digest(Steps.atOnce(input, { ...options, maxSegments: whole.maxSegments + 3 })));
    expect(() => wider.widened(whole.maxSegments)).toThrow(expect.objectContaining({ code: 'SegmentsTooMany' }));
    await wider.prepare(0);
    expect(wider.at(0).samples).toEqual(whole.at(0).samples);
  });

  it('of a million samples leave a timer its turns', async () => {
    const input = inputOf(1_000_000);
    // Processor time, not wall time: other processes may have the core meanwhile.
    const used = (): number => process.cpuUsage().user / 1000;
    const gaps: number[] = [];
    let at = used();
    const timer = setInterval(() => {
      gaps.push(used() - at);
      at = used();
    }, 1);
    const steps = await Steps.inTurns(input, { capacity: 512 });
    clearInterval(timer);
    const most = Math.max(...gaps, used() - at);
    process.stdout.write(`${steps.length} steps of ${input.lengths.length} samples: ${gaps.length} turns of a timer, at most ${most.toFixed(0)} ms of processor time between two\n`);
    expect(gaps.length).toBeGreaterThan(10);
    expect(most).toBeLessThan(200);
  });

  it('are given up by a signal', async () => {
    const controller = new AbortController();
    setTimeout(() => controller.abort(new Error('enough')), 30);
    await expect(Steps.inTurns(inputOf(1_000_000), { capacity: 512, epochs: 1000 }, controller.signal)).rejects.toThrow('enough');
  });
});

describe('work', () => {
  function* counting(to: number): Generator<void, number, void> {
    for (let i = 0; i < to; i += 1) yield;
    return to;
  }
  it('returns the same at once and in turns', async () => {
    expect(atOnce(counting(1000))).toBe(1000);
    expect(await inTurns(counting(1000))).toBe(1000);
    await expect(inTurns(counting(1), AbortSignal.abort(new Error('before')))).rejects.toThrow('before');
  });
});
