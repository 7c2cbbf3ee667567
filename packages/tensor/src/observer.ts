// Who hears of what a device launches, and within which part of a step: plans, traces, counters.
import type { Event } from './backend.ts';
import type { Attributes, Op } from './op.ts';
import type { Tensor } from './tensor.ts';

/** A named stretch of a step. Parts nest. */
export interface Part {
  readonly phase: 'pass' | 'forward' | 'recompute' | 'backward' | 'settle';
  /** The pass, the stage, or the parameter that settles. */
  readonly name: string;
  readonly microBatch?: number;
}

/** One launch as observers hear of it. */
export interface Launched {
  readonly ins: readonly Tensor[];
  readonly inouts: readonly Tensor[];
  readonly outs: readonly Tensor[];
  readonly event: Event;
}

/** Hears of every launch: plans count FLOPs and bytes, traces name what ran and within which part of the step. */
export interface LaunchObserver {
  /** A launch is about to be prepared: its results and its scratch are allocated from now until `prepared`. */
  launching?(op: Op, operands: Pick<Launched, 'ins' | 'inouts'>): void;
  /** Its tensors and its workspace are live. Within a pruned stretch it is enqueued at its end, or never. */
  prepared?(op: Op, tensors: Omit<Launched, 'event'>): void;
  /** It has been enqueued; `outs` is the array that `prepared` was given. */
  launched(op: Op, launched: Launched, attributes: Attributes): void;
  /** A copy between tensors has been enqueued. */
  copied?(to: Tensor, from: Tensor): void;
  /** What is launched from now on belongs to `part`, until it is left. */
  entered?(part: Part): void;
  left?(): void;
}

/** One observer that tells both, `first` first. */
export function observedBy(first: LaunchObserver | null, second: LaunchObserver): LaunchObserver {
  if (first === null) return second;
  return {
    launching: (op, operands) => {
      first.launching?.(op, operands);
      second.launching?.(op, operands);
    },
    prepared: (op, tensors) => {
      first.prepared?.(op, tensors);
      second.prepared?.(op, tensors);
    },
    launched: (op, launched, attributes) => {
      first.launched(op, launched, attributes);
      second.launched(op, launched, attributes);
    },
    copied: (to, from) => {
      first.copied?.(to, from);
      second.copied?.(to, from);
    },
    entered: (part) => {
      first.entered?.(part);
      second.entered?.(part);
    },
    left: () => {
      first.left?.();
      second.left?.();
    },
  };
}
