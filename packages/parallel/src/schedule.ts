// A schedule is data: the order in which one rank works on stages and micro-batches. It can be printed, simulated and checked before it runs.
import { LomoError } from '@lomo/tensor';

/** One piece of work of one rank. */
export interface Action {
  readonly kind: 'forward' | 'backward';
  readonly stage: number;
  readonly microBatch: number;
}

export interface ScheduleInput {
  readonly rank: number;
  /** Rank of every stage. */
  readonly placement: readonly number[];
  readonly microBatches: number;
}

export type Schedule = (input: ScheduleInput) => readonly Action[];

/** A schedule as one line a stage, for people: 'F2: 0 1 2 3'. */
export function printSchedule(actions: readonly Action[]): string {
  const lines: string[] = [];
  let head = '';
  for (const { kind, stage, microBatch } of actions) {
    const name = `${kind === 'forward' ? 'F' : 'B'}${stage}:`;
    if (name === head) lines[lines.length - 1] += ` ${microBatch}`;
    else lines.push(`${name} ${microBatch}`);
    head = name;
  }
  return lines.join('\n');
}

/** Throws ScheduleError unless every action's inputs exist when it runs and every stage of the rank is walked back for every micro-batch. */
export function checkSchedule(actions: readonly Action[], input: ScheduleInput): void {
  const done = new Set<string>();
  const { placement, microBatches, rank } = input;
  const last = placement.length - 1;
  for (const { kind, stage, microBatch } of actions) {
    const needs = kind === 'forward' ? [`forward ${stage - 1}`] : [stage === last ? `forward ${stage - 1}` : `backward ${stage + 1}`];
    for (const need of needs) {
      const from = Number(need.split(' ')[1]);
      if (from < 0 || placement[from] !== rank) continue;
      if (!done.has(`${need} ${microBatch}`)) {
        throw new LomoError('ScheduleError', `${kind} of stage ${stage}, micro-batch ${microBatch}, runs before ${need}`);
      }
    }
    done.add(`${kind} ${stage} ${microBatch}`);
  }
  placement.forEach((owner, stage) => {
    if (owner !== rank) return;
    for (let m = 0; m < microBatches; m++) {
      if (!done.has(`backward ${stage} ${m}`)) throw new LomoError('ScheduleError', `stage ${stage} is never walked back for micro-batch ${m}`);
    }
  });
}
