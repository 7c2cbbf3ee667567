// docs/paper.md is what the plans say now; the plans hold their bars, on the CPU backend too; the paper's terms add up.
import { readFileSync } from 'node:fs';
import { cpu } from '@lomo/cpu';
import { categories } from '@lomo/tensor';
import { expect, test } from 'vitest';
import type { PaperPlans } from '../src/paper.ts';
import { paperBars, paperPage, paperPlans } from '../src/paper.ts';
import { parameters7b, published, smallest } from '../src/paper_terms.ts';

const gibibyte = 2 ** 30;
const names = Object.keys(paperBars) as (keyof typeof paperBars)[];
const planned = paperPlans();

test('docs/paper.md is up to date; else run `pnpm bench paper`', async () => {
  expect(readFileSync(new URL('../../docs/paper.md', import.meta.url), 'utf8')).toBe(paperPage(await planned));
});

test('LOMO of LLaMA-7B recomputed: at most 14.3 GiB at 512 x 8, 13.2 at 1024 x 1, below the paper', async () => {
  const plans = await planned;
  for (const name of names) expect(plans[name].extent / gibibyte, name).toBeLessThanOrEqual(paperBars[name]);
  expect(plans['LOMO, recomputed'].extent / gibibyte).toBeLessThan(published.lomo.recomputed);
  expect(plans['LOMO, one row'].extent / gibibyte).toBeLessThan(published.oneRow);
  expect(plans['LOMO, clipped'].extent / gibibyte).toBeLessThanOrEqual(paperBars['LOMO, recomputed']);
  // Every byte of the peak has a category, and weights are two bytes a number.
  for (const plan of Object.values(plans)) {
    expect(categories.reduce((sum, c) => sum + plan.atPeak[c], 0)).toBe(plan.peak);
    expect(plan.atPeak.weights).toBe(2 * parameters7b);
  }
});

test('with the scratch memory of the CPU backend the plans differ by less than 0.01 GiB, and hold the same bars', async () => {
  await using backend = cpu({ threads: 2 });
  const [plans, real]: [PaperPlans, PaperPlans] = [await planned, await paperPlans(backend)];
  for (const [name, { extent }] of Object.entries(real)) expect(Math.abs(extent - plans[name as keyof PaperPlans].extent) / gibibyte, name).toBeLessThan(0.01);
  for (const name of names) expect(real[name].extent / gibibyte, name).toBeLessThanOrEqual(paperBars[name]);
});

test('the published numbers add up from bytes a number', () => {
  const each = (bytes: number): number => (bytes * parameters7b) / gibibyte;
  expect(smallest.weights).toBeCloseTo(12.55, 2);
  expect(smallest.largest).toBeCloseTo(published.lomo.gradients, 2);
  expect(each(12)).toBeCloseTo(published.adamw.states, 2);
  expect(each(4)).toBeCloseTo(published.sgd.states, 2);
  const rest = (way: 'kept' | 'recomputed') => [published.adamw, published.sgd, published.lomo].map((rule) => (rule[way] - smallest.weights - rule.gradients - rule.states).toFixed(2));
  expect(rest('kept')).toEqual(['46.61', '46.61', '46.61']);
  expect(rest('recomputed')).toEqual(['1.79', '1.79', '1.79']);
  expect(((100 * published.oneRow) / (published.standard.cards * published.standard.perCard)).toFixed(1)).toBe('10.8');
});
