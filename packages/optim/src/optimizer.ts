// The optimizer: a rule, its state for every parameter, and the passes a step needs. Clipping by the global norm is another pass, never a flag in a rule.
import type { Device, Grad, Parameter, StepTensor, Tensor } from '@lomo/tensor';
import { fill, gateCheck, LomoError } from '@lomo/tensor';
import type { Clip } from './clip.ts';
import { addSquaredNorm, clipByOwnNorm, setCoefficient } from './clip.ts';
import type { Rounding } from './rounding.ts';
import type { Rule, State } from './rule.ts';

/** One backward pass over the step: what happens when a parameter settles, and when all have. */
export interface Pass {
  readonly name: 'norm' | 'check' | 'update';
  settle(p: Parameter, g: Grad, at: { readonly step: StepTensor; readonly order: number }): void;
  finish(step: StepTensor): void;
}

export interface OptimizerOptions {
  readonly rule: Rule;
  readonly clip?: Clip;
  /** Default 0. */
  readonly weightDecay?: number;
  /** Who decays; matrices (two dimensions or more) unless given. */
  readonly decays?: (p: Parameter) => boolean;
  /** For 16-bit weights; stochastic unless given. */
  readonly rounding?: Rounding;
  /** Judges the whole backward before the first write, at the price of a second one; implied by global clipping. */
  readonly atomic?: boolean;
}

/** Index that the norm's check reports to the gate. */
export const normIndex = -2;

/** Matrices decay, norms and biases do not. */
export function decaysMatrices(p: Parameter): boolean {
  return p.shape.length >= 2;
}

export class Optimizer {
  readonly rule: Rule;
  readonly passes: readonly Pass[];
  private readonly device: Device;
  private readonly options: OptimizerOptions;
  private readonly states = new Map<Parameter, State>();

  /** Allocates the state of every trainable parameter, zero-filled. */
  constructor(device: Device, parameters: readonly Parameter[], options: OptimizerOptions) {
    this.device = device;
    this.options = options;
    this.rule = options.rule;
    for (const p of parameters) {
      if (!p.trainable) continue;
      const specs = Object.entries(options.rule.state(p));
      const state = Object.fromEntries(specs.map(([name, spec]) => [name, device.allocate(spec, 'state')]));
      for (const tensor of Object.values(state)) fill(tensor, 0);
      this.states.set(p, state);
    }
    this.passes = this.makePasses();
  }

  /** State tensors by parameter path and name, for saving and restoring: 'model.norm.weight' -> { v }. */
  *state(): Iterable<{ readonly path: string; readonly name: string; readonly tensor: Tensor }> {
    for (const [p, state] of this.states) for (const [name, tensor] of Object.entries(state)) yield { path: p.path, name, tensor };
  }

  private makePasses(): Pass[] {
    const { clip, atomic = false } = this.options;
    const globalNorm = clip?.norm !== undefined && clip.scope !== 'parameter' ? clip.norm : null;
    const update = this.updatePass(globalNorm !== null || atomic);
    if (globalNorm !== null) return [this.normPass(globalNorm), update];
    return atomic ? [this.checkPass(), update] : [update];
  }

  private normPass(maxNorm: number): Pass {
    return {
      name: 'norm',
      settle: (_, g, { step }) => addSquaredNorm(this.device, g, step.norm),
      finish: (step) => setCoefficient(step, { maxNorm, index: normIndex }),
    };
  }

  private checkPass(): Pass {
    return {
      name: 'check',
      settle: (_, g, { step, order }) => g.tiles((tile) => gateCheck(tile, step, order)),
      finish: () => {},
    };
  }

  private updatePass(proven: boolean): Pass {
    const { rule, clip, weightDecay = 0, decays = decaysMatrices, rounding = 'stochastic' } = this.options;
    return {
      name: 'update',
      settle: (p, g, { step, order }) => {
        const state = this.states.get(p);
        if (state === undefined) throw new LomoError('UnknownParameter', `${p.path} settled, but the optimizer was not given it`, { path: p.path });
        if (clip?.norm !== undefined && clip.scope === 'parameter') clipByOwnNorm(this.device, g, { step, maxNorm: clip.norm, index: order });
        rule.update(p, g, state, {
          device: this.device,
          step,
          order,
          weightDecay: decays(p) ? weightDecay : 0,
          clipValue: clip?.value ?? 0,
          rounding,
          proven,
        });
      },
      finish: (step) => {
        // What the last parameter's own norm left there is not the step's.
        if (clip?.norm !== undefined && clip.scope === 'parameter') fill(step.norm, 0);
      },
    };
  }
}
