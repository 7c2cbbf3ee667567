// lomo plan: what a run will need, by category, from the program run without data.
import { openTokenizer } from '@lomo/data';
import { builtInFamilies, familyOf, readConfig } from '@lomo/models';
import { builtInRules, candidatesOf, explain, freshTokens, openRunData, pick, ruleOf, scaleChoice } from '@lomo/trainer';
import type { Choice } from '@lomo/trainer';
import type { MemoryPlan } from '@lomo/parallel';
import { categories } from '@lomo/tensor';
import { openBackend, freeMemory } from '../backends.ts';
import { loadPlugins } from '../plugins.ts';
import { bytes, count, percent, screen as openScreen, table, wrapped } from '../screen.ts';
import { readRun } from '../yaml.ts';

/** Prints the plan of `path`: kept tapes beside recomputation, lomo beside the others. */
export async function plan(path: string, overrides: Readonly<Record<string, unknown>>, options: { readonly json?: boolean }): Promise<void> {
  const screen = openScreen();
  const { config, renamed, warnings } = await readRun(path, overrides);
  if (options.json !== true) for (const line of [...renamed, ...warnings.map((warning) => `warning: ${warning}`)]) screen.line(`  ${line}`);
  const plugins = await loadPlugins(config.plugins);
  const json = await readConfig(config.model_name_or_path);
  const { backend, description } = await openBackend(config.backend, { threads: config.threads, ops: plugins.ops });
  const rules = [...plugins.rules, ...builtInRules];
  const families = [...plugins.families, ...builtInFamilies];
  const vocabSize = familyOf(json, families).parseConfig(json).vocabSize;
  await using tokenizer = await openTokenizer(config.model_name_or_path);
  // The data decide how many segments a batch holds, so they are read: what is printed is what `lomo train` will reserve.
  const { shape, held } = await openRunData(config, { tokenizer, vocabSize });
  ruleOf(config, rules);
  const made: { readonly name: string; readonly plan: MemoryPlan }[] = [];
  const memory = freeMemory();
  let choices: readonly Choice[] = [];
  for (const optim of [config.optim, ...['lomo', 'adalomo', 'adamw'].filter((name) => name !== config.optim)]) {
    const rule = rules.find(({ name }) => name === optim);
    if (rule === undefined) continue;
    const own = { ...config, optim, gradient_checkpointing: 'auto' as const };
    const candidates = await candidatesOf(backend, { config: own, json, families, rule, shape, generates: { prompt: config.max_seq_length, fresh: freshTokens }, evaluates: held !== null });
    // Both ways stand in the table; what the run would choose, it chooses among those that it leaves open.
    const open = candidates.filter(({ keeps }) => config.gradient_checkpointing === 'auto' || keeps !== config.gradient_checkpointing);
    const chosen = pick(open, memory);
    if (optim === config.optim) choices = [...explain(config, open, { chosen, memory }), ...scaleChoice(config)];
    for (const keeps of [true, false]) made.push({ name: `${optim}, ${keeps ? 'kept' : 'recomputed'}`, plan: candidates.find((c) => c.by === chosen.by && c.keeps === keeps)!.plan });
  }
  if (options.json === true) {
    screen.line(JSON.stringify(made.map(({ name, plan: p }) => ({ name, extent: p.extent, peak: p.peak, byCategory: p.byCategory, atPeak: p.atPeak, flops: Object.fromEntries(p.flops) })), null, 2));
    return;
  }
  screen.line(`${config.model_name_or_path} on ${description}`);
  screen.line(`${shape.microBatches} x ${count(shape.tokens)} tokens a step, ${config.dtype}; bytes live at the peak\n`);
  const used = categories.filter((c) => made.some(({ plan: p }) => p.atPeak[c] > 0));
  screen.line(
    table([
      ['', ...made.map(({ name }) => name)],
      ...used.map((c) => [c, ...made.map(({ plan: p }) => bytes(p.atPeak[c]))]),
      ['peak', ...made.map(({ plan: p }) => bytes(p.peak))],
      ['fragmentation', ...made.map(({ plan: p }) => bytes(p.extent - p.peak))],
      ['reserved', ...made.map(({ plan: p }) => bytes(p.extent))],
      ['of what is free', ...made.map(({ plan: p }) => percent(p.extent / memory))],
      ['GFLOP a step', ...made.map(({ plan: p }) => ((p.flops.get('step') ?? 0) / 1e9).toFixed(1))],
    ]),
  );
  screen.line('');
  for (const { name, value, reason } of choices) screen.line(wrapped(`${name} ${value}: ${reason}`, { columns: screen.columns, indent: 2 }));
}
