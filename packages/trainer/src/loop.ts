// THE LOOP: one step after another, as an async iterable. Everything else a run does hangs on the events it yields.
import type { LomoError } from '@lomo/tensor';
import { isLomoError } from '@lomo/tensor';
import type { HostBatch, Program, StepResult } from '@lomo/parallel';
import type { Optimizer, StepTelemetry } from '@lomo/optim';
import type { LossScale } from './loss_scale.ts';
import { exhausted, isRejection, lostToDisk, tornWeights, withSamples } from './rejection.ts';

/** What the loop runs over. `done`, `skipped` and the loss scale are its only state, and what a checkpoint keeps of it. */
export interface Course {
  readonly program: Pick<Program, 'run'>;
  readonly optimizer: Pick<Optimizer, 'passes' | 'measuredPasses' | 'telemetry'>;
  /** The micro-batches of step 1, 2, ... and which samples they hold: a pure function of the step. */
  batches(step: number): Promise<StepBatches>;
  /** Learning rate of step 1, 2, ... */
  rate(step: number): number;
  /** Whether a step's telemetry is wanted. */
  measures(step: number): boolean;
  readonly seed: number;
  readonly steps: number;
  readonly lossScale: Pick<LossScale, 'value' | 'accept' | 'shrink'>;
  done: number;
  readonly skipped: Set<number>;
  /** True while weights may be of two steps: from a step that ended halfway until `restore`. They must not be saved. */
  torn: boolean;
  /** Goes back to the last durable state, sets `done` to its step and `torn` to false. */
  restore(): Promise<void>;
}

export interface StepBatches {
  readonly batches: readonly HostBatch[];
  /** Names of the samples in each micro-batch, for messages: 'train.jsonl:17'. */
  readonly samples: readonly (readonly string[])[];
}

export type TrainEvent =
  /** `telemetry`: null where it was not wanted. */
  | ({ readonly kind: 'step'; readonly step: number; readonly lr: number; readonly lossScale: number; readonly milliseconds: number; readonly telemetry: StepTelemetry | null } & StepResult)
  /** Nothing of the step was kept, and it will not be tried again. `lossScale`: what a dynamic one was halved to, else null. */
  | { readonly kind: 'rejected'; readonly step: number; readonly error: LomoError; readonly lossScale: number | null }
  /** The step had changed some weights; the run went back to step `to`. It will skip the step, or try it `again` where the disk was to blame and not the data. */
  | { readonly kind: 'rolled back'; readonly step: number; readonly to: number; readonly again: boolean; readonly error: LomoError };

/** Rejected steps in a row that end a run; those that made the loss scale smaller do not count. */
export const patience = 3;

/** Errors after which no byte of a weight has changed; a file's, because it is a TornStep after the first update. */
const harmless: readonly string[] = ['NonFiniteLoss', 'NonFiniteGradient', 'Interrupted', 'FileError'];

/**
 * Runs the steps that are left. An abort is honoured before the first update of a step or after the step, never between: the weights are
 * those of a whole step. Throws the rejection after three in a row that no smaller loss scale could have saved, a file's error where a step
 * could not be done twice in a row, TornWeights where it would begin with `torn` ones, and every other error as it is.
 */
export async function* train(course: Course, options: { readonly signal?: AbortSignal } = {}): AsyncGenerator<TrainEvent, void> {
  const { program, optimizer, seed, lossScale } = course;
  if (course.torn) throw tornWeights(course.done);
  let rejected = 0;
  let unread = 0; // the step whose gradients could not be read back last
  while (course.done < course.steps && options.signal?.aborted !== true) {
    const step = course.done + 1;
    if (course.skipped.has(step)) {
      course.done = step;
      continue;
    }
    const { batches, samples } = await course.batches(step);
    const lr = course.rate(step);
    const start = performance.now();
    try {
      const scale = lossScale.value;
      const measured = course.measures(step);
      const result = await program.run({ step, batches, passes: measured ? optimizer.measuredPasses : optimizer.passes, seed, lr, lossScale: scale, ...options });
      const telemetry = (measured && (await optimizer.telemetry?.read())) || null;
      lossScale.accept();
      course.done = step;
      rejected = 0;
      yield { kind: 'step', step, lr, lossScale: scale, milliseconds: performance.now() - start, telemetry, ...result };
    } catch (error) {
      course.torn ||= !isLomoError(error) || !harmless.includes(error.code);
      if (isLomoError(error, 'Interrupted')) return;
      if (!isRejection(error)) throw error;
      const lost = lostToDisk(error);
      if (lost !== null) {
        // The samples are as good as any: the step is done again, and a disk that fails again ends the run.
        if (unread === step) throw lost;
        unread = step;
        await course.restore();
        yield { kind: 'rolled back', step, to: course.done, again: true, error };
        continue;
      }
      const named = withSamples(error, samples);
      const torn = error.code === 'TornStep';
      // Replayed from a checkpoint, a step that overflowed overflows again and leaves the same scale; others are left out by name.
      const smaller = error.code === 'NonFiniteGradient' && lossScale.shrink() ? lossScale.value : null;
      if (smaller === null) course.skipped.add(step);
      if (torn) await course.restore();
      else course.done = step;
      if (smaller === null && ++rejected >= patience) throw exhausted(named, patience);
      yield torn ? { kind: 'rolled back', step, to: course.done, again: false, error: named } : { kind: 'rejected', step, error: named, lossScale: smaller };
    }
  }
}
