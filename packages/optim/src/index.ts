// @lomo/optim: rules for one parameter, fused into backward by settling; clipping, learning rates, rounding.
import { erase } from '@lomo/tensor';
import type { Op } from '@lomo/tensor';
import { adalomo } from './adalomo.ts';
import { adamw } from './adamw.ts';
import { clipCoefficientOp } from './clip.ts';
import { lomo } from './lomo.ts';
import { updateSumsOp, updateTotalOp } from './telemetry_ops.ts';

export * from './adalomo.ts';
export * from './adamw.ts';
export * from './clip.ts';
export * from './learning_rate.ts';
export * from './lomo.ts';
export * from './optimizer.ts';
export * from './rounding.ts';
export * from './row_sums.ts';
export * from './rule.ts';
export * from './sgd.ts';
export * from './spill.ts';
export * from './telemetry.ts';
export * from './telemetry_ops.ts';
export * from './update.ts';

/** Every op this package defines, for backends that run references and for the conformance suite. */
export const optimOps: readonly Op[] = [erase(clipCoefficientOp), erase(updateSumsOp), erase(updateTotalOp), ...lomo.ops, ...adalomo().ops, ...adamw().ops];
