// Parameters with given values and an optimizer that is fed given gradients: rules alone, without a model.
import { decode, Dense, Device, encode, Grad, ReferenceBackend, StepTensor, tensorOps } from '@lomo/tensor';
import type { DType, Parameter, StepOutcome } from '@lomo/tensor';
import type { OptimizerOptions } from '../src/index.ts';
import { Optimizer, optimOps } from '../src/index.ts';

export interface Start {
  readonly shape: readonly number[];
  readonly values: ArrayLike<number>;
  /** f32 unless given; f32 is held as float64. */
  readonly dtype?: DType;
  readonly trainable?: boolean;
}

export interface UpdateOptions {
  /** From 1. */
  readonly step?: number;
  readonly seed?: number;
  readonly lr: number;
  readonly lossScale?: number;
  /** Through the passes that measure. */
  readonly measured?: boolean;
}

export class Given {
  readonly backend = new ReferenceBackend({ ops: [...tensorOps, ...optimOps] });
  readonly device: Device;
  readonly step: StepTensor;
  readonly parameters: ReadonlyMap<string, Parameter>;
  readonly optimizer: Optimizer;

  constructor(start: Readonly<Record<string, Start>>, options: OptimizerOptions & { readonly tileBytes?: number; readonly bytes?: number }) {
    const { tileBytes, bytes = 1 << 20 } = options;
    this.device = new Device(this.backend, { bytes, ...(tileBytes === undefined ? {} : { tileBytes }) });
    this.step = new StepTensor(this.device);
    const made = Object.entries(start).map(([path, { shape, values, dtype = 'f32', trainable = true }]) => {
      const p = this.device.parameter(path, { shape, dtype, trainable });
      if (dtype === 'f32') this.backend.writeExact(p, values);
      else this.device.write(p, encode(dtype, values));
      return [path, p] as const;
    });
    this.parameters = new Map(made);
    this.optimizer = new Optimizer(this.device, [...this.parameters.values()], options);
  }

  /** One step on the given gradients, settled in the order in which they are named; nothing is rounded to float32 on the way in. */
  async update(gradients: Readonly<Record<string, ArrayLike<number>>>, options: UpdateOptions): Promise<StepOutcome> {
    const { step = 1, seed = 1, lr, lossScale = 1, measured = false } = options;
    const { passes, measuredPasses } = this.optimizer;
    this.step.begin({ step, seed, lr, trained: 1, lossScale });
    this.backend.writeExact(this.step.scalars, [lr, 1, 1, lossScale, 0, 0, 0, 0]);
    for (const pass of measured ? measuredPasses : passes) {
      Object.entries(gradients).forEach(([path, values], order) => {
        const p = this.parameters.get(path)!;
        const value = this.device.allocate({ shape: p.shape, dtype: 'f32' }, 'gradient');
        this.backend.writeExact(value, values);
        const grad = new Grad(this.device, p.shape, [new Dense(value)]);
        pass.settle(p, grad, { step: this.step, order });
        grad.release();
      });
      await pass.drain?.();
      await pass.finish(this.step);
    }
    return this.step.outcome();
  }

  /** Values of a parameter: the float64 behind f32, exact for 16 bits. */
  async read(path: string): Promise<number[]> {
    const p = this.parameters.get(path)!;
    return [...(p.dtype === 'f32' ? this.backend.readExact(p) : decode(p.dtype, await this.device.read(p)))];
  }

  /** State of a parameter by name, float64. */
  state(path: string): Readonly<Record<string, number[]>> {
    const own = [...this.optimizer.state()].filter((entry) => entry.path === path);
    return Object.fromEntries(own.map(({ name, tensor }) => [name, [...this.backend.readExact(tensor)]]));
  }

  /** Everything an update may write, to be compared. */
  async everything(): Promise<unknown> {
    return Promise.all([...this.parameters.keys()].map(async (path) => [path, await this.read(path), this.state(path)]));
  }
}
