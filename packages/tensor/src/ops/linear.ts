// y = x wT (+ bias): the layer that holds almost every weight. Its weight gradient stays a pair of factors until the weight settles.
import { shapeError } from '../errors.ts';
import { Grad } from '../grad.ts';
import type { Differentiable } from '../op.ts';
import type { Tensor } from '../tensor.ts';
import { matmul, matmulAdd, matmulOp } from './matmul.ts';
import { tokenSum } from './token_sum.ts';
import { Factors } from './weight_grad.ts';

const differentiable: Differentiable<null> = {
  name: 'linear',
  saves: (ins) => [ins[0]!],
  backward: (call, dys, needs) => {
    const [x, w] = call.ins as [Tensor, Tensor];
    const dy = dys[0]!;
    let dx: Tensor | null = null;
    if (needs[0] === true) {
      dx = call.partial(0);
      if (dx === null) dx = matmul(dy, w);
      else matmulAdd(dx, dy, w);
    }
    const dw = needs[1] === true ? new Grad(call.device, w.shape, [new Factors(dy.share(), x.share())]) : null;
    if (needs[2] === true) {
      const { sums, start } = call.sums(2, dy.shape[0]!);
      tokenSum(sums, dy, start);
    }
    return [dx, dw, null];
  },
};

/** x [T, k], w [n, k], bias [n] -> [T, n]. */
export function linear(x: Tensor, w: Tensor, bias: Tensor | null = null): Tensor {
  if (x.shape.length !== 2) throw shapeError('linear', 'x [tokens, features]', [x.shape, w.shape]);
  const ins = bias === null ? [x, w] : [x, w, bias];
  const outs = x.device.run(matmulOp, { ins }, { ta: 0, tb: 1, alpha: 1 });
  x.device.recorder?.record({ op: differentiable, ins, outs, attributes: null });
  return outs[0]!;
}
