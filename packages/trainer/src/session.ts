// A run that is open: what the loop needs, what a screen shows, what a checkpoint saves.
import type { Dataset, Steps, Tokenizer } from '@lomo/data';
import type { Files } from '@lomo/models';
import { initialiseAnywhere, observeFiles } from '@lomo/models';
import { schedule } from '@lomo/optim';
import { fill, LomoError } from '@lomo/tensor';
import type { Assembly, RunPlan } from './assemble.ts';
import type { SavedCheckpoint } from './checkpoint.ts';
import type { DamagedCheckpoint } from './checkpoint_folders.ts';
import type { Choice } from './choice.ts';
import type { RunConfig } from './config.ts';
import { learningRateOf, rootOf } from './config.ts';
import type { Course, StepBatches } from './loop.ts';
import { LossScale } from './loss_scale.ts';
import { PlannedProgram } from './planned.ts';
import { tornWeights } from './rejection.ts';
import { loadChecked, readState, restoreCheckpoint } from './restore.ts';
import { evaluationRows, joinRows } from './rows.ts';
import type { SavedState } from './run_folder.ts';
import { RunFolder } from './run_folder.ts';
import { fingerprintOf, settingsOf } from './settings.ts';
import { machineDifferences, settingDifferences } from './state.ts';
import type { Completion } from './texts.ts';
import { complete, freshTokens } from './texts.ts';
import { TracedProgram } from './traced.ts';

/** What `openSession` brings together. */
export interface SessionParts {
  readonly config: RunConfig;
  readonly assembly: Assembly;
  readonly plan: RunPlan;
  readonly choices: readonly Choice[];
  readonly tokenizer: Tokenizer;
  readonly train: Dataset;
  readonly held: Dataset | null;
  readonly heldSteps: Steps | null;
  readonly schedule: Steps;
  /** Rows of the schedule that make a micro-batch. */
  readonly rows: number;
  readonly machine: Readonly<Record<string, string>>;
  readonly files: Files;
  /** The files that gradients, weights or boundary activations wait in. */
  readonly scratch: readonly AsyncDisposable[];
  /** Its folder, and the bytes that a step writes into it. */
  readonly spilled: { readonly folder: string; readonly bytes: number } | null;
  /** Whether a checkpoint is written from a copy while training goes on. */
  readonly copies: boolean;
  /** Bytes this process may still take, where somebody can tell. */
  readonly freeMemory: (() => number) | null;
}

export class Session implements Course {
  readonly config: RunConfig;
  readonly assembly: Assembly;
  readonly plan: RunPlan;
  readonly choices: readonly Choice[];
  readonly tokenizer: Tokenizer;
  readonly train: Dataset;
  readonly held: Dataset | null;
  readonly schedule: Steps;
  readonly program: TracedProgram;
  readonly seed: number;
  readonly steps: number;
  readonly lossScale: LossScale;
  done = 0;
  torn = false;
  readonly skipped = new Set<number>();
  trainedTokens = 0;
  bestEvalLoss: number | null = null;
  private bestStep: number | null = null;
  /** The last evaluation, and the step it was made after. */
  private evaluated: { readonly step: number; readonly loss: number } | null = null;
  private readonly folder: RunFolder;
  private readonly rows: number;
  private readonly machine: Readonly<Record<string, string>>;
  private readonly files: Files;
  private readonly scratch: readonly AsyncDisposable[];
  private readonly spilled: SessionParts['spilled'];
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
    this.seed = parts.config.seed;
    this.steps = parts.schedule.length;
    this.lossScale = new LossScale(parts.config.loss_scale);
    this.rows = parts.rows;
    this.machine = parts.machine;
    this.files = parts.files;
    this.scratch = parts.scratch;
    this.spilled = parts.spilled;
    this.folder = new RunFolder(rootOf(parts.config), parts);
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

  /** The folder that checkpoints are written to. */
  get root(): string {
    return this.folder.root;
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
    await this.schedule.prepare(step - 1);
    const batches = joinRows(this.schedule.at(step - 1).batches, this.rows);
    return { batches, samples: batches.map((batch) => batch.samples.map((i) => this.train.where(i))) };
  }

  /** Mean loss over the held-out data, or null without any, or where `signal` ends it. */
  async evaluate(signal?: AbortSignal): Promise<number | null> {
    if (this.heldSteps === null) return null;
    const batches = evaluationRows(this.heldSteps, { rows: this.rows, maxLength: this.config.max_seq_length });
    try {
      return (await this.assembly.program.evaluate(batches, signal === undefined ? {} : { signal })).loss;
    } catch (error) {
      if (signal?.aborted === true && error === signal.reason) return null;
      throw error;
    }
  }

  /** True after a step that `eval_steps` wants evaluated and nobody has: just done, or resumed from a run that was stopped while it evaluated. */
  get evaluationDue(): boolean {
    const { eval_steps: every } = this.config;
    const wanted = every !== undefined && this.done > 0 && (this.done % every === 0 || this.done === this.steps);
    return wanted && this.heldSteps !== null && this.evaluated?.step !== this.done && !this.skipped.has(this.done);
  }

  /** Greedy completions of held-out samples (of the training data where nothing is held out). */
  complete(count: number, signal?: AbortSignal): AsyncGenerator<Completion, void> {
    const options = { dataset: this.held ?? this.train, count, maxNewTokens: freshTokens };
    return complete(this.assembly.model, this.tokenizer, signal === undefined ? options : { ...options, signal });
  }

  /** Saves the state after step `done`, which nothing may change until this returns; the checkpoint is durable then. */
  save(): Promise<SavedCheckpoint> {
    return this.folder.save(() => this.state());
  }

  /**
   * Copies the state after step `done` and saves the copy while training goes on: it may once this returns. `saved` is what `save` would
   * return or throw. One at a time: an earlier one is waited for first. Null where there is no memory for a copy.
   */
  saveCopy(): Promise<{ readonly saved: Promise<SavedCheckpoint> } | null> {
    return this.folder.saveCopy(() => this.state());
  }

  /** Makes the output folder, clears what a crash left in it, and proves that checkpoints can be written there. Throws FileError or DiskFull. Returns warnings. */
  probe(): Promise<readonly string[]> {
    const { config } = this;
    const kept = config.save_total_limit + (this.heldSteps === null || config.eval_steps === undefined ? 0 : 1);
    return this.folder.probe({ kept, spill: this.spilled });
  }

  /** Held-out loss of the weights as they are, where it has been noted. */
  get heldOutLoss(): number | null {
    return this.evaluated?.step === this.done ? this.evaluated.loss : null;
  }

  /** Notes an evaluation; true when it is the best so far. */
  noteEvaluation(loss: number): boolean {
    this.evaluated = { step: this.done, loss };
    // Put so that NaN is never the best.
    if (!(loss < (this.bestEvalLoss ?? Infinity))) return false;
    this.bestEvalLoss = loss;
    this.bestStep = this.done;
    return true;
  }

  /** The newest complete checkpoint of the output folder, what a crash interrupted there finished; and newer ones that are damaged. */
  newest(): Promise<{ readonly path: string | null; readonly damaged: readonly DamagedCheckpoint[] }> {
    return this.folder.newest();
  }

  /**
   * Goes back to the checkpoint that was saved or resumed last, else to the newest of the folder unless `resume_from_checkpoint` is false, else
   * to the beginning. A checkpoint that is being written is waited for.
   */
  async restore(): Promise<void> {
    await this.folder.settled();
    const foreign = this.config.resume_from_checkpoint === false;
    const folder = this.folder.durable ?? (foreign ? null : (await this.newest()).path);
    if (folder === null) await this.begin();
    else await this.resume(folder);
  }

  /**
   * Loads a checkpoint. Throws ResumeMismatch, naming what differs, when it belongs to other settings or data, and the signal's reason.
   * Returns what about the machine differs from the one it was made on, in words ('isa avx512, here avx2'): where anything does, the run goes on rightly, but not to the same bits.
   */
  async resume(folder: string, options: { readonly signal?: AbortSignal } = {}): Promise<readonly string[]> {
    const { config, train } = this;
    const files = abortable(this.files, options.signal);
    const found = await readState(folder, files);
    if (found.fingerprint !== fingerprintOf(config, train.fingerprint)) {
      const differences = settingDifferences(found, { settings: settingsOf(config), data: train.fingerprint });
      const named = differences.length === 0 ? 'other settings or data' : differences.join('; ');
      throw new LomoError('ResumeMismatch', `${folder} was made with ${named}: going on would be another run. Give what it was made with, or choose another output_dir, or set resume_from_checkpoint: false`, { folder, differences });
    }
    this.torn = true;
    const state = await restoreCheckpoint(this.assembly, folder, files);
    this.torn = false;
    this.folder.durable = folder;
    this.done = state.step;
    this.trainedTokens = state.trainedTokens;
    this.bestEvalLoss = state.bestEvalLoss;
    this.bestStep = state.bestStep;
    this.evaluated = state.evalLoss === null ? null : { step: state.step, loss: state.evalLoss };
    this.lossScale.restore(state.lossScale);
    for (const step of state.skipped) this.skipped.add(step);
    return machineDifferences(state.machine, this.machine);
  }

  /** Weights as they were before step 1. */
  async begin(options: { readonly signal?: AbortSignal } = {}): Promise<void> {
    const { model, optimizer } = this.assembly;
    this.torn = true;
    if (this.config.init === 'random') await initialiseAnywhere(model, this.config.seed);
    else await loadChecked(model, this.config.model_name_or_path, { files: abortable(this.files, options.signal) });
    for (const { tensor } of optimizer.state()) fill(tensor, 0);
    this.torn = false;
    this.done = 0;
    this.trainedTokens = 0;
    this.bestEvalLoss = null;
    this.bestStep = null;
    this.evaluated = null;
    this.lossScale.restore(null);
  }

  /** Waits for a checkpoint that is being written, ends worker threads and gives the memory back. */
  async close(): Promise<void> {
    try {
      await this.folder.settled();
      await this.tokenizer.close();
      for (const file of this.scratch) await file[Symbol.asyncDispose]();
    } finally {
      this.assembly.device.free();
    }
  }

  private state(): SavedState {
    if (this.torn) throw tornWeights(this.done);
    return {
      format: 2,
      step: this.done,
      skipped: [...this.skipped],
      steps: this.steps,
      seed: this.seed,
      dataSeed: this.train.seed,
      trainedTokens: this.trainedTokens,
      bestEvalLoss: this.bestEvalLoss,
      bestStep: this.bestStep,
      evalLoss: this.heldOutLoss,
      lossScale: this.lossScale.state,
      fingerprint: fingerprintOf(this.config, this.train.fingerprint),
      settings: settingsOf(this.config),
      data: this.train.fingerprint,
      machine: this.machine,
    };
  }
}

/** Files whose every call throws the signal's reason once it is aborted: whatever reads through them can be stopped. */
function abortable(files: Files, signal: AbortSignal | undefined): Files {
  return signal === undefined ? files : observeFiles(files, () => signal.throwIfAborted());
}
