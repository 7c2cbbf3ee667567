// The shared golden folder on both backends: the parity of this workspace with PyTorch.
import { describe, expect, test } from 'vitest';
import { golden, hasGolden, misses, run } from './command.ts';

describe.skipIf(!hasGolden)('the shared golden values (skipped where ../shared/golden is absent)', () => {
  test('cpu: everything within 4 times the float32 distance', async () => {
    const ran = await run([golden, '--backend', 'cpu']);
    expect(misses(ran)).toEqual([]);
    expect(ran.status).toBe(0);
    expect(ran.lines.at(-1)).toMatch(/^golden on cpu: \d{3} held, 0 missed, 1 skipped in /);
    // What a newcomer to this file should see: every kind of case was there.
    for (const name of ['models/qwen3/gradients', 'rules/adalomo/state after 5', 'numbers/bf16/cast kernel', 'numbers/schedules/wsd', 'tokenizers/gpt2/ids', 'stories260k/greedy/tokens',
      'stories260k/forward/masked/gradients', 'stories260k/trajectories/lomo/weights after 100', 'stories260k/accumulation/one_empty/factors/lomo_clip_norm/weights']) {
      expect(ran.lines.some((line) => line.startsWith('ok') && line.includes(name)), name).toBe(true);
    }
  }, 150_000);

  test('reference: tiny models, rules, one update of each trajectory, within 1e-7', async () => {
    const ran = await run([golden, '--backend', 'reference']);
    expect(misses(ran)).toEqual([]);
    expect(ran.status).toBe(0);
    expect(ran.lines.at(-1)).toMatch(/^golden on reference: \d{3} held, 0 missed, 10 skipped in /);
  }, 150_000);
});
