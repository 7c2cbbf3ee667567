// Passes for looking: gradients kept instead of used, and the gradient's norm measured on the way of an update that does not need it.
import type { Device, Tensor } from '@lomo/tensor';
import type { Optimizer } from '@lomo/optim';
import { addSquaredNorm } from '@lomo/optim';
import type { ProgramPass } from '@lomo/parallel';

/** Keeps every gradient of a backward pass and measures their global norm. */
export class Collect implements ProgramPass {
  readonly name = 'collect';
  private readonly device: Device;
  private readonly kept = new Map<string, Tensor>();

  constructor(device: Device) {
    this.device = device;
  }

  readonly settle: ProgramPass['settle'] = (p, g, { step }) => {
    addSquaredNorm(this.device, g, step.norm);
    this.kept.set(p.path, g.value());
  };

  finish(): void {}

  /** The gradients by parameter path; gives their memory back. */
  async take(): Promise<ReadonlyMap<string, Float64Array>> {
    const values = new Map<string, Float64Array>();
    for (const [path, tensor] of this.kept) {
      values.set(path, await this.device.readNumbers(tensor));
      tensor.dispose();
    }
    this.kept.clear();
    return values;
  }
}

/** The optimizer's passes; a single one also measures the norm of the gradients it is about to use. */
export function measuring(device: Device, optimizer: Optimizer): readonly ProgramPass[] {
  const { passes } = optimizer;
  if (passes.some((pass) => pass.name === 'norm')) return passes;
  return passes.map((pass) => ({
    name: pass.name,
    settle: (p, g, at) => {
      addSquaredNorm(device, g, at.step.norm);
      pass.settle(p, g, at);
    },
    finish: (step) => pass.finish(step),
  }));
}
