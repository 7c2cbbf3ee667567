// The measured section of docs/performance.md: made of results alone, between its marks; and the trace of bench profile is one.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { cpu } from '@lomo/cpu';
import { lomo } from '@lomo/optim';
import { expect, test } from 'vitest';
import { crossings, parseTrace } from '../../tools/tiny/trace.ts';
import { planStep } from '../src/assembly.ts';
import { marks, performanceSection, withSection } from '../src/markdown.ts';
import { modelConfig } from '../src/models.ts';
import { newestResults } from '../src/performance.ts';
import { traceOf } from '../src/tracing.ts';

const kept = { date: '2026-11-24T10:00:00.000Z', machine: 'a machine', figure: 'fast', missed: [] };
const line = { name: 'matmul', launches: 4, milliseconds: 8, least: 6, flops: 6e9, bytes: 10 };
const profiled = {
  ...kept, name: 'profile', threads: 2,
  profiles: [{ name: '1m f32 4x2 lomo', step: 11, sum: 10, between: 0.5, limits: { flops: 1e9, bytes: 1e6 }, byOp: [line, { ...line, name: 'add', milliseconds: 2, least: 1, flops: 5, bytes: 1e6 }], byShape: [] }],
};
const timed = {
  ...kept, name: 'ops',
  sets: [{ model: '1m', dtype: 'f32', shape: '4x2', kernels: [0.5, 0.9].map((share, i) => ({ op: 'matmul', shapes: String(i), share, bound: 'products' })) }],
};

test('the newest result of each bench becomes its table', () => {
  const folder = mkdtempSync(join(tmpdir(), 'lomo-bench-'));
  try {
    const write = (file: string, value: unknown): void => writeFileSync(join(folder, file), JSON.stringify(value));
    write('2026-11-23-profile.json', { ...profiled, profiles: [] });
    write('2026-11-24-profile.json', profiled);
    write('2026-11-24-ops.json', timed);
    write('2026-11-24-train.json', { ...kept, name: 'train', figure: '1.23 x PyTorch' });
    const section = performanceSection(newestResults(folder));
    expect(section).toContain('A step takes 11 ms; its launches take 10 ms, 0.5 ms pass between them. Limits of this run: 1000 GFLOP/s, 1.0 GB/s.');
    expect(section).toContain('| `matmul` | 4 | 8.0 | 80 % | products | 75 % | 50 % to 90 % |');
    expect(section).toContain('| `add` | 4 | 2.0 | 20 % | memory | 50 % |  |');
    expect(section).toContain('| all | 8 | 10.0 | 100 % |  | 70 % |  |');
    expect(section).toContain('| `train` | 2026-11-24 | 1.23 x PyTorch |');
    expect(section).toContain('No results yet: `pnpm bench memory --python PATH --save`.');
    const held = { side: 'ours', whole: 100.4, above: 9, weights: 10, start: 5, tokensPerSecond: 1 };
    const comparison = { name: '1m f32 4x2', what: 'whole against stock', share: 0.3, bar: 0.4, of: 'ours', against: 'theirs' };
    write('2026-11-24-memory-1m.json', { ...kept, name: 'memory-1m', torch: '2', cells: [{ name: '1m f32 4x2', ours: [held], tuned: [], stock: [] }], comparisons: [comparison] });
    write('2026-11-24-memory-15m.json', { ...kept, name: 'memory-15m', torch: '2', cells: [], comparisons: [{ ...comparison, share: 0.41 }] });
    const both = performanceSection(newestResults(folder));
    expect(both).toContain('| 1m f32 4x2 | ours | 100 | 9 | 10 | 5 |');
    expect(both).toContain('| 0.300 | 0.4 | held |');
    expect(both).toContain('| 0.410 | 0.4 | **missed** |');
    expect(performanceSection(newestResults(join(folder, 'absent')))).toContain('No results yet: `pnpm bench performance`.');
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test('only what lies between the marks is written, any number of times', () => {
  const text = `before\n${marks.begin}\nold\n${marks.end}\nafter\n`;
  const once = withSection(text, 'new');
  expect(once).toBe(`before\n${marks.begin}\n\nnew\n\n${marks.end}\nafter\n`);
  expect(withSection(once, 'new')).toBe(once);
  expect(() => withSection('no marks', 'new')).toThrow(/has no section/);
  expect(withSection(readFileSync(new URL('../../docs/performance.md', import.meta.url), 'utf8'), 'x')).toContain('\n\nx\n\n');
});

test('a traced step of a bench has every launch that its plan has', async () => {
  await using backend = cpu({ threads: 1 });
  const setup = { json: modelConfig('1m', { num_hidden_layers: 1 }), dtype: 'f32', seq: 32, batch: 2, microBatches: 1, rule: lomo, keeps: true } as const;
  const file = parseTrace(await traceOf(backend, setup));
  expect(file.spans.filter(({ cat }) => cat === 'kernel')).toHaveLength((await planStep(backend, setup)).launches.get('step')!);
  expect(crossings(file)).toEqual([]);
});
