// A schedule is data: the order in which one rank works on stages and micro-batches. It can be printed, simulated and checked before it runs.
import { LomoError } from '@lomo/tensor';

/** One piece of work of one rank. 'update' applies gradients that were put aside. */
export interface Work {
  readonly kind: 'forward' | 'backward' | 'update';
  readonly stage: number;
  readonly microBatch: number;
}

/**
 * What is not always on the device comes and goes by these: a stage's weights, or the boundary activations that arrive at it, of all
 * micro-batches. 'gather' takes room and lets the bytes come; the first work that needs them waits for the rest of the way. 'store' lets them
 * be written out; 'release' waits until they are and gives the room back.
 */
export interface Transfer {
  readonly kind: 'gather' | 'store' | 'release';
  readonly what: 'weights' | 'boundary';
  readonly stage: number;
}

export type Action = Work | Transfer;

export interface ScheduleInput {
  readonly rank: number;
  /** Rank of every stage. */
  readonly placement: readonly number[];
  readonly microBatches: number;
}

/** The work of a step; transfers are added to any of them (`withTransfers`). */
export type Schedule = (input: ScheduleInput) => readonly Work[];

export function isTransfer(action: Action): action is Transfer {
  return action.kind === 'gather' || action.kind === 'store' || action.kind === 'release';
}

const letters = { forward: 'F', backward: 'B', update: 'U', gather: 'gather', store: 'store', release: 'release' } as const;

/** A schedule as one line a stage, for people: 'F2: 0 1 2 3'; transfers on lines of their own: 'gather weights 3'. */
export function printSchedule(actions: readonly Action[]): string {
  const lines: string[] = [];
  let head = '';
  for (const action of actions) {
    const name = isTransfer(action) ? `${letters[action.kind]} ${action.what} ${action.stage}` : `${letters[action.kind]}${action.stage}:`;
    if (isTransfer(action)) lines.push(name);
    else if (name === head) lines[lines.length - 1] += ` ${action.microBatch}`;
    else lines.push(`${name} ${action.microBatch}`);
    head = name;
  }
  return lines.join('\n');
}

const forward = (stage: number) => ['forward', stage] as const;
const backward = (stage: number) => ['backward', stage] as const;

/**
 * Throws ScheduleError unless every action belongs to the rank and happens once, its inputs exist when it runs, and every stage of the rank
 * is walked back for every micro-batch, in ascending order: the order of every sum over tokens.
 */
export function checkSchedule(work: readonly Work[], input: ScheduleInput): void {
  const done = new Set<string>();
  const { placement, microBatches, rank } = input;
  const last = placement.length - 1;
  const walked = placement.map(() => 0);
  for (const { kind, stage, microBatch } of work) {
    const refuse = (why: string): never => {
      throw new LomoError('ScheduleError', `${kind} of stage ${stage}, micro-batch ${microBatch}, ${why}`);
    };
    if (placement[stage] !== rank || !(microBatch >= 0 && microBatch < microBatches)) refuse(`is not rank ${rank}'s: it has no such stage or micro-batch`);
    if (kind === 'update') refuse('is no part of a schedule: gradients are applied as they settle, or after the last walk');
    if (kind === 'forward' && stage === last) refuse('is no action: the last stage makes its loss when it is walked back');
    if (done.has(`${kind} ${stage} ${microBatch}`)) refuse('happens twice');
    for (const [need, from] of kind === 'forward' || stage === last ? [forward(stage - 1)] : [forward(stage), backward(stage + 1)]) {
      if (placement[from] === rank && !done.has(`${need} ${from} ${microBatch}`)) refuse(`runs before ${need} ${from}`);
    }
    if (kind === 'backward' && walked[stage]!++ !== microBatch) refuse('is out of order: micro-batches are walked back ascending');
    done.add(`${kind} ${stage} ${microBatch}`);
  }
  placement.forEach((owner, stage) => {
    if (owner !== rank) return;
    for (let m = 0; m < microBatches; m++) {
      if (!done.has(`backward ${stage} ${m}`)) throw new LomoError('ScheduleError', `stage ${stage} is never walked back for micro-batch ${m}`);
    }
  });
}
