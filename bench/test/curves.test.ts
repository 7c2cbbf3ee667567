// A followed run, small: its points, its 16-bit numbers, its end where it diverges; and the picture of curves.
import { mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { RunInput } from '@lomo/trainer';
import { expect, test } from 'vitest';
import { dataFile, modelFolder } from '../../tools/tiny/folder.ts';
import { curveOf, evaluationSteps, writeTable } from '../src/curves.ts';
import { drawPlot, linearTicks, logTicks, spell } from '../src/plot.ts';

const settings: RunInput = {
  model_name_or_path: modelFolder(), init: 'random', datasets: [{ path: dataFile() }], eval_datasets: [{ path: dataFile(10) }], max_seq_length: 16,
  per_device_train_batch_size: 4, gradient_accumulation_steps: 1, max_steps: 12, optim: 'lomo', learning_rate: 0.3, lr_scheduler_type: 'constant', warmup_steps: 0, clip_mode: 'none', logging_steps: 3,
};

test('held-out losses at the steps asked for; f32 weights judged in f32 once more give the same', async () => {
  const curve = await curveOf({ settings, evaluateAt: [0, 5, 12], completions: 4, inF32: true });
  expect(curve.points.map(({ step }) => step)).toEqual([0, 5, 12]);
  expect(curve.points[2]!.loss).toBeLessThan(curve.points[0]!.loss);
  expect(curve).toMatchObject({ final: curve.points[2]!.loss, finalInF32: curve.points[2]!.loss, stopped: null, lost: null, heldSamples: 10 });
  expect(curve.exact).toBeGreaterThanOrEqual(0);
});

test('in bf16 to nearest small steps are lost, and the curve says so', async () => {
  const { lost, changed, final } = await curveOf({ settings: { ...settings, dtype: 'bf16', rounding: 'nearest', learning_rate: 1e-4 }, evaluateAt: [0, 12], completions: 0, inF32: false });
  expect(lost).toBeGreaterThan(0.3);
  expect(changed).toBeLessThan(0.5);
  expect(final).toBeGreaterThan(0);
});

test('a run that diverges ends where it is no longer finite', async () => {
  const { stopped, final, points } = await curveOf({ settings: { ...settings, learning_rate: 1e30, rounding: 'nearest' }, evaluateAt: [0, 12], completions: 0, inF32: true });
  expect(stopped?.step).toBeGreaterThan(0);
  expect(final).toBeNull();
  expect(points.map(({ step }) => step)).toEqual([0]);
});

test('steps, ticks and numbers', () => {
  expect(evaluationSteps(100, 20)).toEqual([0, 5, 10, 20, 40, 60, 80, 100]);
  expect(linearTicks(1.55, 2.1, 5)).toEqual([1.6, 1.8, 2]);
  expect(linearTicks(0, 2000, 4)).toEqual([0, 500, 1000, 1500, 2000]);
  expect(logTicks(0.004, 9)).toEqual([0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5]);
  expect([0, 0.03, 1e-4, 2000].map(spell)).toEqual(['0', '0.03', '1e-4', '2000']);
});

test('the picture: every line drawn, what is not finite left out, names escaped', () => {
  const axis = { label: 'x', min: 0, max: 10, ticks: [0, 5, 10] };
  const svg = drawPlot([{ title: 'a < b', x: axis, y: { ...axis, label: 'y' }, lines: [{ points: [[0, 1], [5, NaN], [10, 9]], colour: '#111111', bold: true, label: 'best' }, { points: [[0, 1], [10, 1e9]], colour: '#222222', label: 'gone' }], bands: [{ points: [[0, 1, 2], [10, 3, 4]], colour: '#333333' }] }], { heading: 'h', captions: ['c'], legend: [{ label: 'l', colour: '#444444' }], columns: 1 });
  expect(svg.match(/<polyline/g)).toHaveLength(2);
  expect(svg).toContain('a &lt; b');
  expect(svg).not.toMatch(/NaN|Infinity/);
});

test('a table is written between its marks, again and again, and nowhere else', () => {
  const path = join(mkdtempSync(join(tmpdir(), 'lomo-bench-')), 'page.md');
  writeFileSync(path, 'before\n\n<!-- written by `pnpm bench sweep`: begin -->\n<!-- written by `pnpm bench sweep`: end -->\n\nafter\n');
  writeTable(path, 'sweep', { rows: [['rule', 'loss'], ['LOMO', '3.1']], note: 'old' });
  writeTable(path, 'sweep', { rows: [['rule', 'loss'], ['LOMO', '1.6']], note: 'One seed.' });
  expect(readFileSync(path, 'utf8')).toBe('before\n\n<!-- written by `pnpm bench sweep`: begin -->\n\n| rule | loss |\n| --- | --- |\n| LOMO | 1.6 |\n\nOne seed.\n\n<!-- written by `pnpm bench sweep`: end -->\n\nafter\n');
  expect(() => writeTable(path, 'precision', { rows: [], note: '' })).toThrow(/has no section/);
});
