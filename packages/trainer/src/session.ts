// A run that is open: what the loop needs, what a screen shows, what a checkpoint saves.
import { createHash } from 'node:crypto';
import { join } from 'node:path';
import type { Dataset, Steps, Tokenizer } from '@lomo/data';
import type { Files } from '@lomo/models';
import { initialise, loadWeights, nodeFiles, observeFiles, writeWhole } from '@lomo/models';
import { schedule } from '@lomo/optim';
import type { MemoryPlan } from '@lomo/parallel';
import { fill, LomoError } from '@lomo/tensor';
import type { Assembly } from './assemble.ts';
import { listCheckpoints, readState, restoreCheckpoint, saveCheckpoint } from './checkpoint.ts';
import type { RunConfig } from './config.ts';
import { learningRateOf } from './config.ts';
import type { Course, StepBatches } from './loop.ts';
import { LossScale } from './loss_scale.ts';
import { PlannedProgram } from './planned.ts';
import { tornWeights } from './rejection.ts';
import type { TrainerState } from './state.ts';
import { machineDifferences, settingDifferences } from './state.ts';
import type { Completion } from './texts.ts';
import { complete } from './texts.ts';
import { TracedProgram } from './traced.ts';

/** A choice that the plan or the data made, with the number behind it. */
export interface Choice {
  readonly name: string;
  readonly value: string;
  readonly reason: string;
}

/** Tokens of a generated text at most, for planning. */
export const freshTokens = 64;

/** What `openSession` brings together. */
export interface SessionParts {
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
  /** The file that gradients are put aside in, where there is one. */
  readonly spill: AsyncDisposable | null;
}

export class Session implements Course {
  readonly config: RunConfig;
  readonly assembly: Assembly;
  readonly plan: MemoryPlan;
  readonly choices: readonly Choice[];
  readonly tokenizer: Tokenizer;
  readonly train: Dataset;
  readonly held: Dataset | null;
  readonly schedule: Steps;
  readonly program: TracedProgram;
  readonly root: string;
  readonly seed: number;
  readonly steps: number;
  readonly lossScale: LossScale;
  done = 0;
  torn = false;
  readonly skipped = new Set<number>();
  trainedTokens = 0;
  bestEvalLoss: number | null = null;
  private bestStep: number | null = null;
  /** The checkpoint that this session saved or resumed last. */
  private durable: string | null = null;
  private readonly machine: Readonly<Record<string, string>>;
  private readonly files: Files;
  private readonly spill: AsyncDisposable | null;
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
    this.program = new TracedProgram(new PlannedProgram(parts.assembly.program, parts.plan), parts.assembly.device);
    this.root = rootOf(parts.config);
    this.seed = parts.config.seed;
    this.steps = parts.schedule.length;
    this.lossScale = new LossScale(parts.config.loss_scale);
    this.machine = parts.machine;
    this.files = parts.files;
    this.spill = parts.spill;
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

  measures(step: number): boolean {
    return this.config.telemetry && step % this.config.logging_steps === 0;
  }

  async batches(step: number): Promise<StepBatches> {
    const { batches } = this.schedule.at(step - 1);
    return { batches, samples: batches.map((batch) => batch.samples.map((i) => this.train.where(i))) };
  }

  /** Mean loss over the held-out data, or null without any, or where `signal` ends it. */
  async evaluate(signal?: AbortSignal): Promise<number | null> {
    if (this.heldSteps === null) return null;
    const steps = this.heldSteps;
    const batches = function* () {
      for (const step of steps) yield* step.batches.filter((batch) => batch.trained > 0);
    };
    try {
      return (await this.assembly.program.evaluate(batches(), signal === undefined ? {} : { signal })).loss;
    } catch (error) {
      if (signal?.aborted === true && error === signal.reason) return null;
      throw error;
    }
  }

  /** Greedy completions of held-out samples (of the training data where nothing is held out). */
  complete(count: number, signal?: AbortSignal): AsyncGenerator<Completion, void> {
    const options = { dataset: this.held ?? this.train, count, maxNewTokens: freshTokens };
    return complete(this.assembly.model, this.tokenizer, signal === undefined ? options : { ...options, signal });
  }

  /** Saves the state after step `done`; returns the folder. Throws TornWeights where a step or a load ended halfway. */
  async save(): Promise<string> {
    if (this.torn) throw tornWeights(this.done);
    const state: Omit<TrainerState, 'files'> = {
      format: 1,
      step: this.done,
      skipped: [...this.skipped],
      steps: this.steps,
      seed: this.seed,
      dataSeed: this.train.seed,
      trainedTokens: this.trainedTokens,
      bestEvalLoss: this.bestEvalLoss,
      bestStep: this.bestStep,
      lossScale: this.lossScale.state,
      fingerprint: fingerprintOf(this.config, this.train),
      settings: settingsOf(this.config),
      data: this.train.fingerprint,
      machine: this.machine,
    };
    const { model_name_or_path: from, save_total_limit: keep } = this.config;
    return (this.durable = await saveCheckpoint(this.assembly, this.root, { from, keep, best: this.bestStep, state, files: this.files }));
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

  /**
   * Goes back to the checkpoint that was saved or resumed last, else to the newest of the folder unless `resume_from_checkpoint` is false, else
   * to the beginning.
   */
  async restore(): Promise<void> {
    const foreign = this.config.resume_from_checkpoint === false;
    const folder = this.durable ?? (foreign ? undefined : (await listCheckpoints(this.root))[0]?.path);
    if (folder === undefined) await this.begin();
    else await this.resume(folder);
  }

  /**
   * Loads a checkpoint. Throws ResumeMismatch, naming what differs, when it belongs to other settings or data. Returns what about the machine differs from the one
   * it was made on, in words ('isa avx512, here avx2'): where anything does, the run goes on rightly, but not to the same bits.
   */
  async resume(folder: string, options: { readonly signal?: AbortSignal } = {}): Promise<readonly string[]> {
    const { config, train } = this;
    const files = abortable(nodeFiles, options.signal);
    const found = await readState(folder, files);
    if (found.fingerprint !== fingerprintOf(config, train)) {
      const differences = settingDifferences(found, { settings: settingsOf(config), data: train.fingerprint });
      const named = differences.length === 0 ? 'other settings or data' : differences.join('; ');
      throw new LomoError('ResumeMismatch', `${folder} was made with ${named}: going on would be another run. Give what it was made with, or choose another output_dir, or set resume_from_checkpoint: false`, { folder, differences });
    }
    this.torn = true;
    const state = await restoreCheckpoint(this.assembly, folder, files);
    this.torn = false;
    this.durable = folder;
    this.done = state.step;
    this.trainedTokens = state.trainedTokens;
    this.bestEvalLoss = state.bestEvalLoss;
    this.bestStep = state.bestStep;
    this.lossScale.restore(state.lossScale);
    for (const step of state.skipped) this.skipped.add(step);
    return machineDifferences(state.machine, this.machine);
  }

  /** Weights as they were before step 1. */
  async begin(options: { readonly signal?: AbortSignal } = {}): Promise<void> {
    const { model, optimizer } = this.assembly;
    this.torn = true;
    if (this.config.init === 'random') initialise(model, this.config.seed);
    else await loadWeights(model, this.config.model_name_or_path, { files: abortable(nodeFiles, options.signal) });
    for (const { tensor } of optimizer.state()) fill(tensor, 0);
    this.torn = false;
    this.done = 0;
    this.trainedTokens = 0;
    this.bestEvalLoss = null;
    this.bestStep = null;
    this.lossScale.restore(null);
  }

  /** Ends worker threads and gives the memory back. */
  async close(): Promise<void> {
    try {
      await this.tokenizer.close();
      await this.spill?.[Symbol.asyncDispose]();
    } finally {
      this.assembly.device.free();
    }
  }
}

/** The folder that a run writes to. */
export function rootOf(config: RunConfig): string {
  return config.output_dir ?? `runs/${config.run_name}`;
}

/** Files whose every call throws the signal's reason once it is aborted: whatever reads through them can be stopped. */
function abortable(files: Files, signal: AbortSignal | undefined): Files {
  return signal === undefined ? files : observeFiles(files, () => signal.throwIfAborted());
}

/** What the weights of a run depend on, beside the model it begins with and the machine. */
function fingerprintOf(config: RunConfig, data: Dataset): string {
  return createHash('sha256').update(JSON.stringify(settingsOf(config))).update(data.fingerprint).digest('hex');
}

/** The settings that the weights of a run depend on. */
function settingsOf(config: RunConfig): Readonly<Record<string, unknown>> {
  const { output_dir: _o, run_name: _n, report_to: _r, logging_steps: _l, telemetry: _te, eval_steps: _e, save_steps: _s, save_minutes: _m, save_total_limit: _t, resume_from_checkpoint: _c, threads: _th, gradient_checkpointing: _g, eval_datasets: _ed, clip_by: _cb, spill_dir: _sd, ...rest } = config;
  return rest;
}
