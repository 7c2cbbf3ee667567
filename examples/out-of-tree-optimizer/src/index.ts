// signSGD (Bernstein et al., arXiv 1802.04434) as a plugin: every weight moves by the learning rate, in the direction against its gradient's sign.
import { adamwUpdateOp, checked, hyper, measured, tileOf } from '@lomo/optim';
import type { Rule } from '@lomo/optim';
import { erase, fill } from '@lomo/tensor';

/** Gradients far above this count with their sign alone; at 0 the weight stays. */
const eps = 1e-12;

/**
 * p = p (1 - lr wd) - lr sign(g), without state. The kernel is AdamW's with both betas 0: then m = g and v = g^2, and m / (sqrt(v) + eps)
 * is the sign. Its moments are scratch of one tile, so that a run needs LOMO's memory and two tiles more. Norm clipping changes nothing.
 */
export const signsgd: Rule = {
  name: 'signsgd',
  ops: [erase(adamwUpdateOp)],
  measures: true,
  state: () => ({}),
  update: (p, g, _state, context) => {
    const { device, step } = context;
    const check = checked(g, context);
    g.tiles((tile, range) => {
      using m = device.allocate({ shape: tile.shape, dtype: 'f32' }, 'workspace');
      using v = device.allocate({ shape: tile.shape, dtype: 'f32' }, 'workspace');
      // The kernel multiplies the old moments by 0, which would keep a NaN that the memory held before.
      fill(m, 0);
      fill(v, 0);
      device.run(
        adamwUpdateOp,
        { ins: [tile, step.scalars], inouts: [tileOf(p, range), m, v, step.counters], outs: measured(range, context) },
        { ...hyper(p, range, context), check, beta1: 0, beta2: 0, eps },
      );
    });
  },
};

/** What lomo looks for in a plugin. */
export const rules: readonly Rule[] = [signsgd];
