// A run, opened: data tokenized, memory planned, weights in place. What the loop needs, what a screen shows, what a checkpoint saves.
import { createHash } from 'node:crypto';
import { join } from 'node:path';
import type { Dataset, Source, Steps, Tokenizer } from '@lomo/data';
import { openDataset, openTokenizer } from '@lomo/data';
import type { Files, ModelFamily } from '@lomo/models';
import { builtInFamilies, familyOf, generate, initialise, loadWeights, nodeFiles, readConfig, writeWhole } from '@lomo/models';
import { adalomo, adamw, lomo, schedule, sgd } from '@lomo/optim';
import type { Rule } from '@lomo/optim';
import type { MemoryPlan, Program, StepInput, StepResult } from '@lomo/parallel';
import { underPlan } from '@lomo/parallel';
import type { Backend } from '@lomo/tensor';
import { Device, LomoError } from '@lomo/tensor';
import type { Assembly, Blueprint } from './assemble.ts';
import { assemble, planRun } from './assemble.ts';
import { listCheckpoints, readState, restoreCheckpoint, saveCheckpoint } from './checkpoint.ts';
import type { RunConfig } from './config.ts';
import { learningRateOf, microBatchesOf } from './config.ts';
import type { Course, StepBatches } from './loop.ts';
import type { TrainerState } from './state.ts';
import type { Completion } from './texts.ts';
import { complete } from './texts.ts';

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

/** A choice that the plan or the data made, with the number behind it. */
export interface Choice {
  readonly name: string;
  readonly value: string;
  readonly reason: string;
}

/** Tokens of a generated text at most, for planning. */
const freshTokens = 64;
/** Share of the memory that kept tapes may fill. */
const keepShare = 0.8;

export class Session implements Course {
  readonly config: RunConfig;
  readonly assembly: Assembly;
  readonly plan: MemoryPlan;
  readonly choices: readonly Choice[];
  readonly tokenizer: Tokenizer;
  readonly train: Dataset;
  readonly held: Dataset | null;
  readonly schedule: Steps;
  readonly program: Course['program'];
  readonly root: string;
  readonly seed: number;
  readonly steps: number;
  done = 0;
  readonly skipped = new Set<number>();
  trainedTokens = 0;
  bestEvalLoss: number | null = null;
  private bestStep: number | null = null;
  private readonly machine: Readonly<Record<string, string>>;
  private readonly files: Files;
  private readonly heldSteps: Steps | null;
  private readonly rates: (i: number) => number;

  /** Made by `openSession`. */
  constructor(parts: SessionParts) {
    this.config = parts.config;
    this.assembly = parts.assembly;
    this.plan = parts.plan;
    this.choices = parts.choices;
    this.tokenizer = parts.tokenizer;
    this.train = parts.train;
    this.held = parts.held;
    this.heldSteps = parts.heldSteps;
    this.schedule = parts.schedule;
    this.program = new PlannedProgram(parts.assembly.program, parts.plan);
    this.root = parts.config.output_dir ?? `runs/${parts.config.run_name}`;
    this.seed = parts.config.seed;
    this.steps = parts.schedule.length;
    this.machine = parts.machine;
    this.files = parts.files;
    this.rates = schedule({
      name: parts.config.lr_scheduler_type,
      lr: learningRateOf(parts.config),
      steps: this.steps,
      warmup: parts.config.warmup_steps,
      minRatio: parts.config.min_lr_ratio,
    });
  }

  /** The highest learning rate of the schedule. */
  get peakRate(): number {
    return learningRateOf(this.config);
  }

  get optimizer(): Assembly['optimizer'] {
    return this.assembly.optimizer;
  }

  rate(step: number): number {
    return this.rates(step - 1);
  }

  async batches(step: number): Promise<StepBatches> {
    const { batches } = this.schedule.at(step - 1);
    return { batches, samples: batches.map((batch) => batch.samples.map((i) => this.train.where(i))) };
  }

  /** Mean loss over the held-out data, or null without any. */
  async evaluate(): Promise<number | null> {
    if (this.heldSteps === null) return null;
    const steps = this.heldSteps;
    const batches = function* () {
      for (const step of steps) yield* step.batches.filter((batch) => batch.trained > 0);
    };
    return (await this.assembly.program.evaluate(batches())).loss;
  }

  /** Greedy completions of held-out samples (of the training data where nothing is held out). */
  complete(count: number, signal?: AbortSignal): AsyncGenerator<Completion, void> {
    const options = { dataset: this.held ?? this.train, count, maxNewTokens: freshTokens };
    return complete(this.assembly.model, this.tokenizer, signal === undefined ? options : { ...options, signal });
  }

  /** Text that follows `prompt`, token by token. */
  async *write(prompt: string, options: { readonly maxNewTokens: number; readonly temperature?: number; readonly seed?: number }): AsyncGenerator<number, void> {
    yield* generate(this.assembly.model, [...(await this.tokenizer.encode(prompt))], options);
  }

  /** Saves the state after step `done`; returns the folder. */
  save(): Promise<string> {
    const state: Omit<TrainerState, 'files'> = {
      format: 1,
      step: this.done,
      skipped: [...this.skipped],
      steps: this.steps,
      seed: this.seed,
      dataSeed: this.train.seed,
      trainedTokens: this.trainedTokens,
      bestEvalLoss: this.bestEvalLoss,
      fingerprint: fingerprintOf(this.config, this.train),
      machine: this.machine,
    };
    const { model_name_or_path: from, save_total_limit: keep } = this.config;
    return saveCheckpoint(this.assembly, this.root, { from, keep, best: this.bestStep, state, files: this.files });
  }

  /** Makes the output folder and proves that a checkpoint can be written there. Throws FileError or DiskFull before anything is trained. */
  async probe(): Promise<void> {
    const { files, root } = this;
    const path = join(root, '.probe');
    await files.makeFolder(root);
    await writeWhole(files, path, new TextEncoder().encode('lomo'));
    await files.remove(path);
    const { live: state } = this.assembly.device.arena.usage.state;
    const needed = this.assembly.device.arena.usage.weights.live + state;
    const free = await files.freeBytes(root);
    if (free < needed) {
      throw new LomoError('DiskFull', `${root}: a checkpoint needs ${needed} bytes, ${free} are free; free space or choose another output_dir`, { path: root, needed, free });
    }
  }

  /** Notes an evaluation; true when it is the best so far. */
  noteEvaluation(loss: number): boolean {
    if (this.bestEvalLoss !== null && loss >= this.bestEvalLoss) return false;
    this.bestEvalLoss = loss;
    this.bestStep = this.done;
    return true;
  }

  /** Goes back to the newest checkpoint of this run, or to the beginning where there is none. */
  async restore(): Promise<void> {
    const newest = (await listCheckpoints(this.root))[0];
    if (newest === undefined) await this.begin();
    else await this.resume(newest.path);
  }

  /** Loads a checkpoint. Throws ResumeMismatch when it belongs to other settings or data. */
  async resume(folder: string): Promise<void> {
    const found = await readState(folder);
    const expected = fingerprintOf(this.config, this.train);
    if (found.fingerprint !== expected) {
      throw new LomoError('ResumeMismatch', `${folder} was made with other settings or data, so going on would be another run; choose another output_dir, or set resume_from_checkpoint: false`, { folder });
    }
    const state = await restoreCheckpoint(this.assembly, folder);
    this.done = state.step;
    this.trainedTokens = state.trainedTokens;
    this.bestEvalLoss = state.bestEvalLoss;
    for (const step of state.skipped) this.skipped.add(step);
  }

  /** Weights as they were before step 1. */
  async begin(): Promise<void> {
    const { model, device, optimizer } = this.assembly;
    if (this.config.init === 'random') initialise(model, this.config.seed);
    else await loadWeights(model, this.config.model_name_or_path);
    for (const { tensor } of optimizer.state()) device.writeNumbers(tensor, new Float64Array(tensor.shape.reduce((a, b) => a * b, 1)));
    this.done = 0;
    this.trainedTokens = 0;
  }

  /** Ends worker threads and gives the memory back. */
  async close(): Promise<void> {
    await this.tokenizer.close();
    this.assembly.device.free();
  }
}

/** The program, its first step held to the plan allocation by allocation, the reservation to the arena's high-water mark. */
class PlannedProgram {
  private readonly program: Program;
  private readonly plan: MemoryPlan;
  private proven = false;

  constructor(program: Program, plan: MemoryPlan) {
    this.program = program;
    this.plan = plan;
  }

  async run(input: StepInput): Promise<StepResult> {
    if (this.proven) return this.program.run(input);
    const { device } = this.program;
    const result = await underPlan(device, this.plan, { name: 'step', body: () => this.program.run(input) });
    if (device.backend.reserved() !== this.plan.extent) {
      throw new LomoError('PlanMismatch', `the backend has reserved ${device.backend.reserved()} bytes, the plan says ${this.plan.extent}`);
    }
    this.proven = true;
    return result;
  }
}

interface SessionParts {
  readonly config: RunConfig;
  readonly assembly: Assembly;
  readonly plan: MemoryPlan;
  readonly choices: readonly Choice[];
  readonly tokenizer: Tokenizer;
  readonly train: Dataset;
  readonly held: Dataset | null;
  readonly heldSteps: Steps | null;
  readonly schedule: Steps;
  readonly machine: Readonly<Record<string, string>>;
  readonly files: Files;
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

function openData(config: RunConfig, options: { sources: RunConfig['datasets']; tokenizer: Tokenizer; vocabSize: number; signal?: AbortSignal }): Promise<Dataset> {
  const sources = options.sources.map((source) => Object.fromEntries(Object.entries(source).filter(([, value]) => value !== undefined)) as unknown as Source);
  return openDataset({
    ...options,
    sources,
    maxSeqLength: config.max_seq_length,
    overlong: config.overlong === 'error' ? 'fail' : config.overlong,
    trainOnInputs: config.train_on_inputs,
    seed: config.data_seed ?? config.seed,
  });
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

/** What the weights of a run depend on, beside the model it begins with and the machine. */
function fingerprintOf(config: RunConfig, data: Dataset): string {
  const { output_dir: _o, run_name: _n, report_to: _r, logging_steps: _l, eval_steps: _e, save_steps: _s, save_minutes: _m, save_total_limit: _t, resume_from_checkpoint: _c, threads: _th, gradient_checkpointing: _g, eval_datasets: _ed, ...rest } = config;
  return createHash('sha256').update(JSON.stringify(rest)).update(data.fingerprint).digest('hex');
}
