// One training run of the toy on the reference backend, fused or with every gradient put aside first, and the SHA-256 of what it leaves.
import { createHash } from 'node:crypto';
import { Optimizer, optimOps } from '@lomo/optim';
import type { OptimizerOptions } from '@lomo/optim';
import { Dense, Device, Grad, isLomoError, Parameter, ReferenceBackend, tensorOps } from '@lomo/tensor';
import type { LomoError, Op, ReferenceOptions, Stage, Tensor } from '@lomo/tensor';
import type { ByteStore, HostBatch, ProgramOptions, ProgramPass, StepResult } from '../src/index.ts';
import { Program, Residency } from '../src/index.ts';
import type { ToyOptions } from './toy.ts';
import { cut, fillAway, Toy, toyBatches } from './toy.ts';

export const segment = 4;

export interface TrialOptions extends ToyOptions, Partial<Pick<ProgramOptions, 'accumulate' | 'headForm' | 'schedule'>> {
  readonly optimizer: OptimizerOptions;
  /** Micro-batches of a step; 1 unless given. */
  readonly count?: number;
  /** Tokens of a step; 32 unless given. */
  readonly tokens?: number;
  readonly keeps?: boolean;
  readonly precision?: NonNullable<ReferenceOptions['precision']>;
  /** Tokens of a partial sum; 8 unless given. */
  readonly chunk?: number;
  readonly tileBytes?: number;
  /** A device made elsewhere, a plan's for one; its backend is the caller's. */
  readonly on?: Device;
  /** Ops beyond those of tensor and optim. */
  readonly ops?: readonly Op[];
  /** Weights come from and go to here; `load` first. */
  readonly stream?: ByteStore;
  /** Boundary activations wait here. */
  readonly offload?: ByteStore;
  /** The stages to run, made from the toy's. */
  readonly stages?: (stages: readonly Stage[], device: Device) => readonly Stage[];
}

/** The reference backend a trial runs on. */
export function referenceBackend(options: Pick<TrialOptions, 'precision' | 'chunk' | 'ops'> = {}): ReferenceBackend {
  const { precision = 'f64', chunk = 8, ops = [] } = options;
  return new ReferenceBackend({ ops: [...tensorOps, ...optimOps, ...ops], precision, chunk });
}

/** A toy, its optimizer and its program on a device of their own. */
export class Trial {
  readonly backend: ReferenceBackend;
  readonly device: Device;
  readonly stages: readonly Stage[];
  readonly parameters: readonly Parameter[];
  readonly optimizer: Optimizer;
  readonly program: Program;
  readonly residence: Residency | null;
  private readonly toy: Toy;
  private readonly options: TrialOptions;

  constructor(options: TrialOptions) {
    const { optimizer, count = 1, tokens = 32, keeps = false, tileBytes, accumulate, headForm, schedule } = options;
    this.options = options;
    this.backend = referenceBackend(options);
    this.device = options.on ?? new Device(this.backend, { bytes: 1 << 20, ...(tileBytes === undefined ? {} : { tileBytes }) });
    const toy = (this.toy = new Toy(this.device, { blocks: 1, hidden: 8, vocabulary: 19, ...options, away: options.stream !== undefined }));
    this.stages = options.stages?.(toy.stages, this.device) ?? toy.stages;
    this.residence = options.stream === undefined ? null : new Residency(this.device, toy, options.stream);
    this.parameters = [...new Set(this.stages.flatMap((stage) => stage.parameters()))];
    this.optimizer = new Optimizer(this.device, this.parameters, optimizer);
    this.program = new Program(this.device, this, {
      microBatches: count,
      tokens: tokens / count,
      maxSegments: tokens / count / segment,
      maxLength: segment,
      keeps: () => keeps,
      ...(accumulate === undefined ? {} : { accumulate }),
      ...(headForm === undefined ? {} : { headForm }),
      ...(schedule === undefined ? {} : { schedule }),
      ...(this.residence === null ? {} : { residency: this.residence }),
      ...(options.offload === undefined ? {} : { offload: options.offload }),
    });
  }

  /** Fills the weights that come and go. */
  async load(): Promise<this> {
    await fillAway(this.toy);
    return this;
  }

  /** The micro-batches of step `n`: the same stream of tokens however many there are. */
  batches(n: number): HostBatch[] {
    const { count = 1, tokens = 32 } = this.options;
    return cut(toyBatches({ count: tokens / segment, tokens: segment, length: segment, vocabulary: this.options.vocabulary ?? 19, seed: n }), count);
  }

  /** Step `n`, by the optimizer's passes unless others are given. */
  step(n: number, passes: readonly ProgramPass[] = this.optimizer.passes): Promise<StepResult> {
    return this.program.run({ batches: this.batches(n), step: n, seed: 3, lr: 0.05, passes });
  }

  /** Step `n` as a textbook would: the whole backward with every gradient put aside, and only then the rule, on dense gradients. */
  async unfused(n: number): Promise<StepResult> {
    const aside: { readonly p: Parameter; readonly g: Tensor }[] = [];
    const result = await this.step(n, [
      {
        name: 'aside',
        settle: (p, g) => {
          using value = g.value();
          const copy = this.device.allocate(value, 'gradient');
          this.device.copy(copy, value);
          aside.push({ p, g: copy });
        },
        finish: () => {},
      },
    ]);
    const { step } = this.program;
    for (const pass of this.optimizer.passes) {
      aside.forEach(({ p, g }, order) => {
        const dense = new Grad(this.device, p.shape, [new Dense(g.share())]);
        pass.settle(p, dense, { step, order });
        dense.release();
      });
      await pass.finish(step);
    }
    for (const { g } of aside) g.dispose();
    return result;
  }

  /** Every gradient of step `n`, float64, by path; no weight changes. */
  async gradients(n: number): Promise<ReadonlyMap<string, Float64Array>> {
    const found = new Map<string, Float64Array>();
    const settle: ProgramPass['settle'] = (p, g) => {
      using value = g.value();
      found.set(p.path, this.backend.readExact(value));
    };
    await this.step(n, [{ name: 'gradients', settle, finish: () => {} }]);
    return found;
  }

  parameter(path: string): Parameter {
    const found = this.parameters.find((p) => p.path === path);
    if (found === undefined) throw new Error(`the toy has no ${path}`);
    return found;
  }

  /** SHA-256 of a tensor: the float64 values behind f32, the bits of 16-bit ones. */
  async hash(tensor: Tensor): Promise<string> {
    if (tensor instanceof Parameter && tensor.away) {
      const raw = new Uint8Array(tensor.bytes);
      await tensor.home!.read(raw, 0);
      const values = tensor.dtype === 'f32' ? new Uint8Array(Float64Array.from(new Float32Array(raw.buffer)).buffer) : raw;
      return createHash('sha256').update(values).digest('hex');
    }
    const bytes = tensor.dtype === 'f32' ? this.backend.readExact(tensor) : await this.device.read(tensor);
    return createHash('sha256').update(new Uint8Array(bytes.buffer)).digest('hex');
  }

  /** SHA-256 of all weights and of the optimizer's state. */
  async digest(): Promise<string> {
    const hash = createHash('sha256');
    for (const p of this.parameters) hash.update(await this.hash(p));
    for (const { tensor } of this.optimizer.state()) hash.update(await this.hash(tensor));
    return hash.digest('hex');
  }
}

/** The digest after `steps` steps, two unless given. */
export async function trained(options: TrialOptions, steps = 2): Promise<string> {
  const trial = await new Trial(options).load();
  for (let n = 1; n <= steps; n++) await trial.step(n);
  return trial.digest();
}

/** The error that `body` ends in; throws what is no LomoError. */
export async function refusal(body: () => Promise<unknown>): Promise<LomoError> {
  const error = await body().then(() => null, (e: unknown) => e);
  if (isLomoError(error)) return error;
  throw error ?? new Error('nothing was refused');
}
