// Opens a run: data tokenized, memory planned and reserved, weights in place.
import { openTokenizer } from '@lomo/data';
import type { Files, ModelFamily } from '@lomo/models';
import { builtInFamilies, familyOf, nodeFiles, readConfig } from '@lomo/models';
import { adalomo, adamw, lomo, sgd } from '@lomo/optim';
import type { Rule } from '@lomo/optim';
import { underPlan } from '@lomo/parallel';
import type { Backend } from '@lomo/tensor';
import { Device, LomoError } from '@lomo/tensor';
import type { Assembly, Blueprint } from './assemble.ts';
import { assemble } from './assemble.ts';
import type { Rates } from './choice.ts';
import { assertFits, candidatesOf, explain, pick } from './choice.ts';
import type { RunConfig } from './config.ts';
import { suggestion } from './config.ts';
import { openRunData } from './data.ts';
import { LossScale } from './loss_scale.ts';
import type { Choice } from './session.ts';
import { freshTokens, rootOf, Session } from './session.ts';
import { SpillFile } from './spill_file.ts';

/** Rules by the name `optim` takes. */
export const builtInRules: readonly Rule[] = [lomo, adalomo(), adamw(), sgd];

export interface SessionInput {
  readonly config: RunConfig;
  readonly backend: Backend;
  /** Bytes this run may take; decides whether tapes are kept and where gradients are put aside. */
  readonly memory: number;
  /** What estimates of time are made from; assumed ones unless given. */
  readonly rates?: Rates;
  /** Beside the built-in ones, from plugins. */
  readonly rules?: readonly Rule[];
  readonly families?: readonly ModelFamily[];
  /** What equal bits need beside equal settings: 'oneDNN 2.6.3', 'avx512'. */
  readonly machine?: Readonly<Record<string, string>>;
  /** Hears what is being done, for a screen. */
  readonly onPhase?: (text: string) => void;
  readonly signal?: AbortSignal;
  /** The file layer checkpoints are written through; node's unless given. */
  readonly files?: Files;
}

/** Opens a run: reads, checks, plans, reserves, loads. Nothing is trained yet. The first failing check throws; nothing is left behind. */
export async function openSession(input: SessionInput): Promise<Session> {
  const { config, backend, signal } = input;
  const phase = input.onPhase ?? (() => {});
  const folder = config.model_name_or_path;
  const json = await readConfig(folder);
  const families = [...(input.families ?? []), ...builtInFamilies];
  const model = familyOf(json, families).parseConfig(json);
  phase('tokenizing');
  const tokenizer = await openTokenizer(folder);
  let spill: SpillFile | null = null;
  let device: Device | null = null;
  try {
    const data = await openRunData(config, { tokenizer, vocabSize: model.vocabSize, ...(signal === undefined ? {} : { signal }) });
    const { train, held } = data;
    signal?.throwIfAborted();
    phase('planning');
    const rule = ruleOf(config, [...(input.rules ?? []), ...builtInRules]);
    const blueprint: Omit<Blueprint, 'keeps' | 'by'> = {
      config,
      json,
      families,
      rule,
      shape: data.shape,
      generates: { prompt: config.max_seq_length, fresh: freshTokens },
      evaluates: held !== null,
    };
    const { memory, rates, files = nodeFiles } = input;
    const candidates = await candidatesOf(backend, blueprint, rates);
    const chosen = pick(candidates, memory);
    assertFits(chosen, memory);
    signal?.throwIfAborted();
    const { plan, keeps, by } = chosen;
    const choices = explain(config, candidates, { chosen, memory, ...(rates === undefined ? {} : { rates }) });
    if (by === 'file') spill = await SpillFile.open(config.spill_dir ?? rootOf(config), { files, bytes: plan.spilled });
    const reserved = (device = new Device(backend, { bytes: plan.extent }));
    const assembly = await underPlan(reserved, plan, { name: 'setup', body: () => assemble(reserved, { ...blueprint, keeps, by }, spill) });
    const session = new Session({ config, assembly, plan, choices: [...data.choices, ...choices, ...programChoices(assembly), ...scaleChoice(config)], tokenizer, train, held, heldSteps: data.heldSteps, schedule: data.steps, machine: input.machine ?? {}, files, spill });
    phase('loading weights');
    await session.begin(signal === undefined ? {} : { signal });
    return session;
  } catch (error) {
    device?.free();
    await spill?.[Symbol.asyncDispose]();
    await tokenizer.close();
    throw error;
  }
}

function programChoices({ program }: Assembly): Choice[] {
  const { accumulate, headForm } = program;
  const reasons = {
    factors: 'equal bits for any split into micro-batches',
    buffer: 'micro-batches are whole chunks: equal bits, and less memory than factors',
    chunks: 'three products; the gradient of the head is held in f32',
    tiles: 'four products; the gradient of the head never exists whole',
  };
  return [
    ...(program.microBatches > 1 ? [{ name: 'accumulation', value: accumulate, reason: reasons[accumulate] }] : []),
    { name: 'head', value: headForm, reason: reasons[headForm] },
  ];
}

/** What a screen says of the loss scale of a run; nothing where it has none. */
export function scaleChoice(config: RunConfig): Choice[] {
  const words = new LossScale(config.loss_scale).words;
  return words === null ? [] : [{ name: 'loss scale', ...words }];
}

/** The rule that a run names. Throws ConfigError listing the known ones. */
export function ruleOf(config: RunConfig, rules: readonly Rule[]): Rule {
  const rule = rules.find(({ name }) => name === config.optim);
  if (rule === undefined) throw new LomoError('ConfigError', `optim: no '${config.optim}'; known: ${rules.map(({ name }) => name).join(', ')}; others come from plugins${suggestion(config.optim, rules.map(({ name }) => name))}`);
  return rule;
}
