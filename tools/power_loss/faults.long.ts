// The whole sweep over every file call of saves and resumes: `pnpm test:long faults`. The slice that CI runs is packages/trainer/test/faults.test.ts.
import { describe, expect, test } from 'vitest';
import { saveCases, sweepOutages, sweepResume, sweepSaves } from '../../packages/trainer/test/fault_sweep.ts';

const all = { from: 1, stride: 1 };

describe.each(saveCases)('$name', (wanted) => {
  test.each([false, true])('from a copy: %s', async (copied) => {
    const failed = await sweepSaves(wanted, { copied, ...all });
    console.log(`${wanted.name}${copied ? ', from a copy' : ''}: ${failed} of ${failed} failing calls left every saved checkpoint whole`);
    expect(failed).toBeGreaterThan(35);
  });
});

test('resumes', async () => {
  const failed = await sweepResume(all);
  console.log(`${failed} of ${failed} failing calls of a resume named path and errno`);
  expect(failed).toBeGreaterThan(15);
});

test('outages', async () => {
  const failed = await sweepOutages(all);
  console.log(`${failed} of ${failed} outages in the middle of a save lost nothing`);
  expect(failed).toBeGreaterThan(35);
});
