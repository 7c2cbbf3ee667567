// The allocator's promises, for random sequences of calls: no overlap, alignment, determinism, counts that add up, a layout without history.
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { alignment, Arena, categories, isLomoError } from '../src/index.ts';
import type { Block, Category } from '../src/index.ts';

/** Allocates `bytes`, or frees the live block number `victim` modulo their count. */
type Call = { readonly bytes: number; readonly category: Category } | { readonly victim: number };

const call: fc.Arbitrary<Call> = fc.oneof(
  { weight: 3, arbitrary: fc.record({ bytes: fc.oneof(fc.integer({ min: 0, max: 5000 }), fc.constantFrom(256, 512, 1024)), category: fc.constantFrom(...categories) }) },
  { weight: 2, arbitrary: fc.record({ victim: fc.nat(1000) }) },
);
const calls = fc.array(call, { maxLength: 120 });

function play(arena: Arena, sequence: readonly Call[], each: (live: readonly Block[], asked: number) => void = () => {}): Block[] {
  const live: Block[] = [];
  for (const step of sequence) {
    if ('bytes' in step) live.push(arena.allocate(step.bytes, step.category));
    else if (live.length > 0) arena.release(live.splice(step.victim % live.length, 1)[0]!);
    each(live, 'bytes' in step ? step.bytes : -1);
  }
  return live;
}

test('blocks never overlap, are aligned, hold what was asked for and stay below the extent', () => {
  fc.assert(
    fc.property(calls, (sequence) => {
      const arena = new Arena();
      play(arena, sequence, (live, asked) => {
        const sorted = live.toSorted((a, b) => a.offset - b.offset);
        sorted.forEach((block, i) => {
          expect(block.offset % alignment).toBe(0);
          expect(block.offset).toBeGreaterThanOrEqual(i === 0 ? 0 : sorted[i - 1]!.offset + sorted[i - 1]!.bytes);
          expect(block.offset + block.bytes).toBeLessThanOrEqual(arena.extent);
        });
        if (asked >= 0) expect(live.at(-1)!.bytes).toBeGreaterThanOrEqual(Math.max(1, asked));
      });
    }),
  );
});

test('live and peak bytes add up, in all and by category', () => {
  fc.assert(
    fc.property(calls, (sequence) => {
      const arena = new Arena();
      let peak = 0;
      const peaks = new Map<Category, number>();
      play(arena, sequence, (live) => {
        const sum = (blocks: readonly Block[]): number => blocks.reduce((total, b) => total + b.bytes, 0);
        peak = Math.max(peak, sum(live));
        expect(arena.live).toBe(sum(live));
        expect(arena.peak).toBe(peak);
        for (const c of categories) {
          const own = sum(live.filter((b) => b.category === c));
          peaks.set(c, Math.max(peaks.get(c) ?? 0, own));
          expect(arena.usage[c]).toEqual({ live: own, peak: peaks.get(c) });
        }
      });
    }),
  );
});

test('the same calls give the same offsets, whatever the capacity', () => {
  fc.assert(
    fc.property(calls, (sequence) => {
      const plan = new Arena();
      const offsets: number[] = [];
      play(plan, sequence, (live) => offsets.push(...live.map((b) => b.offset)));
      // A memory of exactly the planned extent holds the run: that is what a plan is for.
      const real = new Arena(plan.extent);
      const again: number[] = [];
      play(real, sequence, (live) => again.push(...live.map((b) => b.offset)));
      expect(again).toEqual(offsets);
      expect(real.extent).toBe(plan.extent);
    }),
  );
});

test('after everything is freed, the layout has no memory of what was there', () => {
  fc.assert(
    fc.property(calls, calls, (before, after) => {
      const used = new Arena();
      for (const block of play(used, before)) used.release(block);
      expect(used.live).toBe(0);
      const [a, b]: [number[], number[]] = [[], []];
      play(used, after, (live) => a.push(...live.map((x) => x.offset)));
      play(new Arena(), after, (live) => b.push(...live.map((x) => x.offset)));
      expect(a).toEqual(b);
    }),
  );
});

test('a freed hole between live blocks is used again, the best fitting one first', () => {
  const arena = new Arena();
  const blocks = [1024, 256, 512, 256].map((bytes) => arena.allocate(bytes, 'saved'));
  arena.release(blocks[0]!);
  arena.release(blocks[2]!);
  expect(arena.allocate(500, 'saved').offset).toBe(blocks[2]!.offset);
  expect(arena.allocate(500, 'saved').offset).toBe(0);
  expect(arena.extent).toBe(2048);
});

test('a full arena says what did not fit, and what is live', () => {
  const arena = new Arena(1024);
  arena.allocate(512, 'weights');
  expect(() => arena.allocate(600, 'logits')).toThrow(/arena of 1024 bytes cannot place 768 bytes \(logits\): 512 bytes are live/);
  try {
    arena.allocate(600, 'logits');
  } catch (error) {
    expect(isLomoError(error, 'OutOfMemory')).toBe(true);
  }
  // The refusal changed nothing.
  expect(arena.live).toBe(512);
  expect(arena.allocate(512, 'logits').offset).toBe(512);
});

test('owners are counted; one release too many and a late owner are errors', () => {
  const arena = new Arena();
  const block = arena.allocate(100, 'state');
  arena.retain(block);
  arena.release(block);
  expect(arena.live).toBe(256);
  arena.release(block);
  expect(arena.live).toBe(0);
  expect(() => arena.release(block)).toThrow(expect.objectContaining({ code: 'DoubleFree' }));
  expect(() => arena.retain(block)).toThrow(expect.objectContaining({ code: 'UseAfterFree' }));
});

test('a block may change its category, and peaks can be measured anew', () => {
  const arena = new Arena();
  const block = arena.allocate(256, 'saved');
  arena.assign(block, 'boundary');
  expect(arena.usage.saved).toEqual({ live: 0, peak: 256 });
  expect(arena.usage.boundary).toEqual({ live: 256, peak: 256 });
  arena.release(arena.allocate(1024, 'logits'));
  arena.resetPeaks();
  expect(arena.peak).toBe(256);
  expect(arena.usage.logits.peak).toBe(0);
});

test('an undertaking that is rolled back gives back what it made and the shares it took; handles that are left do nothing', () => {
  const arena = new Arena();
  const old = arena.allocate(256, 'weights');
  const undertaking = arena.undertake();
  expect(() => arena.undertake()).toThrow(expect.objectContaining({ code: 'ArenaError' }));
  arena.retain(old);
  const [first, second] = [arena.allocate(512, 'saved'), arena.allocate(1024, 'workspace')];
  arena.release(arena.allocate(100, 'logits'));
  arena.release(first);
  arena.retain(second);
  undertaking.rollback();
  expect([arena.live, old.owners, arena.usage.workspace.live, arena.usage.weights.live]).toEqual([256, 1, 0, 256]);
  arena.release(second);
  expect(arena.live).toBe(256);
  expect(() => arena.retain(second)).toThrow(expect.objectContaining({ code: 'UseAfterFree' }));
  // The layout is that of the live blocks.
  expect(arena.allocate(512, 'saved').offset).toBe(256);
});

test('a committed undertaking leaves everything as it is', () => {
  const arena = new Arena();
  const undertaking = arena.undertake();
  const block = arena.allocate(256, 'state');
  undertaking.commit();
  expect(arena.live).toBe(256);
  arena.release(block);
  expect(arena.live).toBe(0);
});
