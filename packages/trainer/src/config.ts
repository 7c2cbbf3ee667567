// A run's configuration: one flat object, its canonical names, their aliases and defaults. Unknown names are errors with a suggestion.
import { LomoError } from '@lomo/tensor';
import { z } from 'zod';
import { isDynamic, LossScale, lossScaleKeys, lossScaleSchema } from './loss_scale.ts';

const positive = z.number().int().positive();
const share = z.number().min(0);

const dataset = z.strictObject({
  path: z.string().describe('a .jsonl or .txt file'),
  type: z.enum(['jsonl', 'text']).optional().describe('by the file name unless given'),
  columns: z
    .strictObject({ prompt: z.string(), input: z.string(), completion: z.string(), text: z.string() })
    .partial()
    .optional()
    .describe('which keys hold what: { prompt: question, completion: answer }'),
  template: z.strictObject({ prompt: z.string(), completion: z.string() }).optional().describe('how a sample is laid out'),
  separator: z.string().nullable().optional().describe('text: what separates documents; null: the file is one'),
});

/** Every key, its type and its default. `--help` and the JSON Schema are made from this. */
export const runSchema = z.strictObject({
  model_name_or_path: z.string().describe('a local Hugging Face folder'),
  init: z.enum(['pretrained', 'random']).default('pretrained').describe('random: weights from the seed, config.json and tokenizer from the folder'),
  datasets: z.array(dataset).min(1).describe('what is trained on'),
  eval_datasets: z.array(dataset).default([]).describe('what is held out'),
  max_seq_length: positive.default(2048).describe('longest sample, tokens'),
  overlong: z.enum(['error', 'truncate', 'drop', 'split']).default('error').describe('what happens to longer samples'),
  on_bad_line: z.enum(['fail', 'skip']).default('fail').describe('what happens to lines that cannot be read, and to samples with nothing to train'),
  per_device_train_batch_size: z.union([positive, z.literal('auto')]).default(1).describe('sequences of max_seq_length in a micro-batch; auto: rows are packed one by one, and the plan says how many make a micro-batch: equal bits for any'),
  gradient_accumulation_steps: positive.optional().describe('micro-batches in a step'),
  global_batch_size: positive.optional().describe('sequences of max_seq_length in a step; default 16'),
  num_train_epochs: z.number().positive().default(1),
  max_steps: positive.optional().describe('overrides num_train_epochs'),
  optim: z.string().default('adalomo').describe('adalomo, lomo, adamw, sgd, or a plugin\'s rule'),
  learning_rate: z.number().positive().optional().describe('default: lomo 3e-2, sgd 3e-2, adalomo 5e-4, adamw 2e-5'),
  lr_scheduler_type: z.enum(['constant', 'linear', 'cosine', 'cosine_with_min_lr', 'wsd']).default('cosine'),
  warmup_steps: share.default(0.03).describe('below 1: a share of all steps'),
  min_lr_ratio: z.number().min(0).max(1).default(0),
  max_grad_norm: z.number().positive().optional().describe('default: 1.0 for lomo, off for others'),
  clip_mode: z.enum(['none', 'value', 'parameter', 'global']).optional().describe('whose norm max_grad_norm limits; global: see clip_by'),
  clip_value: z.number().positive().optional(),
  clip_by: z.enum(['auto', 'two-pass', 'memory', 'file']).default('auto').describe('how a step is judged before its first update: a second backward, or gradients put aside in memory or in a file; equal bits; auto: the plan decides and says why'),
  spill_dir: z.string().optional().describe('folder of the file that clip_by: file writes; default: output_dir'),
  stages: z.enum(['auto', 'resident', 'streamed']).default('auto').describe('streamed: weights come from a file stage by stage and go back updated, for models larger than memory; equal bits; auto: resident where they fit'),
  offload: z.enum(['none', 'file']).default('none').describe('file: activations between stages wait in a file from forward to backward; needs recomputed stages'),
  stream_dir: z.string().optional().describe('folder of the files that stages: streamed and offload: file use; default: output_dir; /dev/shm is host memory'),
  atomic: z.boolean().default(false).describe('a non-finite gradient changes no byte at all; implied by clip_mode: global, f16 and a dynamic loss_scale'),
  weight_decay: share.default(0),
  train_on_inputs: z.boolean().default(false),
  packing: z.boolean().default(true),
  dtype: z.enum(['f32', 'bf16', 'f16']).default('f32').describe('what weights are kept in; bf16: activations too; f16: the weights alone, activations and arithmetic are f32'),
  rounding: z.enum(['nearest', 'stochastic']).default('stochastic').describe('of updated bf16 and f16 weights; nearest loses movements below half a unit, stochastic is exact in expectation'),
  loss_scale: lossScaleSchema.default('none').describe('dynamic: halved when a step overflows, doubled after 2000 that did not; a power of two: stays; none: right wherever gradients are f32 or bf16, as on a CPU'),
  gradient_checkpointing: z.union([z.boolean(), z.literal('auto')]).default('auto').describe('auto: the plan decides and says why'),
  accumulation: z.enum(['auto', 'factors', 'buffer']).default('auto'),
  head_form: z.enum(['auto', 'chunks', 'tiles']).default('auto'),
  eval_steps: positive.optional(),
  save_steps: positive.optional(),
  save_minutes: z.number().positive().default(10).describe('least time between two saves without save_steps; never less than 20 times what one takes'),
  save_total_limit: positive.default(2).describe('newest checkpoints kept; the one with the lowest held-out loss is kept beside them'),
  save_from: z.enum(['auto', 'copy', 'weights']).default('auto').describe('copy: written from a copy in memory while training goes on; weights: training waits; auto: a copy where memory allows'),
  logging_steps: positive.default(1),
  telemetry: z.boolean().default(true).describe('logged steps say what they did to the weights: gradient norm, share of weights changed, of the update lost to rounding'),
  report_to: z.array(z.enum(['stdout', 'jsonl'])).default(['stdout', 'jsonl']),
  resume_from_checkpoint: z.union([z.string(), z.boolean()]).default(true).describe('true: the newest of output_dir, if any'),
  output_dir: z.string().optional().describe('default: runs/<run_name>'),
  run_name: z.string().default('run'),
  seed: z.number().int().min(0).default(42),
  data_seed: z.number().int().min(0).optional(),
  backend: z.enum(['cpu', 'cuda', 'reference']).default('cpu').describe('cuda: an NVIDIA GPU, with the package @lomo/cuda; reference: slow, the definition'),
  gpu: z.number().int().min(0).optional().describe('cuda: which GPU of those that are visible; default: the first'),
  threads: positive.optional().describe('default: the cores this process may use'),
  plugins: z.array(z.string()).default([]).describe('modules that add optimizers, ops or models'),
});

export type RunConfig = z.output<typeof runSchema>;
export type RunInput = z.input<typeof runSchema>;

/** Names people bring from elsewhere, and what they are called here. A leading '!' negates a boolean. */
export const aliases: Readonly<Record<string, string>> = {
  base_model: 'model_name_or_path',
  model: 'model_name_or_path',
  checkpoint_dir: 'model_name_or_path',
  dataset: 'datasets',
  data: 'datasets',
  train_file: 'datasets',
  cutoff_len: 'max_seq_length',
  sequence_len: 'max_seq_length',
  max_length: 'max_seq_length',
  max_seq_len: 'max_seq_length',
  micro_batch_size: 'per_device_train_batch_size',
  batch_size: 'per_device_train_batch_size',
  grad_accum: 'gradient_accumulation_steps',
  total_batch_size: 'global_batch_size',
  epochs: 'num_train_epochs',
  num_epochs: 'num_train_epochs',
  iters: 'max_steps',
  optimizer: 'optim',
  lr: 'learning_rate',
  lr_scheduler: 'lr_scheduler_type',
  warmup_ratio: 'warmup_steps',
  clip_grad_norm: 'max_grad_norm',
  gradient_clipping: 'max_grad_norm',
  train_on_prompt: 'train_on_inputs',
  mask_prompt: '!train_on_inputs',
  completion_only_loss: '!train_on_inputs',
  sample_packing: 'packing',
  packed: 'packing',
  neat_packing: 'packing',
  precision: 'dtype',
  grad_checkpoint: 'gradient_checkpointing',
  resume: 'resume_from_checkpoint',
  out_dir: 'output_dir',
};

/** dtypes as PyTorch and others spell them. */
const spelledDtypes: Readonly<Partial<Record<string, RunConfig['dtype']>>> = {
  f32: 'f32', bf16: 'bf16', f16: 'f16', float32: 'f32', fp32: 'f32', float: 'f32', bfloat16: 'bf16', float16: 'f16', fp16: 'f16', half: 'f16',
};

/** Switches that name a dtype when they are on. */
const dtypeSwitches: Readonly<Record<string, RunConfig['dtype']>> = { bf16: 'bf16', fp16: 'f16' };

/** What a rule expects unless told otherwise. */
const rates: Readonly<Record<string, number>> = { lomo: 3e-2, sgd: 3e-2, adalomo: 5e-4, adamw: 2e-5 };

export interface ParsedRun {
  readonly config: RunConfig;
  /** 'sequence_len -> max_seq_length', for printing. */
  readonly renamed: readonly string[];
  /** Settings that work but look wrong. */
  readonly warnings: readonly string[];
}

/** Where a key stands in the file it came from, for messages: 'run.yaml:7'. */
export type Locate = (path: readonly (string | number)[]) => string;

/** Checks raw settings. Throws ConfigError naming every unknown key with a suggestion, and every wrong value. */
export function parseRun(raw: unknown, locate: Locate = () => 'config'): ParsedRun {
  if (typeof raw !== 'object' || raw === null || Array.isArray(raw)) throw new LomoError('ConfigError', `${locate([])}: a run is a mapping of settings`);
  const { settings, renamed } = canonical(raw as Readonly<Record<string, unknown>>, locate);
  const result = runSchema.safeParse(settings);
  if (!result.success) {
    const lines = result.error.issues.flatMap((issue) => {
      const path = issue.path as (string | number)[];
      if (issue.code === 'unrecognized_keys') {
        const known = path.length === 0 ? [...Object.keys(runSchema.shape), ...Object.keys(aliases)] : path[0] === 'loss_scale' ? lossScaleKeys : Object.keys(dataset.shape);
        return issue.keys.map((key) => `${locate([...path, key])}: unknown key '${[...path, key].join('.')}'${suggestion(key, known)}`);
      }
      return [`${locate(path)}: ${path.join('.') || 'run'}: ${complaint(issue, valueAt(settings, path))}`];
    });
    throw new LomoError('ConfigError', lines.join('\n'));
  }
  const { atomic, loss_scale: scaling } = result.data;
  new LossScale(scaling); // refuses bounds that contradict each other
  if (result.data.offload === 'file' && result.data.gradient_checkpointing === false) {
    throw new LomoError('ConfigError', `${locate(['offload'])}: offload: file moves what arrives at stages that are recomputed, and gradient_checkpointing: false keeps them all; leave one of the two out`);
  }
  const config = { ...result.data, atomic: atomic || isDynamic(scaling) };
  return { config, renamed, warnings: warningsOf(config) };
}

/** Types a run in TypeScript: `export default defineRun({ ... })`. */
export function defineRun(run: RunInput): RunInput {
  return run;
}

/** The folder that a run writes to. */
export function rootOf(config: Pick<RunConfig, 'output_dir' | 'run_name'>): string {
  return config.output_dir ?? `runs/${config.run_name}`;
}

/** The learning rate of a run. Throws ConfigError when a rule has no default. */
export function learningRateOf(config: RunConfig): number {
  const rate = config.learning_rate ?? rates[config.optim];
  if (rate === undefined) throw new LomoError('ConfigError', `learning_rate: '${config.optim}' has no default rate; give one`);
  return rate;
}

/** Micro-batches of a step as it is laid out; its rows where `per_device_train_batch_size` is auto. Throws ConfigError when the batch arithmetic does not come out even. */
export function microBatchesOf(config: RunConfig): number {
  const { per_device_train_batch_size: size, gradient_accumulation_steps: given, global_batch_size: global } = config;
  if (size === 'auto') {
    if (given !== undefined) throw new LomoError('ConfigError', 'per_device_train_batch_size: auto splits a step itself; give global_batch_size instead of gradient_accumulation_steps');
    return global ?? 16;
  }
  if (given !== undefined) {
    if (global !== undefined && global !== given * size) {
      throw new LomoError('ConfigError', `global_batch_size ${global} is not per_device_train_batch_size ${size} x gradient_accumulation_steps ${given}; give two of the three`);
    }
    return given;
  }
  const total = global ?? Math.max(16, size);
  if (total % size !== 0) throw new LomoError('ConfigError', `global_batch_size ${total} is not a multiple of per_device_train_batch_size ${size}`);
  return total / size;
}

function canonical(raw: Readonly<Record<string, unknown>>, locate: Locate) {
  const settings: Record<string, unknown> = {};
  const from = new Map<string, string>();
  const renamed: string[] = [];
  for (const [key, value] of Object.entries(raw)) {
    const switched = Object.hasOwn(dtypeSwitches, key) && typeof value === 'boolean';
    if (switched && !value) continue;
    const target = switched ? 'dtype' : Object.hasOwn(aliases, key) ? aliases[key]! : key;
    const name = target.replace('!', '');
    let meant = switched ? dtypeSwitches[key] : target.startsWith('!') && typeof value === 'boolean' ? !value : value;
    if (name === 'dtype' && typeof meant === 'string') meant = spelledDtypes[meant.toLowerCase()] ?? meant;
    if (name === 'datasets' && typeof meant === 'string') meant = [{ path: meant }];
    const earlier = from.get(name);
    if (earlier !== undefined && JSON.stringify(settings[name]) !== JSON.stringify(meant)) {
      throw new LomoError('ConfigError', `${locate([key])}: '${key}' and '${earlier}' both mean ${name}, and disagree`);
    }
    if (name !== key) renamed.push(`${key} -> ${target}`);
    settings[name] = meant;
    from.set(name, key);
  }
  return { settings, renamed };
}

function warningsOf(config: RunConfig): string[] {
  const usual = rates[config.optim];
  const { learning_rate: rate } = config;
  if (usual === undefined || rate === undefined) return [];
  const other = Object.entries(rates).find(([name, r]) => name !== config.optim && r !== usual && Math.abs(Math.log(rate / r)) < 0.7);
  const far = Math.abs(Math.log10(rate / usual)) > 1;
  return far && other !== undefined ? [`learning_rate ${rate} looks like one for ${other[0]}; ${config.optim} usually takes about ${usual}`] : [];
}

/** Words that stand for a value of their own, where a wrong one is likely meant for one of them. */
const words: Readonly<Record<string, readonly string[]>> = { loss_scale: ['none', 'dynamic'], gradient_checkpointing: ['auto', 'true', 'false'], per_device_train_batch_size: ['auto'] };

/** What is wrong with a value: what was expected, what was found, what was probably meant. */
function complaint(issue: z.core.$ZodIssue, value: unknown): string {
  if (value === undefined) return issue.code === 'invalid_type' ? 'is missing' : issue.message;
  const found = `; found ${JSON.stringify(value)}`;
  const meant = (known: readonly string[]): string => (typeof value === 'string' ? suggestion(value, known) : '');
  if (issue.code === 'invalid_value') return `expected ${issue.values.map(String).join(', ')}${found}${meant(issue.values.map(String))}`;
  if (issue.code === 'invalid_type') return `expected ${issue.expected}${found}`;
  if (issue.code === 'invalid_union') {
    const known = words[String(issue.path[0])] ?? [];
    const expected = issue.message === 'Invalid input' ? `expected ${known.join(', ')}` : issue.message;
    return `${expected}${found}${meant(known)}`;
  }
  return `${issue.message}${found}`;
}

function valueAt(settings: unknown, path: readonly (string | number)[]): unknown {
  return path.reduce<unknown>((value, key) => (typeof value === 'object' && value !== null ? (value as Readonly<Record<string | number, unknown>>)[key] : undefined), settings);
}

/** ", did you mean 'learning_rate'?" or nothing. */
export function suggestion(word: string, known: readonly string[]): string {
  const scored = known.map((name) => ({ name, distance: editDistance(word, name) })).toSorted((a, b) => a.distance - b.distance);
  const best = scored[0];
  return best !== undefined && best.distance <= Math.max(Math.min(2, word.length - 2), word.length / 3) ? `; did you mean '${best.name}'?` : '';
}

function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) next[j] = Math.min(row[j]! + 1, next[j - 1]! + 1, row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1));
    row = next;
  }
  return row[b.length]!;
}
