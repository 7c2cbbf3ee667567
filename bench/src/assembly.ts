// What benches run: a model, its optimizer and its program on a device, put together as the trainer does; and the tokens they train on.
import type { JsonObject, LanguageModel } from '@lomo/models';
import { createModel } from '@lomo/models';
import type { Clip, Rounding, Rule } from '@lomo/optim';
import { adalomo, adamw, lomo, Optimizer, sgd } from '@lomo/optim';
import type { HostBatch, MemoryPlan } from '@lomo/parallel';
import { makePlan, Program } from '@lomo/parallel';
import type { Backend, Device, HeadForm } from '@lomo/tensor';

/** A step's shape: `batch` rows of `seq` tokens in each of `microBatches` micro-batches. */
export interface Setup {
  readonly json: JsonObject;
  readonly dtype: 'f32' | 'bf16';
  readonly seq: number;
  readonly batch: number;
  readonly microBatches: number;
  readonly rule: Rule;
  /** Tapes kept from forward to backward; else recomputed. */
  readonly keeps: boolean;
  readonly headForm?: HeadForm;
  readonly clip?: Clip;
  /** Of updates to 16-bit weights; to nearest unless given, as the peer's are. */
  readonly rounding?: Rounding;
  /** Largest gradient tile, bytes; the device's own choice unless given. */
  readonly tileBytes?: number;
}

export interface Assembly {
  readonly model: LanguageModel;
  readonly optimizer: Optimizer;
  readonly program: Program;
}

/** Rules by the name the command line and the peer give them. Throws naming those there are. */
export function ruleNamed(name: string): Rule {
  const rule = { lomo, adalomo: adalomo(), adamw: adamw(), sgd }[name];
  if (rule === undefined) throw new Error(`no optimizer '${name}' (there are lomo, adalomo, adamw, sgd)`);
  return rule;
}

/** Builds everything that lives as long as the run. */
export function assemble(device: Device, setup: Setup): Assembly {
  const { json, dtype, seq, batch, microBatches, rule, keeps } = setup;
  const model = createModel(json, device, { dtype, maxLength: seq });
  const optimizer = new Optimizer(device, model.parameters, { rule, rounding: setup.rounding ?? 'nearest', ...(setup.clip === undefined ? {} : { clip: setup.clip }) });
  const last = model.stages.length - 1;
  const program = new Program(device, model, {
    microBatches,
    tokens: seq * batch,
    maxSegments: batch,
    maxLength: seq,
    keeps: (stage) => keeps && stage !== last,
    ...(setup.headForm === undefined ? {} : { headForm: setup.headForm }),
  });
  return { model, optimizer, program };
}

/** The memory of one step of `setup` on `backend`. */
export function planStep(backend: Backend, setup: Setup): Promise<MemoryPlan> {
  return makePlan(backend, function* (device) {
    let made: Assembly | null = null;
    yield { name: 'setup', run: () => void (made = assemble(device, setup)) };
    yield { name: 'step', run: () => run(made!, { step: 1, lr: 0, batches: batchesOf(setup, new Uint8Array(setup.seq * setup.batch), 0) }).then(() => {}) };
  }, setup.tileBytes === undefined ? {} : { tileBytes: setup.tileBytes });
}

/** One optimizer step; resolves to the mean loss. */
export async function run({ program, optimizer }: Assembly, input: { readonly step: number; readonly lr: number; readonly batches: readonly HostBatch[] }): Promise<number> {
  const { loss } = await program.run({ ...input, seed: 0, passes: optimizer.passes });
  return loss;
}

/**
 * The micro-batches of step `step` (from 0): consecutive windows of `stream`, begun anew where one would pass its end; a token is a byte
 * modulo the vocabulary. Each row is a segment that predicts its next token, its last token nothing.
 */
export function batchesOf(setup: Setup, stream: Uint8Array, step: number): HostBatch[] {
  const { seq, batch, microBatches } = setup;
  const size = seq * batch;
  const vocabulary = Number(setup.json['vocab_size']);
  return Array.from({ length: microBatches }, (_, m) => {
    const at = ((step * microBatches + m) * size) % (stream.length - size + 1);
    const tokens = Int32Array.from(stream.subarray(at, at + size), (byte) => byte % vocabulary);
    return {
      tokens,
      targets: tokens.map((_id, t) => (t % seq === seq - 1 ? -100 : tokens[t + 1]!)),
      positions: tokens.map((_id, t) => t % seq),
      starts: Int32Array.from({ length: batch + 1 }, (_start, s) => s * seq),
    };
  });
}

/**
 * Floating-point operations of one step as the model needs them, whoever computes it: 6 a token for every number of a linear layer, and
 * the causal half of attention's products, three times (forward, and twice that backward). Recomputation does not count.
 */
export function modelWork(model: LanguageModel, setup: Setup): number {
  const { seq, batch, microBatches, json } = setup;
  const [vocabulary, hidden] = [Number(json['vocab_size']), Number(json['hidden_size'])];
  const norms = (2 * Number(json['num_hidden_layers']) + 1) * hidden;
  const embedding = json['tie_word_embeddings'] === true ? 0 : vocabulary * hidden;
  const tokens = seq * batch * microBatches;
  return 6 * (model.size - norms - embedding) * tokens + 6 * batch * microBatches * seq ** 2 * hidden * Number(json['num_hidden_layers']);
}
