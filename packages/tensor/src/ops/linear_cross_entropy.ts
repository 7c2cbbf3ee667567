// The head: logits = x wT and their cross-entropy, never as a [tokens, vocabulary] matrix. Two forms, chosen by the plan: token chunks with
// an f32 weight-gradient accumulator (three products), or vocabulary tiles (one product more, no whole gradient).
import { LomoError } from '../errors.ts';
import type { FactorStores, Term } from '../grad.ts';
import { Grad } from '../grad.ts';
import type { Call, Differentiable } from '../op.ts';
import type { StepTensor } from '../step.ts';
import { Parameter } from '../tensor.ts';
import type { Tensor } from '../tensor.ts';
import { castOp } from './cast.ts';
import { crossEntropyFinishOp, crossEntropyGradOp, crossEntropyOp, crossEntropyTileOp } from './cross_entropy.ts';
import { gateLoss } from './gate.ts';
import { matmul, matmulAdd } from './matmul.ts';
import { tokenSum } from './token_sum.ts';
import { weightGrad } from './weight_grad.ts';

/** How the head is computed. */
export type HeadForm = 'chunks' | 'tiles';

export interface HeadOptions {
  readonly step: StepTensor;
  /** Where the losses of the tokens go, f32 [T]; 0 where a label is masked. */
  readonly tokenLoss: Tensor;
  /** Index of the first token in the step's order of tokens. */
  readonly start: number;
  readonly form: HeadForm;
}

/** Rows of a vocabulary tile. Fixed, because sums over tiles must not depend on how large gradient tiles are. */
export const vocabularyTile = 1024;

/**
 * Adds the losses of x [T, h] against w [V, h] and targets i32 [T] (below 0: masked) to `step.loss` and closes the gate if that is not
 * finite. Recorded, everything happens when the tape is walked back: the forward sweep is the first half of the backward one.
 */
export function linearCrossEntropy(x: Tensor, w: Tensor, head: { readonly targets: Tensor } & HeadOptions): void {
  if (!(w instanceof Parameter)) throw new LomoError('HeadError', 'linear_cross_entropy: the head must be a parameter');
  const { recorder } = x.device;
  if (recorder === null) {
    evaluate(x, w, head);
    return;
  }
  recorder.record({ op: differentiable, ins: [x, w, head.targets], outs: [], attributes: head });
}

/** logits f32 [R, V] = x wT, for sampling: R is small. */
export function headLogits(x: Tensor, w: Tensor): Tensor {
  const logits = x.device.allocate({ shape: [x.shape[0]!, w.shape[0]!], dtype: 'f32' }, 'logits');
  return matmul(x, w, { tb: true, into: logits });
}

const differentiable: Differentiable<HeadOptions> = {
  name: 'linear_cross_entropy',
  saves: (ins) => [ins[0]!, ins[2]!],
  backward: (call, _, needs) => (call.attributes.form === 'chunks' ? chunksBackward(call, needs) : tilesBackward(call, needs)),
};

interface Chunk {
  readonly from: number;
  readonly to: number;
}

function chunks(tokens: number, size: number): Chunk[] {
  return Array.from({ length: Math.ceil(tokens / size) }, (_, i) => ({ from: i * size, to: Math.min(tokens, (i + 1) * size) }));
}

function finishLoss(options: HeadOptions): void {
  tokenSum(options.step.loss, options.tokenLoss.reshape([options.tokenLoss.shape[0]!, 1]), options.start);
  gateLoss(options.step);
}

function evaluate(x: Tensor, w: Tensor, head: { readonly targets: Tensor } & HeadOptions): void {
  const { device } = x;
  const size = device.backend.traits.chunk;
  const rows = Math.min(size, x.shape[0]!);
  using logits = device.allocate({ shape: [rows, w.shape[0]!], dtype: 'f32' }, 'logits');
  using lse = device.allocate({ shape: [rows], dtype: 'f32' }, 'workspace');
  for (const { from, to } of chunks(x.shape[0]!, size)) {
    const part = logits.rows(0, to - from);
    matmul(x.rows(from, to), w, { tb: true, into: part });
    device.run(
      crossEntropyOp,
      { ins: [head.targets.rows(from, to), head.step.scalars], inouts: [part], outs: [head.tokenLoss.rows(from, to), lse.rows(0, to - from)] },
      { grad: 0 },
    );
  }
  finishLoss(head);
}

/** `logits` in the dtype of activations, in `scratch`; themselves where that is f32. */
function operand(logits: Tensor, scratch: Tensor | null): Tensor {
  if (scratch === null) return logits;
  const cast = scratch.rows(0, logits.shape[0]!);
  logits.device.run(castOp, { ins: [logits], outs: [cast] }, {});
  return cast;
}

function chunksBackward(call: Call<HeadOptions>, needs: readonly boolean[]): (Tensor | Grad | null)[] {
  const { device, attributes: head } = call;
  const [x, w, targets] = call.ins as [Tensor, Tensor, Tensor];
  const size = device.backend.traits.chunk;
  const rows = Math.min(size, x.shape[0]!);
  const dx = needs[0] === true ? device.allocate({ shape: x.shape, dtype: x.dtype }, 'workspace') : null;
  const dw = needs[1] === true ? call.accumulator(1) : null;
  let fresh = dw?.fresh ?? false;
  using logits = device.allocate({ shape: [rows, w.shape[0]!], dtype: 'f32' }, 'logits');
  using narrow = x.dtype === 'f32' ? null : device.allocate({ shape: [rows, w.shape[0]!], dtype: x.dtype }, 'logits');
  using lse = device.allocate({ shape: [rows], dtype: 'f32' }, 'workspace');
  for (const { from, to } of chunks(x.shape[0]!, size)) {
    const part = logits.rows(0, to - from);
    const xs = x.rows(from, to);
    matmul(xs, w, { tb: true, into: part });
    const dlogits = narrow === null ? part : narrow.rows(0, to - from);
    device.run(
      crossEntropyOp,
      {
        ins: [targets.rows(from, to), head.step.scalars],
        inouts: [part],
        outs: [head.tokenLoss.rows(from, to), lse.rows(0, to - from), ...(narrow === null ? [] : [dlogits])],
      },
      { grad: narrow === null ? 1 : 2 },
    );
    if (dx !== null) matmul(dlogits, w, { into: dx.rows(from, to) });
    if (dw !== null) weightGrad(dw.tensor, dlogits, xs, { row: 0, add: !fresh });
    fresh = false;
  }
  finishLoss(head);
  return [dx, null, null];
}

function tilesBackward(call: Call<HeadOptions>, needs: readonly boolean[]): (Tensor | Grad | null)[] {
  const { device, attributes: head } = call;
  const [x, w, targets] = call.ins as [Tensor, Parameter, Tensor];
  const tokens = x.shape[0]!;
  const lse = device.allocate({ shape: [tokens], dtype: 'f32' }, 'factors');
  statistics(x, w, { targets, lse, head });
  finishLoss(head);
  const dx = needs[0] === true ? device.allocate({ shape: x.shape, dtype: x.dtype }, 'workspace') : null;
  // Over tiles the input gradient is a sum, kept in f32 until it is whole.
  const sum = dx === null || dx.dtype === 'f32' ? dx?.share() ?? null : device.allocate({ shape: x.shape, dtype: 'f32' }, 'workspace');
  const term = new VocabularyTiles({ x: x.share(), w, targets: targets.share(), lse, scalars: head.step.scalars }, sum);
  const grad = needs[1] === true ? new Grad(device, w.shape, [term]) : null;
  const settlesHere = grad !== null && call.last(1);
  if (!settlesHere) term.inputGradient();
  else {
    call.settle(1, grad);
    if (term.unfinished) throw new LomoError('NeverVisited', `${w.path} settled, but its rule visited no gradient tiles`);
  }
  if (dx !== null && sum !== null && sum.block !== dx.block) device.run(castOp, { ins: [sum], outs: [dx] }, {});
  sum?.dispose();
  if (grad === null) term.release();
  return [dx, settlesHere ? null : grad, null];
}

function statistics(x: Tensor, w: Tensor, options: { readonly targets: Tensor; readonly lse: Tensor; readonly head: HeadOptions }): void {
  const { device } = x;
  const size = device.backend.traits.chunk;
  const rows = Math.min(size, x.shape[0]!);
  const width = Math.min(vocabularyTile, w.shape[0]!);
  using logits = device.allocate({ shape: [rows * width], dtype: 'f32' }, 'logits');
  using stats = device.allocate({ shape: [rows, 3], dtype: 'f32' }, 'workspace');
  for (const { from, to } of chunks(x.shape[0]!, size)) {
    const targets = options.targets.rows(from, to);
    const part = stats.rows(0, to - from);
    for (const tile of chunks(w.shape[0]!, width)) {
      const shaped = logits.rows(0, (to - from) * (tile.to - tile.from)).reshape([to - from, tile.to - tile.from]);
      matmul(x.rows(from, to), w.rows(tile.from, tile.to), { tb: true, into: shaped });
      device.run(crossEntropyTileOp, { ins: [targets, shaped], inouts: [part] }, { column: tile.from });
    }
    device.run(crossEntropyFinishOp, { ins: [part, targets], outs: [options.head.tokenLoss.rows(from, to), options.lse.rows(from, to)] }, {});
  }
}

interface TilesOperands {
  readonly x: Tensor;
  readonly w: Tensor;
  readonly targets: Tensor;
  readonly lse: Tensor;
  readonly scalars: Tensor;
}

/** The head's weight gradient, made tile by tile from logits computed again; the first sweep also makes the input gradient. */
class VocabularyTiles implements Term {
  readonly granularity = vocabularyTile;
  private readonly operands: TilesOperands;
  private pending: Tensor | null;

  /** Takes over x, targets and lse; `dx` f32 [T, h], borrowed, is filled by whichever sweep comes first. */
  constructor(operands: TilesOperands, dx: Tensor | null) {
    this.operands = operands;
    this.pending = dx;
  }

  into(tile: Tensor, row: number, add: boolean): void {
    const last = row + tile.shape[0]! === this.operands.w.shape[0];
    for (const range of chunks(tile.shape[0]!, vocabularyTile)) {
      this.sweep({ from: row + range.from, to: row + range.to }, { tile: tile.rows(range.from, range.to), add });
    }
    if (last) this.pending = null;
  }

  /** True while the input gradient has not been made. */
  get unfinished(): boolean {
    return this.pending !== null;
  }

  /** Makes the input gradient by a sweep of its own, for when the weight does not settle here. */
  inputGradient(): void {
    if (this.pending === null) return;
    for (const range of chunks(this.operands.w.shape[0]!, vocabularyTile)) this.sweep(range, null);
    this.pending = null;
  }

  store(stores: FactorStores, at: number, count: number): Term {
    const { x, w, targets, lse, scalars } = this.operands;
    const keep = (t: Tensor): Tensor => stores.keep(t, at, count).share();
    return new VocabularyTiles({ x: keep(x), w, targets: keep(targets), lse: keep(lse), scalars }, null);
  }

  whole(): null {
    return null;
  }

  release(): void {
    this.operands.x.dispose();
    this.operands.targets.dispose();
    this.operands.lse.dispose();
  }

  private sweep(range: Chunk, dw: { readonly tile: Tensor; readonly add: boolean } | null): void {
    const { x, w, targets, lse, scalars } = this.operands;
    const { device } = x;
    const size = device.backend.traits.chunk;
    const width = range.to - range.from;
    const rows = w.rows(range.from, range.to);
    const height = Math.min(size, x.shape[0]!);
    using logits = device.allocate({ shape: [height, width], dtype: 'f32' }, 'logits');
    using narrow = x.dtype === 'f32' ? null : device.allocate({ shape: [height, width], dtype: x.dtype }, 'logits');
    let add = dw?.add ?? false;
    for (const { from, to } of chunks(x.shape[0]!, size)) {
      const part = logits.rows(0, to - from);
      matmul(x.rows(from, to), rows, { tb: true, into: part });
      device.run(crossEntropyGradOp, { ins: [targets.rows(from, to), lse.rows(from, to), scalars], inouts: [part] }, { column: range.from });
      const dlogits = operand(part, narrow);
      if (this.pending !== null) {
        const dx = this.pending.rows(from, to);
        if (range.from === 0) matmul(dlogits, rows, { into: dx });
        else matmulAdd(dx, dlogits, rows);
      }
      if (dw !== null) weightGrad(dw.tile, dlogits, x.rows(from, to), { row: 0, add });
      add = true;
    }
  }
}

