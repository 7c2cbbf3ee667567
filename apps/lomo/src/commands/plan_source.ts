// What is planned: a run's file, or a model folder and flags; with the data where they are there, else from the lengths alone.
import { stat } from 'node:fs/promises';
import { openTokenizer } from '@lomo/data';
import { builtInFamilies, familyOf, readConfig } from '@lomo/models';
import type { Rule } from '@lomo/optim';
import { builtInRules, freshTokens, openRunData, parseRun, ruleOf, shapeWithoutData } from '@lomo/trainer';
import type { ParsedRun, RunBase } from '@lomo/trainer';
import type { PlanningBackend } from '../backends.ts';
import { openPlanningBackend } from '../backends.ts';
import { loadPlugins } from '../plugins.ts';
import { readRun } from '../yaml.ts';

/** A run that can be planned. */
export interface PlanSource {
  readonly base: RunBase;
  readonly rules: readonly Rule[];
  readonly planning: PlanningBackend;
  /** What a person should know beside the numbers. */
  readonly notes: readonly string[];
}

/** Opens `path`, a run's file or a model folder. Throws what `lomo train` would, except that weights, tokenizer and data may be missing. */
export async function openPlanSource(path: string, overrides: Readonly<Record<string, unknown>>): Promise<PlanSource> {
  const { config, renamed, warnings } = await readSettings(path, overrides);
  const plugins = await loadPlugins(config.plugins);
  const rules = [...plugins.rules, ...builtInRules];
  const rule = ruleOf(config, rules);
  const json = await readConfig(config.model_name_or_path);
  const families = [...plugins.families, ...builtInFamilies];
  const { vocabSize } = familyOf(json, families).parseConfig(json);
  const planning = await openPlanningBackend(config.backend, { threads: config.threads, gpu: config.gpu, ops: plugins.ops });
  const laidOut = await layOut(config, vocabSize);
  return {
    base: { config, json, families, rule, shape: laidOut.shape, generates: { prompt: config.max_seq_length, fresh: freshTokens }, evaluates: config.eval_datasets.length > 0 },
    rules,
    planning,
    notes: [...renamed, ...warnings.map((warning) => `warning: ${warning}`), ...laidOut.notes],
  };
}

async function readSettings(path: string, overrides: Readonly<Record<string, unknown>>): Promise<ParsedRun> {
  const facts = await stat(path).catch(() => null);
  if (facts?.isDirectory() !== true) return readRun(path, overrides);
  return parseRun({ model_name_or_path: path, datasets: [{ path: noData }], ...overrides }, () => 'command line');
}

/** Stands for the data of a model folder that is planned by itself. */
const noData = '(no data)';

/** The data decide how many segments a batch holds, so they are read where they are there: what is printed is what `lomo train` will reserve. */
async function layOut(config: RunBase['config'], vocabSize: number): Promise<{ readonly shape: RunBase['shape']; readonly notes: readonly string[] }> {
  const without = (why: string) => ({ shape: shapeWithoutData(config), notes: [`${why}: planned from max_seq_length and the batch alone`] });
  if (config.datasets.some(({ path }) => path === noData)) return without('a model folder, no data');
  try {
    await using tokenizer = await openTokenizer(config.model_name_or_path);
    return { shape: (await openRunData(config, { tokenizer, vocabSize })).shape, notes: [] };
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? error.code : null;
    if (code === 'MissingTokenizer') return without(`${config.model_name_or_path} has no tokenizer`);
    if (code === 'MissingFile' && error instanceof Error) return without(error.message);
    throw error;
  }
}
