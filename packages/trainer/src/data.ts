// A run's data: every sample tokenized and checked, every step laid out. What a run trains on, and what `lomo data check` looks at.
import type { Dataset, Source, Steps, Tokenizer } from '@lomo/data';
import { DataError, openDataset } from '@lomo/data';
import type { BatchShape } from '@lomo/parallel';
import { LomoError } from '@lomo/tensor';
import type { Choice } from './choice.ts';
import type { RunConfig } from './config.ts';
import { microBatchesOf } from './config.ts';

/** What is trained on, what is held out, and the steps of both, of one shape. */
export interface RunData {
  readonly train: Dataset;
  readonly held: Dataset | null;
  readonly steps: Steps;
  readonly heldSteps: Steps | null;
  readonly shape: BatchShape & { readonly microBatches: number };
  readonly choices: readonly Choice[];
}

/**
 * Reads, tokenizes and lays out the data of `config`. Throws LomoError with the codes of @lomo/data (BadLine, AllMasked, DoubleBos, Overlong,
 * TokenOutOfRange ...), settings spelled as in a run.
 */
export async function openRunData(config: RunConfig, options: { readonly tokenizer: Tokenizer; readonly vocabSize: number; readonly signal?: AbortSignal }): Promise<RunData> {
  return inWordsOfRuns(async () => {
    const open = (sources: RunConfig['datasets']): Promise<Dataset> =>
      openDataset({
        ...options,
        sources: sources.map((source) => Object.fromEntries(Object.entries(source).filter(([, value]) => value !== undefined)) as unknown as Source),
        maxSeqLength: config.max_seq_length,
        overlong: config.overlong === 'error' ? 'fail' : config.overlong,
        onBadLine: config.on_bad_line,
        trainOnInputs: config.train_on_inputs,
        seed: config.data_seed ?? config.seed,
      });
    const train = await open(config.datasets);
    const held = config.eval_datasets.length === 0 ? null : await open(config.eval_datasets);
    return layOut(config, { train, held, signal: options.signal });
  });
}

/** Settings as @lomo/data spells them, and as a run does: its complaints are read by people who write the latter. */
const spellings: Readonly<Record<string, string>> = {
  maxSeqLength: 'max_seq_length',
  trainOnInputs: 'train_on_inputs',
  onBadLine: 'on_bad_line',
  microBatches: 'gradient_accumulation_steps',
  capacity: 'per_device_train_batch_size x max_seq_length',
};

/** What `body` returns; a DataError that it throws is a LomoError of the same code, its settings spelled as in a run. */
export async function inWordsOfRuns<T>(body: () => Promise<T>): Promise<T> {
  try {
    return await body();
  } catch (error) {
    if (!(error instanceof DataError)) throw error;
    const message = error.message.replace(/\b[a-z]+[A-Z]\w*|\bcapacity\b/g, (word) => spellings[word] ?? word);
    throw new LomoError(error.code, message, { ...error.details }, error);
  }
}

/** Tokens of a micro-batch of the layout, or of a row where micro-batches are made of rows. */
function capacityOf({ per_device_train_batch_size: size, max_seq_length: length }: RunConfig) {
  return { size, capacity: Math.ceil(((size === 'auto' ? 1 : size) * length) / 64) * 64 };
}

/** The shape of a run whose data are not there: as `openRunData` would lay them out, one sample a row. Packed samples only add their starts. */
export function shapeWithoutData(config: RunConfig): RunData['shape'] {
  const { size, capacity } = capacityOf(config);
  const rows = size === 'auto' ? 1 : size;
  const padding = capacity > rows * config.max_seq_length ? 1 : 0;
  return { tokens: capacity, microBatches: microBatchesOf(config), maxSegments: rows + padding, maxLength: config.max_seq_length };
}

/** Steps of training and evaluation, of one shape. In turns: of millions of samples it takes seconds, in which a signal must be heard. */
async function layOut(config: RunConfig, { train, held, signal }: Pick<RunData, 'train' | 'held'> & { readonly signal: AbortSignal | undefined }): Promise<RunData> {
  const { capacity, size } = capacityOf(config);
  const microBatches = microBatchesOf(config);
  const span = config.max_steps === undefined ? { epochs: config.num_train_epochs } : { maxSteps: config.max_steps };
  const options = { capacity, microBatches, packing: config.packing, ...span };
  const evaluation = { capacity, microBatches: 1, packing: config.packing };
  const laid = await train.layOut(options, signal);
  const heldLaid = held === null ? null : await held.layOutEval(evaluation, signal);
  const maxSegments = Math.max(laid.maxSegments, heldLaid?.maxSegments ?? 1);
  const steps = laid.widened(maxSegments);
  const { efficiency } = steps.report();
  const shape = { tokens: capacity, microBatches, maxSegments, maxLength: config.max_seq_length };
  const choices: Choice[] = [
    ...leftOut(config, train),
    { name: 'batch', value: `${microBatches} ${size === 'auto' ? 'rows of' : 'x'} ${capacity} tokens a step`, reason: `${(100 * efficiency).toFixed(1)} % of them are data, the rest padding` },
  ];
  return { train, held, steps, heldSteps: heldLaid?.widened(maxSegments) ?? null, shape, choices };
}

/** What of the training data is not trained on, or not whole: nobody should learn of it from a result. */
function leftOut({ max_seq_length: longest, overlong: mode }: RunConfig, train: Dataset): Choice[] {
  const { samples, sources, overlong, allMasked } = train.report();
  const bad = sources.reduce((n, { skipped }) => n + skipped, 0);
  const said = (n: number): string => n.toLocaleString('en-US');
  const dropped = mode === 'drop' ? overlong.count : 0;
  const reasons = [
    ...(dropped === 0 ? [] : [`${said(dropped)} over ${said(longest)} tokens (overlong: drop)`]),
    ...(bad === 0 ? [] : [`${said(bad)} bad ${bad === 1 ? 'line' : 'lines'} (on_bad_line: skip)`]),
    ...(allMasked === 0 ? [] : [`${said(allMasked)} with nothing to train`]),
  ];
  const out = dropped + bad + allMasked;
  return [
    ...(out === 0 ? [] : [{ name: 'left out', value: `${said(out)} of ${said(out + samples)}`, reason: reasons.join(', ') }]),
    ...(overlong.count === 0 || mode === 'drop' ? [] : [{ name: 'over-long', value: said(overlong.count), reason: `over ${said(longest)} tokens; as the run asks: ${mode}` }]),
  ];
}
