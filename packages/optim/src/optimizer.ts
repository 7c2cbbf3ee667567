// The optimizer: a rule, its state for every parameter, and the passes a step needs. Clipping by the global norm is another pass, never a flag in a rule.
import type { Device, Grad, StepTensor, Tensor } from '@lomo/tensor';
import { fill, gateCheck, isLomoError, LomoError, Parameter } from '@lomo/tensor';
import type { Clip } from './clip.ts';
import { addSquaredNorm, clipByOwnNorm, setCoefficient } from './clip.ts';
import type { Rounding } from './rounding.ts';
import type { Rule, State } from './rule.ts';
import type { Spill } from './spill.ts';
import { SpilledGradients } from './spill.ts';
import type { Grouping } from './telemetry.ts';
import { Telemetry } from './telemetry.ts';
import { scalar } from './update.ts';

/** One backward pass over the step: what happens when a parameter settles, after every walk, and when all have settled. */
export interface Pass {
  readonly name: 'norm' | 'check' | 'rehearse' | 'update' | 'spill';
  /** True when nothing is written before the whole backward has been judged: the step changes every parameter or no byte. */
  readonly atomic: boolean;
  settle(p: Parameter, g: Grad, at: { readonly step: StepTensor; readonly order: number }): void;
  drain?(): Promise<void>;
  /** True when `settle` only puts gradients aside, and `finish` applies them. */
  readonly late?: boolean;
  /** `present` brings a parameter onto the device, where it may be away. */
  finish(step: StepTensor, present?: (p: Parameter) => Promise<void>): void | Promise<void>;
  /** The step is given up halfway: nothing is held any more. */
  abandon?(): void;
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
  /** Judges the whole backward before the first write; implied by global clipping, and by weights in f16. */
  readonly atomic?: boolean;
  /** Where gradients wait for that judgement. Without it nothing waits: another backward pass makes them again. Equal bits. */
  readonly spill?: Spill;
  /** Sums up what a step does to the weights, at the steps that run `measuredPasses`; others pay nothing. `true`: grouped by `groupByRole`. */
  readonly telemetry?: boolean | { readonly groupOf: Grouping };
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
  /** The same passes, leaving what they did in `telemetry`: the same bits and the same allocations. Without the option: `passes`. */
  readonly measuredPasses: readonly Pass[];
  readonly telemetry: Telemetry | null;
  private readonly device: Device;
  private readonly options: OptimizerOptions;
  private readonly states = new Map<Parameter, State>();
  private readonly spilled: SpilledGradients | null;

  /** Allocates the state of every trainable parameter, zero-filled. */
  constructor(device: Device, parameters: readonly Parameter[], options: OptimizerOptions) {
    this.device = device;
    this.options = options;
    this.rule = options.rule;
    for (const p of parameters) {
      if (!p.trainable) continue;
      const specs = Object.entries(options.rule.state(p));
      const state = Object.fromEntries(specs.map(([name, spec]) => [name, device.allocate(spec, 'state', `${p.path} ${name}`)]));
      for (const tensor of Object.values(state)) fill(tensor, 0);
      this.states.set(p, state);
    }
    this.spilled = options.spill === undefined ? null : new SpilledGradients(device, options.spill);
    const { telemetry = false } = options;
    this.telemetry = telemetry === false ? null : new Telemetry(device, parameters, { rule: options.rule, ...(telemetry === true ? {} : telemetry) });
    this.passes = this.makePasses(null);
    this.measuredPasses = this.telemetry === null ? this.passes : this.cleared(this.telemetry, this.makePasses(this.telemetry));
  }

  /** State tensors by parameter path and name, for saving and restoring: 'model.norm.weight' -> { v }. */
  *state(): Iterable<{ readonly path: string; readonly name: string; readonly tensor: Tensor }> {
    for (const [p, state] of this.states) for (const [name, tensor] of Object.entries(state)) yield { path: p.path, name, tensor };
  }

  /** Bytes that the last step spilled. */
  get spilledBytes(): number {
    return this.spilled?.bytes ?? 0;
  }

  private cleared(telemetry: Telemetry, [first, ...rest]: readonly Pass[]): Pass[] {
    const settle: Pass['settle'] = (p, g, at) => {
      if (at.order === 0) telemetry.clear();
      first!.settle(p, g, at);
    };
    return [{ ...first!, settle }, ...rest];
  }

  private makePasses(telemetry: Telemetry | null): Pass[] {
    const { clip, atomic = false } = this.options;
    const globalNorm = clip?.norm !== undefined && clip.scope !== 'parameter' ? clip.norm : null;
    // An overflow of f16 is known when the new weight is: only a rehearsal of every update tells before the first write.
    const narrow = [...this.states.keys()].some((p) => p.dtype === 'f16');
    if (globalNorm === null && !atomic && !narrow) return [this.updatePass(false, telemetry)];
    if (this.spilled !== null) return [this.spillPass(this.spilled, { globalNorm, narrow, telemetry })];
    const update = this.updatePass(true, telemetry);
    if (globalNorm === null) return [this.checkPass(), update];
    return narrow ? [this.normPass(globalNorm), this.rehearsalPass(), update] : [this.normPass(globalNorm), update];
  }

  private normPass(maxNorm: number): Pass {
    return {
      name: 'norm',
      atomic: true,
      settle: (_, g, { step, order }) => this.addToNorm(g, { step, order }),
      finish: (step) => setCoefficient(step, { maxNorm, index: normIndex }),
    };
  }

  private checkPass(): Pass {
    return {
      name: 'check',
      atomic: true,
      settle: (p, g, { step, order }) => {
        this.judge(g, { step, order });
        this.rehearse(p, g, { step, order });
      },
      finish: (step) => this.forgetOwnNorm(step),
    };
  }

  private rehearsalPass(): Pass {
    return { name: 'rehearse', atomic: true, settle: (p, g, at) => this.rehearse(p, g, at), finish: () => {} };
  }

  private updatePass(atomic: boolean, telemetry: Telemetry | null): Pass {
    return {
      name: 'update',
      atomic,
      settle: (p, g, at) => this.update(p, g, { ...at, proven: atomic, state: this.stateOf(p), decays: this.decaysOf(p), telemetry }),
      finish: (step) => this.forgetOwnNorm(step),
    };
  }

  /** One backward: gradients are judged and put aside as they settle, and applied when all have been. */
  private spillPass(spilled: SpilledGradients, { globalNorm, narrow, telemetry }: { readonly globalNorm: number | null; readonly narrow: boolean; readonly telemetry: Telemetry | null }): Pass {
    return {
      name: 'spill',
      atomic: true,
      late: true,
      settle: (p, g, { step, order }) => {
        if (order === 0) spilled.clear();
        this.stateOf(p);
        const look = (held: Grad): void => {
          if (globalNorm === null) this.judge(held, { step, order });
          else this.addToNorm(held, { step, order });
        };
        spilled.hold(p, g, { order, look });
      },
      drain: () => spilled.drain(),
      finish: async (step, present = async () => {}) => {
        if (globalNorm !== null) setCoefficient(step, { maxNorm: globalNorm, index: normIndex });
        if (narrow) await spilled.replay((p, g, order) => this.rehearse(p, g, { step, order }), { last: false, present });
        let settled = 0;
        let at = '';
        try {
          await spilled.replay(
            (p, g, order) => {
              at = p.path;
              this.update(p, g, { step, order, proven: true, state: this.stateOf(p), decays: this.decaysOf(p), telemetry });
              settled++;
            },
            { last: true, present },
          );
        } catch (error) {
          // Before the first update, what cannot be read back only means a step that did not happen.
          if (settled === 0 || !isLomoError(error, 'FileError')) throw error;
          throw new LomoError('TornStep', `${error.message}; the ${settled} parameters up to ${at} had been updated before. Go back to the last checkpoint.`, { settled, at }, error);
        }
        this.forgetOwnNorm(step);
      },
      abandon: () => spilled.clear(),
    };
  }

  /** Adds to the global norm, and names the first parameter with which it is no longer finite. */
  private addToNorm(g: Grad, { step, order }: { readonly step: StepTensor; readonly order: number }): void {
    addSquaredNorm(this.device, g, step.norm);
    gateCheck(step.norm, step, order);
  }

  /** Closes the gate where this gradient's update would: at what is not finite, and at an own norm that is not, though every element be. */
  private judge(g: Grad, { step, order }: { readonly step: StepTensor; readonly order: number }): void {
    const ownNorm = this.ownNorm;
    if (ownNorm === null) g.tiles((tile) => gateCheck(tile, step, order));
    else clipByOwnNorm(this.device, g, { step, maxNorm: ownNorm, index: order });
  }

  /** Updates a copy of an f16 parameter: what its new values would do to the gate, and no byte of the parameter or its state changed. */
  private rehearse(p: Parameter, g: Grad, { step, order }: { readonly step: StepTensor; readonly order: number }): void {
    if (p.dtype !== 'f16') return;
    const { device } = this;
    const { shape, dtype, path, trainable } = p;
    const copy = new Parameter(device, device.arena.allocate(p.bytes, 'workspace'), { shape, dtype, path, trainable });
    device.copy(copy, p);
    const state = Object.fromEntries(
      Object.entries(this.stateOf(p)).map(([name, tensor]) => {
        const spare = device.allocate(tensor, 'workspace');
        device.copy(spare, tensor);
        return [name, spare] as const;
      }),
    );
    this.update(copy, g, { step, order, proven: true, state, decays: this.decaysOf(p), telemetry: null });
    for (const tensor of Object.values(state)) tensor.dispose();
    copy.dispose();
  }

  private update(p: Parameter, g: Grad, at: { readonly step: StepTensor; readonly order: number; readonly proven: boolean; readonly state: State; readonly decays: boolean; readonly telemetry: Telemetry | null }): void {
    const { rule, clip, weightDecay = 0, rounding = 'stochastic' } = this.options;
    const { step, order, proven, state } = at;
    const ownNorm = this.ownNorm;
    if (ownNorm !== null) clipByOwnNorm(this.device, g, { step, maxNorm: ownNorm, index: order });
    const context = { device: this.device, step, order, weightDecay: at.decays ? weightDecay : 0, clipValue: clip?.value ?? 0, rounding, proven };
    if (at.telemetry === null) rule.update(p, g, state, context);
    else at.telemetry.measure(p, g, step, (seen, sums) => rule.update(p, seen, state, { ...context, sums }));
  }

  private decaysOf(p: Parameter): boolean {
    return (this.options.decays ?? decaysMatrices)(p);
  }

  private stateOf(p: Parameter): State {
    const state = this.states.get(p);
    if (state === undefined) throw new LomoError('UnknownParameter', `${p.path} settled, but the optimizer was not given it`, { path: p.path });
    return state;
  }

  /** Largest norm of each parameter by itself; null where none is clipped so. */
  private get ownNorm(): number | null {
    const { clip } = this.options;
    return clip?.norm !== undefined && clip.scope === 'parameter' ? clip.norm : null;
  }

  /** What the last parameter's own norm left there is not the step's. */
  private forgetOwnNorm(step: StepTensor): void {
    if (this.ownNorm === null) return;
    fill(step.norm, 0);
    fill(step.scalars.rows(scalar.coefficient, scalar.coefficient + 1), 1);
  }
}
