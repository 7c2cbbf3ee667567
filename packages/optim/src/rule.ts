// A rule: how one parameter is updated from its gradient when it settles. Anything that looks like this can be plugged in.
import type { Device, Grad, Op, Parameter, Range, Spec, StepTensor, Tensor } from '@lomo/tensor';
import { gateCheck, keyOf, matrixOf } from '@lomo/tensor';
import type { Rounding } from './rounding.ts';
import { roundingCode } from './rounding.ts';
import type { UpdateAttributes } from './update.ts';

/** State tensors of one parameter by name, saved and restored under these names. */
export type State = Readonly<Record<string, Tensor>>;

export interface RuleContext {
  readonly device: Device;
  readonly step: StepTensor;
  /** Counts settles in this pass; what the gate notes. */
  readonly order: number;
  /** Already 0 for parameters that do not decay. */
  readonly weightDecay: number;
  /** 0: none. */
  readonly clipValue: number;
  readonly rounding: Rounding;
  /** True when a pass before this one proved every gradient finite. */
  readonly proven: boolean;
  /** f32 [rows, 8]: what the update did to each row of the parameter, for telemetry; absent at steps that are not measured. */
  readonly sums?: Tensor;
}

export interface Rule {
  readonly name: string;
  /** Ops it launches, for backends that run references and for conformance. */
  readonly ops: readonly Op[];
  /** True of a rule that hands `measured` to its update kernels. Others are measured from outside, by what their weights were and are. */
  readonly measures?: boolean;
  /** Specs of the state of one parameter; zero before the first step. */
  state(p: Parameter): Readonly<Record<string, Spec>>;
  /** Updates `p` and `state` by `g`, reading `g` through tiles only. */
  update(p: Parameter, g: Grad, state: State, context: RuleContext): void;
}

/** Rows `range` of a parameter or state tensor seen as a matrix. */
export function tileOf(p: Tensor, range: Range): Tensor {
  const [rows, columns] = matrixOf(p.shape);
  return p.reshape([rows, columns]).rows(range.from, range.to);
}

/**
 * Sees to it that a non-finite gradient writes nothing: returns 1 where the update kernel itself can look first (one tile), else sweeps
 * the tiles once for the check alone and returns 0.
 */
export function checked(g: Grad, context: RuleContext): 0 | 1 {
  if (context.proven) return 0;
  if (g.single) return 1;
  g.tiles((tile) => gateCheck(tile, context.step, context.order));
  return 0;
}

/** Where an update kernel leaves the sums of a tile's rows: its `outs`, none at steps that are not measured. */
export function measured(range: Range, context: RuleContext): readonly Tensor[] {
  return context.sums === undefined ? [] : [context.sums.rows(range.from, range.to)];
}

/** The attributes every update kernel shares, for one tile. */
export function hyper(p: Parameter, range: Range, context: RuleContext): UpdateAttributes {
  return {
    key: keyOf(p.path),
    element: range.from * matrixOf(p.shape)[1],
    index: context.order,
    weightDecay: context.weightDecay,
    clipValue: context.clipValue,
    rounding: p.dtype === 'f32' ? 0 : roundingCode[context.rounding],
  };
}
