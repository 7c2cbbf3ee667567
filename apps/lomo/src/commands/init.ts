// lomo init: a commented run.yaml for a model's folder and a data file, its numbers taken from both.
import { writeFile } from 'node:fs/promises';
import { openDataset, openTokenizer } from '@lomo/data';
import { builtInFamilies, familyOf, readConfig } from '@lomo/models';
import { LomoError } from '@lomo/tensor';
import { stringify } from 'yaml';
import { count, screen as openScreen } from '../screen.ts';

export interface InitFlags {
  readonly output: string;
  readonly optim: 'adalomo' | 'lomo' | 'adamw' | 'sgd';
}

/** Longest samples, where the data have longer ones than a model should be asked for on a CPU. */
const lengthLimit = 2048;
/** Tokens of a micro-batch that keep two cores busy. */
const usualBatch = 1024;

/** Writes `flags.output` for `model` and `data`. Throws FileExists, and what reading the model's configuration or the data throws. */
export async function init(model: string, data: string, flags: InitFlags): Promise<void> {
  const screen = openScreen();
  const json = await readConfig(model);
  const { modelType, vocabSize } = familyOf(json, builtInFamilies).parseConfig(json);
  await using tokenizer = await openTokenizer(model);
  const positions = typeof json['max_position_embeddings'] === 'number' ? json['max_position_embeddings'] : lengthLimit;
  const limit = Math.min(lengthLimit, positions);
  // Documents are longer than any sample as a rule, and nothing is lost where they are cut; an answer without its question is.
  const overlong = data.endsWith('.txt') ? 'split' : 'drop';
  const report = (await openDataset({ sources: data, tokenizer, vocabSize, maxSeqLength: limit, overlong })).report();
  const length = Math.min(limit, Math.ceil((report.overlong.count > 0 ? limit : report.longest) / 64) * 64);
  const text = runFile({ model, data, optim: flags.optim, length, longest: report.longest, overlong: report.overlong.count > 0 ? overlong : 'error', over: report.overlong.count });
  await writeFile(flags.output, text, { flag: 'wx' }).catch((error: NodeJS.ErrnoException) => {
    const why = error.code === 'EEXIST' ? 'is there already; give another name with --output, or remove it' : `cannot be written: ${error.message}`;
    throw new LomoError(error.code === 'EEXIST' ? 'FileExists' : 'FileError', `${flags.output} ${why}`, { path: flags.output }, error);
  });
  screen.line(`${model}: ${modelType}; ${data}: ${count(report.samples)} samples, ${count(report.trained)} tokens to train, the longest sample ${count(report.longest)} tokens`);
  screen.line(`wrote ${flags.output}\nnext: lomo data check ${flags.output}`);
}

interface Facts {
  readonly model: string;
  readonly data: string;
  readonly optim: InitFlags['optim'];
  readonly length: number;
  readonly longest: number;
  readonly overlong: 'error' | 'drop' | 'split';
  /** Samples longer than `length`. */
  readonly over: number;
}

/** A rate to begin with and what each rule is. */
const rules: Readonly<Record<InitFlags['optim'], { readonly rate: string; readonly whose: string; readonly what: string }>> = {
  adalomo: { rate: '5e-4', whose: "the authors' for instruction tuning; 1e-3 for further pre-training", what: 'LOMO with a factored second moment: almost no state, steps relative to each weight' },
  lomo: { rate: '3e-2', whose: "the authors', with clip_mode: global", what: 'plain SGD inside backward: no state at all' },
  adamw: { rate: '2e-5', whose: 'the usual one for fine-tuning', what: 'for comparison: 8 bytes of state a parameter' },
  sgd: { rate: '3e-2', whose: "lomo's", what: 'the formula of lomo, for comparison' },
};

function runFile({ model, data, optim, length, longest, overlong, over }: Facts): string {
  const line = (setting: string, comment: string): string => `${setting.padEnd(30)} # ${comment}`;
  const quoted = (value: string): string => stringify(value, { lineWidth: 0 }).trim();
  const size = Math.max(1, Math.floor(usualBatch / length));
  const { rate, whose, what } = rules[optim];
  const clipping = [line('clip_mode: global', "the paper's; clip_by says how it is known in time; 'parameter' and 'none' need nothing"), 'max_grad_norm: 1.0'];
  return `${[
    '# A run of lomo. Paths are seen from the folder in which lomo is started. Every setting: `lomo schema`.',
    `model_name_or_path: ${quoted(model)}`,
    'datasets:',
    `  - path: ${quoted(data)}`,
    line('# eval_datasets:', 'held out: the loss is shown before and after, and every eval_steps'),
    '#   - path: test.jsonl',
    '# eval_steps: 100',
    '',
    line(`max_seq_length: ${length}`, over === 0 ? `the longest sample has ${longest} tokens` : `${count(over)} longer ${over === 1 ? 'sample was' : 'samples were'} found`),
    line(`overlong: ${overlong}`, 'longer samples: error, drop, truncate, split'),
    line('packing: true', 'several samples a row, none of which sees another'),
    line('train_on_inputs: false', 'prompts are masked'),
    '',
    line(`per_device_train_batch_size: ${size}`, 'sequences of max_seq_length in a micro-batch'),
    line(`global_batch_size: ${Math.ceil(16 / size) * size}`, 'sequences in a step; micro-batches add up exactly'),
    line('num_train_epochs: 1', 'or max_steps'),
    '',
    line(`optim: ${optim}`, what),
    line(`learning_rate: ${rate}`, whose),
    'lr_scheduler_type: cosine',
    line('warmup_steps: 0.03', 'below 1: a share of all steps'),
    ...(optim === 'lomo' ? clipping : []),
    'weight_decay: 0',
    line('dtype: f32', 'bf16 and f16 halve the memory; updates are then rounded stochastically'),
    line('# rounding: nearest', 'of bf16 and f16: loses most small updates; for comparison'),
    line('# loss_scale: dynamic', 'halved when a step overflows; none (the default) is right on a CPU, f16 included'),
    line('# atomic: true', 'a gradient that turns infinite halfway changes no byte; f16 and clip_mode: global are always so'),
    line('# telemetry: false', 'logged steps say what they did to the weights'),
    '',
    line('save_minutes: 10', 'every checkpoint is a Hugging Face folder; an interrupted run goes on by itself'),
    'output_dir: runs/my-run',
    'seed: 42',
  ].join('\n')}\n`;
}
