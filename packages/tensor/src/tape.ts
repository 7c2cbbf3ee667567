// The tape: what one stage did to one micro-batch, walked back once, input gradients first, parameters released as the walk passes them.
import type { Block } from './allocator.ts';
import type { Device, Recorder } from './device.ts';
import { LomoError } from './errors.ts';
import type { FactorStores } from './grad.ts';
import { Grad } from './grad.ts';
import type { Ledger } from './ledger.ts';
import type { Application, Call } from './op.ts';
import { add, addInto } from './ops/add.ts';
import { Parameter } from './tensor.ts';
import type { Tensor } from './tensor.ts';

interface Recorded {
  readonly application: Application<unknown>;
  readonly needs: readonly boolean[];
  readonly versions: readonly number[];
  readonly saved: readonly Tensor[];
}

export interface Walk {
  readonly ledger: Ledger;
  readonly microBatch: number;
  /** Names the stage: parameters' sites and factor stores are keyed by it. */
  readonly stage: string;
  readonly stores: FactorStores;
}

/** A recorder that keeps nothing: it notes which parameters a stage reads. */
export class CountingTape implements Recorder {
  readonly reads = new Map<Parameter, number>();

  record<A>(application: Application<A>): void {
    for (const tensor of application.ins) {
      if (tensor instanceof Parameter) this.reads.set(tensor, (this.reads.get(tensor) ?? 0) + 1);
    }
  }
}

/** A recorder that can be walked back. It owns shares of what calls save until the walk has passed them. */
export class Tape implements Recorder {
  private readonly device: Device;
  private readonly arriving: Tensor | null;
  private readonly calls: Recorded[] = [];
  private readonly tracked = new Set<Block>();
  private readonly hold: (parameter: Parameter) => void;

  /** `arriving` is the activation whose gradient the walk returns; `hold` hears of every read of a parameter. */
  constructor(device: Device, arriving: Tensor | null, hold: (parameter: Parameter) => void) {
    this.device = device;
    this.arriving = arriving;
    this.hold = hold;
    if (arriving !== null) this.tracked.add(arriving.block);
  }

  record<A>(application: Application<A>): void {
    const { op, ins, outs } = application;
    const needs = ins.map((t) => (t instanceof Parameter ? t.trainable : this.tracked.has(t.block)));
    if (!needs.includes(true)) return;
    if (op.backward === undefined) throw new LomoError('NotDifferentiable', `'${op.name}' has no gradient, but one of its inputs needs it`, { op: op.name });
    for (const out of outs) this.tracked.add(out.block);
    for (const t of ins) if (t instanceof Parameter) this.hold(t);
    this.calls.push({
      application: application as Application<unknown>,
      needs,
      versions: ins.map((t) => (t instanceof Parameter ? t.version : -1)),
      saved: (op.saves?.(ins, outs) ?? []).filter((t) => !(t instanceof Parameter)).map((t) => t.share()),
    });
  }

  /** What the walk will read, parameters aside. */
  *saved(): Iterable<Tensor> {
    for (const call of this.calls) yield* call.saved;
  }

  /**
   * Walks back from `dy`, the gradient of `result` (null: the stage made the loss), and takes `dy` over; of `result` only its identity is
   * used. Returns the gradient of `arriving`, owned by the caller.
   */
  walk(result: Tensor | null, dy: Tensor | null, walk: Walk): Tensor | null {
    const grads = new Map<Block, Tensor>();
    if (result !== null && dy !== null) grads.set(result.block, dy);
    for (let index = this.calls.length - 1; index >= 0; index--) this.step(index, grads, walk);
    this.calls.length = 0;
    const arriving = this.arriving === null ? undefined : grads.get(this.arriving.block);
    for (const [block, grad] of grads) if (block !== this.arriving?.block) grad.dispose();
    return arriving === undefined ? null : rehandle(arriving, this.arriving!);
  }

  /** Gives back what the tape saved without walking. */
  discard(): void {
    for (const call of this.calls) for (const tensor of call.saved) tensor.dispose();
    this.calls.length = 0;
  }

  private step(index: number, grads: Map<Block, Tensor>, walk: Walk): void {
    const { application, needs, versions, saved } = this.calls[index]!;
    const { op, ins, outs, attributes } = application;
    ins.forEach((t, i) => {
      if (t instanceof Parameter && t.version !== versions[i]) {
        throw new LomoError('SettledTooEarly', `'${op.name}' recorded ${t.path} at version ${versions[i]}, it is now at ${t.version}`, { path: t.path });
      }
    });
    const released = new Set<number>();
    const dys = outs.map((out) => grads.get(out.block) ?? null);
    for (const out of outs) grads.delete(out.block);
    if (outs.length === 0 || dys.some((d) => d !== null)) {
      const shaped = dys.map((d, i) => (d === null ? null : d.reshape(outs[i]!.shape)));
      const partials = new Set<Tensor>();
      const place = (i: number) => ({ microBatch: walk.microBatch, site: `${walk.stage}:${index}.${i}`, stores: walk.stores });
      const call: Call<unknown> = {
        device: this.device,
        ins,
        outs,
        attributes,
        partial: (i) => {
          const known = grads.get(ins[i]!.block);
          if (known === undefined || known.block.owners !== 1) return null;
          const partial = known.reshape(ins[i]!.shape);
          partials.add(partial);
          return partial;
        },
        sums: (i, rows) => walk.ledger.sums(asParameter(ins[i]!, op.name), place(i), rows),
        accumulator: (i) => walk.ledger.accumulator(asParameter(ins[i]!, op.name)),
        last: (i) => walk.ledger.endsWith(asParameter(ins[i]!, op.name)),
        settle: (i, grad) => {
          const parameter = asParameter(ins[i]!, op.name);
          walk.ledger.contribute(parameter, grad, place(i));
          walk.ledger.release(parameter);
          released.add(i);
        },
      };
      const gradients = this.device.own(() => {
        const result = op.backward!(call, shaped, needs);
        return { result, keep: result.filter((g): g is Tensor => g !== null && !(g instanceof Grad)) };
      });
      gradients.forEach((grad, i) => {
        const input = ins[i]!;
        if (grad === null) return;
        if (grad instanceof Grad) walk.ledger.contribute(asParameter(input, op.name), grad, place(i));
        else if (!partials.has(grad)) this.collect(grads, input, grad);
      });
    }
    for (const d of dys) d?.dispose();
    for (const tensor of saved) tensor.dispose();
    ins.forEach((t, i) => {
      if (t instanceof Parameter && !released.has(i)) walk.ledger.release(t);
    });
  }

  /** Adds `grad` to what is known of the gradient of `input`; takes over `grad` if it is an owning handle. */
  private collect(grads: Map<Block, Tensor>, input: Tensor, grad: Tensor): void {
    const known = grads.get(input.block);
    if (known === undefined) grads.set(input.block, grad.owns ? grad : grad.share());
    else if (known.block.owners === 1) {
      addInto(known, grad.reshape(known.shape));
      grad.dispose();
    } else {
      const sum = this.device.own(() => {
        const result = add(known, grad.reshape(known.shape));
        return { result, keep: [result] };
      });
      known.dispose();
      grad.dispose();
      grads.set(input.block, sum);
    }
  }
}

function asParameter(tensor: Tensor, op: string): Parameter {
  if (tensor instanceof Parameter) return tensor;
  throw new LomoError('LedgerError', `'${op}' gave a parameter's gradient for an activation ${String(tensor)}`);
}

/** The same owned bytes under the shape of `like`. */
function rehandle(tensor: Tensor, like: Tensor): Tensor {
  const shaped = tensor.reshape(like.shape).share();
  tensor.dispose();
  return shaped;
}
