// A rule alone on given gradients, through the optimizer that training uses: weights and state after each step.
import { Dense, Grad, StepTensor } from '@lomo/tensor';
import type { Device, DType, Parameter } from '@lomo/tensor';
import type { Optimizer, Rounding } from '@lomo/optim';
import type { Engine } from './engine.ts';
import type { RuleEntry } from './format.ts';
import { optimizerOf } from './ruleEntry.ts';
import type { GoldenTensor } from './tensorFile.ts';

type Golden = ReadonlyMap<string, GoldenTensor>;

/** What a step left. */
export interface RuleStep {
  readonly weights: ReadonlyMap<string, Float64Array>;
  /** By 'NAME.r' as the file names it. */
  readonly state: ReadonlyMap<string, Float64Array>;
  readonly coefficient: number;
}

export interface RuleRun {
  readonly start: Golden;
  /** Of step t = 1, 2, ... */
  gradients(t: number): Golden;
  readonly steps: number;
  /** Of the weights; f32 unless given. */
  readonly dtype?: DType;
  /** Of 16-bit weights; to nearest unless given. */
  readonly rounding?: Rounding;
}

/** Applies the rule of `entry` step by step. */
export function runRule(engine: Engine, entry: RuleEntry, run: RuleRun): Promise<readonly RuleStep[]> {
  const { start, steps, dtype = 'f32', rounding = 'nearest' } = run;
  return engine.onDevice(async (device) => {
    const parameters = [...start].map(([name, { shape, values }]) => {
      const parameter = device.parameter(name, { shape, dtype });
      device.writeNumbers(parameter, values);
      return parameter;
    });
    const optimizer = optimizerOf({ ...entry, rounding }, device, parameters);
    const step = new StepTensor(device);
    const found: RuleStep[] = [];
    for (let t = 1; t <= steps; t++) {
      step.begin({ step: t, seed: 0, lr: entry.lr, trained: 1 });
      await settleAll(device, { optimizer, step, parameters, gradients: run.gradients(t) });
      found.push({ ...(await readAll(device, optimizer, parameters)), coefficient: (await step.outcome()).clipCoefficient });
    }
    return found;
  });
}

interface Update {
  readonly optimizer: Optimizer;
  readonly step: StepTensor;
  readonly parameters: readonly Parameter[];
  readonly gradients: Golden;
}

/** Settles every parameter in every pass, as the walk back does. */
async function settleAll(device: Device, { optimizer, step, parameters, gradients }: Update): Promise<void> {
  for (const pass of optimizer.passes) {
    for (const [order, p] of parameters.entries()) {
      const values = gradients.get(p.path)?.values;
      if (values === undefined) throw new Error(`the file has no gradient for ${p.path}`);
      const tensor = device.allocate({ shape: p.shape, dtype: 'f32' }, 'gradient');
      device.writeNumbers(tensor, values);
      const grad = new Grad(device, p.shape, [new Dense(tensor)]);
      pass.settle(p, grad, { step, order });
      grad.release();
    }
    await pass.finish(step);
  }
}

async function readAll(device: Device, optimizer: Optimizer, parameters: readonly Parameter[]): Promise<Omit<RuleStep, 'coefficient'>> {
  const weights = new Map<string, Float64Array>();
  const state = new Map<string, Float64Array>();
  for (const p of parameters) weights.set(p.path, await device.readNumbers(p));
  for (const { path, name, tensor } of optimizer.state()) state.set(`${path}.${name}`, await device.readNumbers(tensor));
  return { weights, state };
}
