// NaN and infinities put into the loss and into every stage's backward: exactly which bytes change, what the error names, and that the next step is as if nothing had been.
import { adalomo, adamw, lomo, sgd } from '@lomo/optim';
import type { OptimizerOptions, Rule } from '@lomo/optim';
import type { Stage } from '@lomo/tensor';
import { describe, expect, test } from 'vitest';
import { bytesStore } from './bytes_store.ts';
import { poisoned, poisonOps } from './poison.ts';
import type { Site } from './poison.ts';
import type { TrialOptions } from './trial.ts';
import { refusal, Trial } from './trial.ts';

const values = [NaN, Infinity, -Infinity];
/** From the loss down. A poison at 'block 1' is the gradient that enters block 1. */
const sites = ['loss', 'head', 'block 1', 'block 0', 'embedding'];

const modes: readonly (readonly [string, () => Partial<OptimizerOptions>])[] = [
  ['single pass', () => ({})],
  ['parameters’ own norms', () => ({ clip: { norm: 0.2, scope: 'parameter' } })],
  ['atomic', () => ({ atomic: true })],
  ['atomic, spilled to memory', () => ({ atomic: true, spill: 'memory' })],
  ['two passes', () => ({ clip: { norm: 0.3 } })],
  ['spilled to memory', () => ({ clip: { norm: 0.3 }, spill: 'memory' })],
  ['spilled to a store', () => ({ clip: { norm: 0.3 }, spill: bytesStore() })],
];

function trialOf(site: Site, options: Partial<TrialOptions>, optimizer: OptimizerOptions): Trial {
  const stages = (toy: readonly Stage[]) => poisoned(toy, site);
  return new Trial({ blocks: 2, tokens: 16, count: 2, precision: 'f32', ops: poisonOps, stages, ...options, optimizer });
}

/** Parameters of the stages above the poison: those that have settled when it is met. */
function above(trial: Trial, site: Site): string[] {
  if (site.at === 'head') return ['head'];
  const stage = trial.stages.findIndex(({ name }) => name === site.at);
  return trial.stages.slice(stage + 1).flatMap((s) => s.parameters().map((p) => p.path));
}

async function hashes(trial: Trial): Promise<ReadonlyMap<string, string>> {
  const weights = await Promise.all(trial.parameters.map(async (p) => [p.path, await trial.hash(p)] as const));
  const state = await Promise.all([...trial.optimizer.state()].map(async ({ path, name, tensor }) => [`${path} ${name}`, await trial.hash(tensor)] as const));
  return new Map([...weights, ...state]);
}

async function reject(site: Site, options: Partial<TrialOptions>, optimizer: OptimizerOptions): Promise<void> {
  const what = `${site.value} at ${site.at}`;
  const [trial, clean] = [trialOf(site, options, optimizer), trialOf({ ...site, sick: false }, options, optimizer)];
  for (const each of [trial, clean]) await each.step(1);
  const [before, live] = [await hashes(trial), trial.device.arena.live];
  site.sick = true;
  const error = await refusal(() => trial.step(2));
  site.sick = false;
  const after = await hashes(trial);
  const changed = [...before.keys()].filter((name) => before.get(name) !== after.get(name));
  const atomic = trial.optimizer.passes.at(-1)!.atomic;
  expect(trial.device.arena.live, what).toBe(live);
  const expected = site.at === 'loss' || atomic ? [] : above(trial, site);
  const weights = changed.filter((name) => !name.includes(' ') || trial.parameters.some(({ path }) => path === name));
  expect(new Set(weights), what).toEqual(new Set(expected));
  // State goes with its parameter.
  for (const name of changed) expect(expected.some((path) => name === path || name.startsWith(`${path} `)), `${what}: ${name}`).toBe(true);
  if (site.at === 'loss') expect([error.code, error.details['microBatches']], what).toEqual(['NonFiniteLoss', [1]]);
  else if (atomic) {
    expect(error.code, what).toBe('NonFiniteGradient');
    expect(error.message, what).toMatch(/no weight has changed$/);
  } else {
    expect([error.code, error.details['settled']], what).toEqual(['TornStep', expected.length]);
    const named = trial.parameter(String(error.details['at']));
    const stage = trial.stages.find(({ name }) => name === site.at)!;
    expect(stage.parameters().includes(named), `${what}: ${named.path}`).toBe(true);
    expect(error.message, what).toContain(`the gradient of ${named.path} is not finite; ${expected.length} parameters had been updated before it`);
  }
  if (expected.length > 0) return;
  // The rejected step has left nothing: the next one gives the bits of a run that never had it.
  for (const each of [trial, clean]) await each.step(3);
  expect(await trial.digest(), what).toBe(await clean.digest());
}

describe.each(modes)('%s', (_, mode) => {
  test.each(sites)('%s', async (at) => {
    for (const value of values) await reject({ at, value, sick: false }, {}, { rule: lomo, weightDecay: 0.1, ...mode() });
  });

  test.each(([adalomo(), adamw(), sgd] satisfies Rule[]).map((rule) => [rule.name, rule] as const))('%s', async (_name, rule) => {
    for (const at of ['loss', 'block 1', 'embedding']) await reject({ at, value: NaN, sick: false }, { keeps: true }, { rule, ...mode() });
  });

  test('bf16, kept factors, vocabulary tiles, small tiles of the gradient', async () => {
    for (const at of ['loss', 'head', 'block 0']) for (const value of [NaN, -Infinity]) {
      await reject({ at, value, sick: false }, { dtype: 'bf16', accumulate: 'factors', headForm: 'tiles' }, { rule: lomo, ...mode() });
      await reject({ at, value, sick: false }, { accumulate: 'buffer', tileBytes: 64 }, { rule: lomo, ...mode() });
    }
  });
});
