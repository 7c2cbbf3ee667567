// Plain stochastic gradient descent, for comparison: the formula of LOMO under its textbook name.
import { lomo } from './lomo.ts';
import type { Rule } from './rule.ts';

/** p = p (1 - lr wd) - lr g. */
export const sgd: Rule = { ...lomo, name: 'sgd' };
