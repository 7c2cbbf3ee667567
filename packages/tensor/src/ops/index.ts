// Every op of this package, for backends that run references and for the conformance suite.
import type { Op } from '../op.ts';
import { addIntoOp, addOp } from './add.ts';
import { attentionBackwardOp, attentionOp } from './attention.ts';
import { cacheWriteOp } from './cache_write.ts';
import { castOp } from './cast.ts';
import { crossEntropyFinishOp, crossEntropyGradOp, crossEntropyOp, crossEntropyTileOp } from './cross_entropy.ts';
import { embeddingGradAddOp, embeddingOp } from './embedding.ts';
import { fillOp } from './fill.ts';
import { gateCheckOp, gateLossOp } from './gate.ts';
import { matmulAddOp, matmulOp } from './matmul.ts';
import { mulOp } from './mul.ts';
import { meanOp, normAddOp, sumSquaresOp } from './norm.ts';
import { normalFillOp } from './normal_fill.ts';
import { rmsNormBackwardOp, rmsNormOp } from './rms_norm.ts';
import { ropeOp } from './rope.ts';
import { sampleOp } from './sample.ts';
import { scaleOp } from './scale.ts';
import { siluMulBackwardOp, siluMulOp } from './silu_mul.ts';
import { sumsValueOp, tokenSumOp } from './token_sum.ts';
import { weightGradAddOp, weightGradOp } from './weight_grad.ts';

/** The ops this package defines. */
export const tensorOps: readonly Op[] = [
  erase(matmulOp),
  erase(matmulAddOp),
  erase(weightGradOp),
  erase(weightGradAddOp),
  erase(addOp),
  erase(addIntoOp),
  erase(mulOp),
  erase(scaleOp),
  erase(castOp),
  erase(fillOp),
  erase(siluMulOp),
  erase(siluMulBackwardOp),
  erase(rmsNormOp),
  erase(rmsNormBackwardOp),
  erase(ropeOp),
  erase(embeddingOp),
  erase(embeddingGradAddOp),
  erase(attentionOp),
  erase(attentionBackwardOp),
  erase(crossEntropyOp),
  erase(crossEntropyTileOp),
  erase(crossEntropyFinishOp),
  erase(crossEntropyGradOp),
  erase(tokenSumOp),
  erase(sumsValueOp),
  erase(normalFillOp),
  erase(sampleOp),
  erase(cacheWriteOp),
  erase(gateLossOp),
  erase(gateCheckOp),
  erase(sumSquaresOp),
  erase(normAddOp),
  erase(meanOp),
];

/** An op with its attribute type forgotten, for lists. */
export function erase<A extends Readonly<Record<string, number>>>(op: Op<A>): Op {
  return op as unknown as Op;
}
