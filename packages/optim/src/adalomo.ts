// AdaLomo (arXiv 2310.10195): LOMO with a factored second moment; its state is a row and a column a matrix.
import type { Grad, Parameter } from '@lomo/tensor';
import { erase, fill, matrixOf, meanOp, numel } from '@lomo/tensor';
import { adalomoColumnsOp, adalomoMomentsOp, adalomoRatioOp, adalomoUpdateOp, adalomoVectorOp, adalomoVectorRatioOp, adalomoVectorUpdateOp } from './adalomo_ops.ts';
import type { Rule, RuleContext, State } from './rule.ts';
import { checked, hyper, measured, tileOf } from './rule.ts';

export interface AdaLomoOptions {
  /** Added to squares. */
  readonly eps1?: number;
  /** Least RMS of a parameter that scales its step. */
  readonly eps2?: number;
  /** Largest RMS of an update. */
  readonly d?: number;
  readonly decayRate?: number;
}

/** AdaLomo with the given constants; state r [rows] and c [columns] for matrices, v for vectors, f32. */
export function adalomo(options: AdaLomoOptions = {}): Rule {
  const constants = { eps1: options.eps1 ?? 1e-30, eps2: options.eps2 ?? 1e-3, d: options.d ?? 1, decayRate: options.decayRate ?? -0.8 };
  return {
    name: 'adalomo',
    ops: [erase(adalomoMomentsOp), erase(adalomoColumnsOp), erase(adalomoRatioOp), erase(adalomoUpdateOp), erase(adalomoVectorOp), erase(adalomoVectorRatioOp), erase(adalomoVectorUpdateOp)],
    measures: true,
    state: (p) => {
      const [rows, columns] = matrixOf(p.shape);
      if (p.shape.length < 2) return { v: { shape: p.shape, dtype: 'f32' } };
      return { r: { shape: [rows], dtype: 'f32' }, c: { shape: [columns], dtype: 'f32' } };
    },
    update: (p, g, state, context) => (p.shape.length < 2 ? updateVector : updateMatrix)(p, g, { state, context, constants }),
  };
}

interface Work {
  readonly state: State;
  readonly context: RuleContext;
  readonly constants: Required<AdaLomoOptions>;
}

function updateMatrix(p: Parameter, g: Grad, { state, context, constants }: Work): void {
  const { device, step, order: index, clipValue } = context;
  const [rows, columns] = matrixOf(p.shape);
  const [r, c] = [state['r']!, state['c']!];
  const { eps1, eps2, d, decayRate } = constants;
  const check = checked(g, context);
  using sums = device.allocate({ shape: [2, columns], dtype: 'f32' }, 'workspace');
  using u2 = device.allocate({ shape: [rows], dtype: 'f32' }, 'workspace');
  using p2 = device.allocate({ shape: [rows], dtype: 'f32' }, 'workspace');
  using rMean = device.allocate({ shape: [1], dtype: 'f32' }, 'workspace');
  fill(sums, 0);
  g.tiles((tile, { from, to }) => {
    device.run(
      adalomoMomentsOp,
      { ins: [tile, step.scalars], inouts: [r.rows(from, to), sums, step.counters] },
      { start: from, decayRate, eps1, clipValue, index, check },
    );
  });
  device.run(adalomoColumnsOp, { ins: [sums, step.scalars, step.counters], inouts: [c] }, { rows, decayRate });
  device.run(meanOp, { ins: [r], outs: [rMean] }, {});
  g.tiles((tile, range) => {
    const { from, to } = range;
    device.run(
      adalomoRatioOp,
      { ins: [tile, tileOf(p, range), r.rows(from, to), c, rMean, step.scalars], outs: [u2.rows(from, to), p2.rows(from, to)] },
      { clipValue },
    );
  });
  g.tiles((tile, range) => {
    device.run(
      adalomoUpdateOp,
      { ins: [tile, r.rows(range.from, range.to), c, rMean, u2, p2, step.scalars], inouts: [tileOf(p, range), step.counters], outs: measured(range, context) },
      { ...hyper(p, range, context), eps2, d, count: numel(p.shape) },
    );
  });
}

function updateVector(p: Parameter, g: Grad, { state, context, constants }: Work): void {
  const { device, step, order: index, clipValue } = context;
  const v = state['v']!;
  const { eps1, eps2, d, decayRate } = constants;
  const check = checked(g, context);
  using u2 = device.allocate({ shape: [1], dtype: 'f32' }, 'workspace');
  using p2 = device.allocate({ shape: [1], dtype: 'f32' }, 'workspace');
  g.tiles((tile, range) => {
    const flat = tile.reshape(p.shape);
    device.run(adalomoVectorOp, { ins: [flat, step.scalars], inouts: [v, step.counters] }, { decayRate, eps1, clipValue, index, check });
    device.run(adalomoVectorRatioOp, { ins: [flat, p, v, step.scalars], outs: [u2, p2] }, { clipValue });
    device.run(
      adalomoVectorUpdateOp,
      { ins: [flat, v, u2, p2, step.scalars], inouts: [p, step.counters], outs: measured(range, context) },
      { ...hyper(p, range, context), eps2, d, count: numel(p.shape) },
    );
  });
}
