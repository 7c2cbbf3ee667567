// lomo eval: a model's loss and exact matches on held-out data.
import type { Dataset } from '@lomo/data';
import { openDataset, openTokenizer } from '@lomo/data';
import { complete, inWordsOfRuns, openModel } from '@lomo/trainer';
import { LomoError } from '@lomo/tensor';
import type { DType } from '@lomo/tensor';
import type { BackendName } from '../backends.ts';
import { openBackend } from '../backends.ts';
import { expectModel } from '../model_folder.ts';
import { loadPlugins } from '../plugins.ts';
import { count, percent, screen as openScreen } from '../screen.ts';

export interface EvalFlags {
  readonly data: string;
  readonly maxSeqLength: number;
  /** What is done with longer samples. */
  readonly overlong: 'error' | 'drop' | 'truncate' | 'split';
  readonly onBadLine: 'fail' | 'skip';
  readonly batchSize: number;
  readonly samples: number;
  /** Prompt and completion as they were trained: '{prompt}{completion}'. */
  readonly template?: string;
  /** Modules that bring model families. */
  readonly plugin: readonly string[];
  readonly threads?: number;
  readonly backend: BackendName;
  /** Which GPU, with backend cuda. */
  readonly gpu?: number;
  readonly dtype: DType;
  /** Folder of the file that weights come from stage by stage, for a model larger than memory. */
  readonly streamDir?: string;
  readonly json?: boolean;
}

/** Prints mean loss, perplexity and the share of completions that equal the reference. */
export async function evaluate(folder: string, flags: EvalFlags): Promise<void> {
  const screen = openScreen(flags.json === true ? process.stderr : process.stdout);
  await expectModel(folder);
  const { families, ops } = await loadPlugins(flags.plugin);
  const { backend } = await openBackend(flags.backend, { threads: flags.threads, gpu: flags.gpu, ops });
  await using tokenizer = await openTokenizer(folder);
  const dataset = await inWordsOfRuns(() =>
    openDataset({
      sources: flags.data,
      tokenizer,
      maxSeqLength: flags.maxSeqLength,
      overlong: flags.overlong === 'error' ? 'fail' : flags.overlong,
      onBadLine: flags.onBadLine,
      ...(flags.template === undefined ? {} : { template: templateOf(flags.template) }),
    }),
  );
  const capacity = Math.ceil((flags.batchSize * flags.maxSeqLength) / 64) * 64;
  const steps = await dataset.layOutEval({ capacity, microBatches: 1 });
  await using opened = await openModel(folder, {
    backend,
    families,
    dtype: flags.dtype,
    ...(flags.streamDir === undefined ? {} : { streamDir: flags.streamDir }),
    text: { prompt: flags.maxSeqLength, fresh: 64 },
    batch: { tokens: capacity, maxSegments: steps.maxSegments, maxLength: flags.maxSeqLength },
  });
  const batches = function* () {
    for (const step of steps) yield* step.batches;
  };
  const { loss, trained } = await opened.program!.evaluate(batches());
  let [done, exact] = [0, 0];
  for await (const completion of complete(opened.model, opened.tokenizer, { dataset, count: flags.samples, maxNewTokens: 64 })) {
    done++;
    if (completion.exact) exact++;
    screen.live(`  ${done} completions, ${exact} exact`);
  }
  screen.settle();
  const result = { folder, data: flags.data, loss, perplexity: Math.exp(loss), trainedTokens: trained, completions: done, exact, exactMatch: done === 0 ? null : exact / done };
  if (flags.json === true) process.stdout.write(`${JSON.stringify(result)}\n`);
  else screen.line(`${flags.data}: loss ${loss.toFixed(4)}, perplexity ${Math.exp(loss).toFixed(2)} over ${count(trained)} tokens${leftOutWords(dataset)}; exact match ${exact} of ${done}${done === 0 ? '' : ` (${percent(exact / done)})`}`);
}

/** ' (3 texts over-long: drop, 1 bad line skipped)', or nothing. */
function leftOutWords(dataset: Dataset): string {
  const { overlong, sources } = dataset.report();
  const skipped = sources.reduce((n, source) => n + source.skipped, 0);
  const words = [...(overlong.count === 0 ? [] : [`${count(overlong.count)} over-long: ${overlong.mode}`]), ...(skipped === 0 ? [] : [`${count(skipped)} bad ${skipped === 1 ? 'line' : 'lines'} skipped`])];
  return words.length === 0 ? '' : ` (${words.join(', ')})`;
}

function templateOf(text: string): { prompt: string; completion: string } {
  const at = text.indexOf('{completion}');
  if (at < 0 || !text.includes('{prompt}')) throw new LomoError('ConfigError', `--template '${text}': expected both {prompt} and {completion}, in this order`);
  return { prompt: text.slice(0, at), completion: text.slice(at) };
}
