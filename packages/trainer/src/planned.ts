// The program of a run, held to its plan.
import type { MemoryPlan, Program, StepInput, StepResult } from '@lomo/parallel';
import { underPlan } from '@lomo/parallel';
import { LomoError } from '@lomo/tensor';
import { assumedRates } from './ways.ts';

/** The program, its first step held to the plan allocation by allocation, the reservation to the arena's high-water mark. */
export class PlannedProgram {
  private readonly program: Program;
  private readonly plan: MemoryPlan;
  private proven = false;

  constructor(program: Program, plan: MemoryPlan) {
    this.program = program;
    this.plan = plan;
  }

  async run(input: StepInput): Promise<StepResult> {
    if (this.proven) return this.program.run(input);
    const { device } = this.program;
    const expectedMilliseconds = (1000 * (this.plan.flops.get('step') ?? 0)) / assumedRates.flops;
    const result = await underPlan(device, this.plan, { name: 'step', body: () => this.program.run({ expectedMilliseconds, ...input }) });
    const reserved = device.backend.reserved() - this.program.pinned;
    if (reserved !== this.plan.extent) {
      throw new LomoError('PlanMismatch', `the backend has reserved ${reserved} bytes, the plan says ${this.plan.extent}`);
    }
    this.proven = true;
    return result;
  }
}
