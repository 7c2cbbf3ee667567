// The program of a run, some of its steps traced where somebody asks.
import type { Program, StepInput, StepResult } from '@lomo/parallel';
import type { Device, TraceFacts } from '@lomo/tensor';
import { Trace } from '@lomo/tensor';

/** Which steps are traced, and who is given the trace. */
export interface TraceRequest {
  /** First and last step by their numbers; null: the third one that runs, when everything is warm. */
  readonly steps: { readonly from: number; readonly to: number } | null;
  /** Called after every traced step with the whole trace so far. */
  write(json: string, facts: TraceFacts): Promise<void>;
  /** Called where `write` fails: tracing ends there, and the run, whose weights the step has changed, goes on. */
  failed(error: unknown): void;
}

/** Steps until everything is warm: the first is held to its plan, the second still makes room in the queue. */
const warm = 3;

/** Passes every step on; those of a request run under a trace. Results are the same bit for bit. */
export class TracedProgram implements Pick<Program, 'run'> {
  private readonly program: Pick<Program, 'run'>;
  private readonly device: Device;
  private request: TraceRequest | null = null;
  private trace: Trace | null = null;
  private seen = 0;

  constructor(program: Pick<Program, 'run'>, device: Device) {
    this.program = program;
    this.device = device;
  }

  /** Traces the steps of `request` from now on. Throws NoStopwatch where the backend cannot tell when it ran what. */
  watch(request: TraceRequest): void {
    this.trace = new Trace(this.device);
    this.request = request;
    this.seen = 0;
  }

  run(input: StepInput): Promise<StepResult> {
    const { request, trace } = this;
    return request === null || trace === null ? this.program.run(input) : this.watched(input, { request, trace });
  }

  private async watched(input: StepInput, { request, trace }: { readonly request: TraceRequest; readonly trace: Trace }): Promise<StepResult> {
    this.seen++;
    const { step } = input;
    const wanted = request.steps === null ? this.seen === warm : step >= request.steps.from && step <= request.steps.to;
    if (!wanted) return this.program.run(input);
    try {
      return await trace.step(step, () => this.program.run(input));
    } finally {
      await request.write(trace.json(), trace.facts).catch((error: unknown) => {
        this.request = null;
        request.failed(error);
      });
    }
  }
}
