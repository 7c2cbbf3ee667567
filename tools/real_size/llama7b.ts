// The LLaMA-7B shape, put together for LOMO steps: its plan, and its steps as they really run, held to the plan.
import { readFileSync } from 'node:fs';
import type { JsonObject, LanguageModel } from '@lomo/models';
import { createModel, initialise } from '@lomo/models';
import { lomo, Optimizer } from '@lomo/optim';
import type { HostBatch, MemoryPlan, ProgramPass } from '@lomo/parallel';
import { makePlan, Program, underPlan } from '@lomo/parallel';
import type { Backend, HeadForm } from '@lomo/tensor';
import { Device, Random } from '@lomo/tensor';

/** LLaMA-7B's config.json: 6,738,415,616 numbers. */
export const llama7b: JsonObject = {
  model_type: 'llama', architectures: ['LlamaForCausalLM'], hidden_size: 4096, intermediate_size: 11008, num_hidden_layers: 32, num_attention_heads: 32,
  num_key_value_heads: 32, vocab_size: 32000, max_position_embeddings: 2048, rms_norm_eps: 1e-6, rope_theta: 10000, hidden_act: 'silu',
  attention_bias: false, mlp_bias: false, initializer_range: 0.02, tie_word_embeddings: false, bos_token_id: 1, eos_token_id: 2, torch_dtype: 'bfloat16',
};

export const gibibyte = 2 ** 30;

/** What the paper measured for this shape on one 24 GB card, GiB (table 2, sequence 1024, one row), and what is asked of this step. */
export const paperGiB = 13.61;
export const barGiB = 13.2;

/** A step of one micro-batch of one row. */
export interface StepShape {
  readonly json: JsonObject;
  /** Tokens of the row. */
  readonly tokens: number;
  readonly headForm: HeadForm;
}

/** The paper's step: 1024 tokens, one row; the head in vocabulary tiles, so that its gradient never exists whole. */
export const paperStep: StepShape = { json: llama7b, tokens: 1024, headForm: 'tiles' };

interface Parts {
  readonly model: LanguageModel;
  readonly optimizer: Optimizer;
  readonly program: Program;
}

/** Model in bf16 with stochastic rounding, LOMO, every stage recomputed. */
function assemble(device: Device, { json, tokens, headForm }: StepShape): Parts {
  const model = createModel(json, device, { dtype: 'bf16', maxLength: tokens });
  const optimizer = new Optimizer(device, model.parameters, { rule: lomo });
  const program = new Program(device, model, { microBatches: 1, tokens, maxSegments: 1, maxLength: tokens, headForm });
  return { model, optimizer, program };
}

/** Random tokens of the seed as one segment; every token but the last predicts the next. */
function randomBatch({ json, tokens }: StepShape, seed: number): HostBatch {
  const ids = Int32Array.from(new Random(seed).ints(tokens, Number(json['vocab_size'])));
  return {
    tokens: ids,
    targets: ids.map((_, t) => (t === tokens - 1 ? -100 : ids[t + 1]!)),
    positions: ids.map((_, t) => t),
    starts: Int32Array.of(0, tokens),
  };
}

/** The memory of one step on `backend`, from the program run without data. */
export function planOf(backend: Backend, shape: StepShape): Promise<MemoryPlan> {
  return makePlan(backend, function* (device) {
    let made: Parts | null = null;
    yield { name: 'setup', run: () => void (made = assemble(device, shape)) };
    yield {
      name: 'step',
      run: async () => {
        const { program, optimizer } = made!;
        await program.run({ step: 1, seed: 0, lr: 0, batches: [randomBatch(shape, 1)], passes: optimizer.passes });
      },
    };
  });
}

/** What a step did. */
export interface StepReport {
  readonly loss: number;
  readonly seconds: number;
  /** Of processor time, all threads together: on a busy machine this, over the threads, is what a quiet one would take. */
  readonly processorSeconds: number;
  /** Paths of the parameters that settled, in order. */
  readonly settled: readonly string[];
}

export interface SizeReport {
  readonly plan: MemoryPlan;
  readonly parameters: readonly string[];
  /** Numbers of the model. */
  readonly size: number;
  /** Bytes that the backend's memories really reserve. */
  readonly reserved: number;
  /** Seconds that drawing all weights took, on the clock and of processor time. */
  readonly draw: Pick<StepReport, 'seconds' | 'processorSeconds'>;
  readonly steps: readonly StepReport[];
  /** VmHWM of the process, bytes. */
  readonly processPeak: number;
}

/** Runs `count` steps on the same tokens, set-up and first step held to the plan allocation by allocation. `say` hears what has been done. */
export async function runSteps(backend: Backend, shape: StepShape, { count, lr, say }: { readonly count: number; readonly lr: number; readonly say: (text: string) => void }): Promise<SizeReport> {
  const plan = await planOf(backend, shape);
  const device = new Device(backend, { bytes: plan.extent });
  try {
    const { model, optimizer, program } = await underPlan(device, plan, { name: 'setup', body: () => assemble(device, shape) });
    let timing = stopwatch();
    initialise(model, 0);
    await device.read(model.parameters.at(-1)!.rows(0, 1));
    const draw = timing();
    say(`${model.size} numbers drawn in ${draw.seconds.toFixed(1)} s (${draw.processorSeconds.toFixed(1)} s of processor time)`);
    const steps: StepReport[] = [];
    for (let step = 1; step <= count; step++) {
      const settled: string[] = [];
      const passes = optimizer.passes.map((pass): ProgramPass => ({
        name: pass.name,
        settle: (p, g, at) => {
          settled.push(p.path);
          pass.settle(p, g, at);
        },
        finish: (tensor) => pass.finish(tensor),
      }));
      timing = stopwatch();
      const { loss } = await underPlan(device, plan, { name: 'step', body: () => program.run({ step, seed: 0, lr, batches: [randomBatch(shape, 1)], passes }) });
      const { seconds, processorSeconds } = timing();
      steps.push({ loss, seconds, processorSeconds, settled });
      say(`step ${step}: loss ${loss.toFixed(4)}, ${seconds.toFixed(1)} s (${processorSeconds.toFixed(1)} s of processor time), ${(shape.tokens / seconds).toFixed(2)} tokens/s`);
    }
    const parameters = model.parameters.map(({ path }) => path);
    return { plan, parameters, size: model.size, reserved: backend.reserved(), draw, steps, processPeak: highWater() };
  } finally {
    device.free();
  }
}

/** VmHWM of this process, bytes. */
function highWater(): number {
  return Number(/VmHWM:\s+(\d+)/.exec(readFileSync('/proc/self/status', 'utf8'))?.[1] ?? NaN) * 1024;
}

/** Begins to time; call it to know. */
function stopwatch(): () => { readonly seconds: number; readonly processorSeconds: number } {
  const [start, used] = [performance.now(), process.cpuUsage()];
  return () => {
    const { user, system } = process.cpuUsage(used);
    return { seconds: (performance.now() - start) / 1000, processorSeconds: (user + system) / 1e6 };
  };
}
