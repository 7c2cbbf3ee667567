// Opens a run: data tokenized, memory planned and reserved, weights in place.
import type { Dataset, Source, Tokenizer } from '@lomo/data';
import { DataError, openDataset, openTokenizer } from '@lomo/data';
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
import { microBatchesOf } from './config.ts';
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
    const open = (sources: RunConfig['datasets']) => openData(config, { sources, tokenizer, vocabSize: model.vocabSize, ...(signal === undefined ? {} : { signal }) });
    const train = await open(config.datasets);
    const held = config.eval_datasets.length === 0 ? null : await open(config.eval_datasets);
    const batches = layOut(config, train, held);
    phase('planning');
    const rule = ruleOf(config, [...(input.rules ?? []), ...builtInRules]);
    const blueprint: Omit<Blueprint, 'keeps'> = {
      config,
      json,
      families,
      rule,
      shape: batches.shape,
      generates: { prompt: config.max_seq_length, fresh: freshTokens },
      evaluates: held !== null,
    };
    const { plan, keeps, choices } = await choose(backend, blueprint, { memory: input.memory, checkpointing: config.gradient_checkpointing });
    const device = new Device(backend, { bytes: plan.extent });
    const assembly = await underPlan(device, plan, { name: 'setup', body: () => assemble(device, { ...blueprint, keeps }) });
    const session = new Session({ config, assembly, plan, choices: [...batches.choices, ...choices, ...programChoices(assembly)], tokenizer, train, held, heldSteps: batches.held, schedule: batches.train, machine: input.machine ?? {}, files: input.files ?? nodeFiles });
    phase('loading weights');
    await session.begin();
    return session;
  } catch (error) {
    await tokenizer.close();
    throw error;
  }
}

/** Settings as @lomo/data spells them, and as a run does: its complaints are read by people who write the latter. */
const spellings: Readonly<Record<string, string>> = {
  maxSeqLength: 'max_seq_length',
  trainOnInputs: 'train_on_inputs',
  microBatches: 'gradient_accumulation_steps',
  capacity: 'per_device_train_batch_size x max_seq_length',
};

/** Throws what openDataset throws, its settings under their names in a run. */
async function openData(config: RunConfig, options: { sources: RunConfig['datasets']; tokenizer: Tokenizer; vocabSize: number; signal?: AbortSignal }): Promise<Dataset> {
  const sources = options.sources.map((source) => Object.fromEntries(Object.entries(source).filter(([, value]) => value !== undefined)) as unknown as Source);
  try {
    return await openDataset({
      ...options,
      sources,
      maxSeqLength: config.max_seq_length,
      overlong: config.overlong === 'error' ? 'fail' : config.overlong,
      trainOnInputs: config.train_on_inputs,
      seed: config.data_seed ?? config.seed,
    });
  } catch (error) {
    if (!(error instanceof DataError)) throw error;
    const message = error.message.replace(/\b[a-z]+[A-Z]\w*|\bcapacity\b/g, (word) => spellings[word] ?? word);
    throw new LomoError(error.code, message, { ...error.details }, error);
  }
}

/** Steps of training and evaluation, of one shape. */
function layOut(config: RunConfig, train: Dataset, held: Dataset | null) {
  const capacity = Math.ceil((config.per_device_train_batch_size * config.max_seq_length) / 64) * 64;
  const microBatches = microBatchesOf(config);
  const span = config.max_steps === undefined ? { epochs: config.num_train_epochs } : { maxSteps: config.max_steps };
  const options = { capacity, microBatches, packing: config.packing, ...span };
  const evaluation = { capacity, microBatches: 1, packing: config.packing };
  const maxSegments = Math.max(train.steps(options).maxSegments, held?.evalSteps(evaluation).maxSegments ?? 1);
  const steps = train.steps({ ...options, maxSegments });
  const { efficiency } = steps.report();
  const shape = { tokens: capacity, microBatches, maxSegments, maxLength: config.max_seq_length };
  const choices: Choice[] = [
    { name: 'batch', value: `${microBatches} x ${capacity} tokens a step`, reason: `${(100 * efficiency).toFixed(1)} % of them are data, the rest padding` },
  ];
  return { train: steps, held: held?.evalSteps({ ...evaluation, maxSegments }) ?? null, shape, choices };
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
