// Rules as golden files describe them, as an Optimizer of this workspace.
import type { Device, Parameter } from '@lomo/tensor';
import type { Rounding, Rule } from '@lomo/optim';
import { Optimizer, adalomo, adamw, decaysMatrices, lomo, sgd } from '@lomo/optim';
import type { RuleEntry } from './format.ts';

/** Numbers of an entry that are not hyper-parameters of its rule. */
const shared = new Set(['lr', 'weight_decay', 'clip_value', 'clip_norm', 'clip_coefficient', 'float32_run_rel_l2']);

const rules: Readonly<Record<string, { readonly names: readonly string[]; make(hyper: ReadonlyMap<string, number>): Rule }>> = {
  lomo: { names: [], make: () => lomo },
  sgd: { names: [], make: () => sgd },
  adalomo: {
    names: ['eps1', 'eps2', 'd', 'decay_rate'],
    make: (h) => adalomo(given({ eps1: h.get('eps1'), eps2: h.get('eps2'), d: h.get('d'), decayRate: h.get('decay_rate') })),
  },
  adamw: { names: ['beta1', 'beta2', 'eps'], make: (h) => adamw(given({ beta1: h.get('beta1'), beta2: h.get('beta2'), eps: h.get('eps') })) },
};

function given<T extends Record<string, number | undefined>>(options: T): { [K in keyof T]?: number } {
  return Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined)) as { [K in keyof T]?: number };
}

/** An optimizer for `entry`. Throws for a rule or a hyper-parameter that is not known here: a misread one would look like a wrong number. */
export function optimizerOf(entry: RuleEntry & { readonly rounding?: Rounding }, device: Device, parameters: readonly Parameter[]): Optimizer {
  const known = rules[entry.rule];
  if (known === undefined) throw new Error(`rule '${entry.rule}' is none of ${Object.keys(rules).join(', ')}`);
  const hyper = new Map(Object.entries(entry).filter((pair): pair is [string, number] => typeof pair[1] === 'number' && !shared.has(pair[0])));
  const stranger = [...hyper.keys()].find((name) => !known.names.includes(name));
  if (stranger !== undefined) throw new Error(`'${stranger}' is no hyper-parameter of ${entry.rule} (known: ${known.names.join(', ') || 'none'})`);
  const { clip_value: value, clip_norm: norm, decays } = entry;
  return new Optimizer(device, parameters, {
    rule: known.make(hyper),
    rounding: entry.rounding ?? 'nearest',
    clip: { ...(typeof value === 'number' ? { value } : {}), ...(typeof norm === 'number' ? { norm } : {}) },
    weightDecay: decays === 'none' ? 0 : (entry.weight_decay ?? 0),
    decays: decays === 'all' ? () => true : decaysMatrices,
  });
}

/** True for rules whose largest single error is dominated by elements with |g| near eps, so that rel_l2 says more. */
export function needsL2(entry: RuleEntry): boolean {
  return entry.rule === 'adamw';
}
