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
import { assemble, planRun } from './assemble.ts';
import type { RunConfig } from './config.ts';
import { openRunData } from './data.ts';
import type { Choice } from './session.ts';
import { freshTokens, Session } from './session.ts';

/** Rules by the name `optim` takes. */
export const builtInRules: readonly Rule[] = [lomo, adalomo(), adamw(), sgd];

export interface SessionInput {
  readonly config: RunConfig;
  readonly backend: Backend;
  /** Bytes this run may take; decides whether tapes are kept. */
  readonly memory: number;
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

/** Share of the memory that kept tapes may fill. */
const keepShare = 0.8;

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
  try {
    const data = await openRunData(config, { tokenizer, vocabSize: model.vocabSize, ...(signal === undefined ? {} : { signal }) });
    const { train, held } = data;
    phase('planning');
    const rule = ruleOf(config, [...(input.rules ?? []), ...builtInRules]);
    const blueprint: Omit<Blueprint, 'keeps'> = {
      config,
      json,
      families,
      rule,
      shape: data.shape,
      generates: { prompt: config.max_seq_length, fresh: freshTokens },
      evaluates: held !== null,
    };
    const { plan, keeps, choices } = await choose(backend, blueprint, { memory: input.memory, checkpointing: config.gradient_checkpointing });
    const device = new Device(backend, { bytes: plan.extent });
    const assembly = await underPlan(device, plan, { name: 'setup', body: () => assemble(device, { ...blueprint, keeps }) });
    const session = new Session({ config, assembly, plan, choices: [...data.choices, ...choices, ...programChoices(assembly)], tokenizer, train, held, heldSteps: data.heldSteps, schedule: data.steps, machine: input.machine ?? {}, files: input.files ?? nodeFiles });
    phase('loading weights');
    await session.begin();
    return session;
  } catch (error) {
    await tokenizer.close();
    throw error;
  }
}

async function choose(backend: Backend, blueprint: Omit<Blueprint, 'keeps'>, options: { memory: number; checkpointing: RunConfig['gradient_checkpointing'] }) {
  const { memory, checkpointing } = options;
  const mebibytes = (n: number): string => `${(n / 2 ** 20).toFixed(1)} MiB`;
  const recomputing = await planRun(backend, { ...blueprint, keeps: false });
  const keeping = checkpointing === true ? null : await planRun(backend, { ...blueprint, keeps: true });
  const fits = keeping !== null && keeping.extent <= keepShare * memory;
  const keeps = keeping !== null && (checkpointing === false || fits);
  const plan = keeps ? keeping : recomputing;
  if (plan.extent > memory) {
    throw new LomoError('DoesNotFit', `the run needs ${mebibytes(plan.extent)}, ${mebibytes(memory)} are free; lower per_device_train_batch_size or max_seq_length, or set gradient_checkpointing: true`, { needed: plan.extent, memory });
  }
  const both = keeping === null ? '' : ` (kept ${mebibytes(keeping.extent)}, recomputed ${mebibytes(recomputing.extent)}, free ${mebibytes(memory)})`;
  const why = checkpointing === 'auto' ? (keeps ? 'they fit' : 'kept they would not fit') : 'as the run asks';
  return { plan, keeps, choices: [{ name: 'activations', value: keeps ? 'kept' : 'recomputed', reason: `${why}${both}` }] };
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

function ruleOf(config: RunConfig, rules: readonly Rule[]): Rule {
  const rule = rules.find(({ name }) => name === config.optim);
  if (rule === undefined) throw new LomoError('ConfigError', `optim: no '${config.optim}'; known: ${rules.map(({ name }) => name).join(', ')}; others come from plugins`);
  return rule;
}
