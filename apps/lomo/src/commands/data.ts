// lomo data check: everything a run would read, tokenized, checked and counted, without training anything.
import type { Batch, Dataset, Tokenizer } from '@lomo/data';
import { describe, openTokenizer, renderReport } from '@lomo/data';
import { builtInFamilies, familyOf, readConfig } from '@lomo/models';
import { LomoError } from '@lomo/tensor';
import { openRunData } from '@lomo/trainer';
import { loadPlugins } from '../plugins.ts';
import { count, screen as openScreen } from '../screen.ts';
import { readRun } from '../yaml.ts';

/**
 * Prints what the data of `path` amount to, the exact number of steps, and one sample with its mask. Throws what training would throw before
 * its first step: a bad line, a sample with nothing to train, a doubled start token, an over-long sample.
 */
export async function checkData(path: string, overrides: Readonly<Record<string, unknown>>, options: { readonly show: number }): Promise<void> {
  const screen = openScreen();
  const { config, renamed } = await readRun(path, overrides);
  for (const name of renamed) screen.line(`  ${name}`);
  const { families } = await loadPlugins(config.plugins);
  const json = await readConfig(config.model_name_or_path);
  const model = familyOf(json, [...families, ...builtInFamilies]).parseConfig(json);
  await using tokenizer = await openTokenizer(config.model_name_or_path);
  const { train, held, steps } = await openRunData(config, { tokenizer, vocabSize: model.vocabSize });
  screen.line(renderReport(train.report(), steps.report()));
  if (held !== null) screen.line(`\nheld out\n${renderReport(held.report())}`);
  screen.line(`\n${await shown(train, options.show, { tokenizer, capacity: steps.capacity })}`);
  screen.line(`\nno problem found: ${count(steps.length)} ${steps.length === 1 ? 'step' : 'steps'}\nnext: lomo plan ${path}`);
}

/** Sample `index` as the model will see it: cut from a batch, since masks are made there. */
async function shown(dataset: Dataset, index: number, options: { readonly tokenizer: Tokenizer; readonly capacity: number }): Promise<string> {
  if (index >= dataset.length) throw new LomoError('BadOption', `--show ${index}: the samples are 0 to ${dataset.length - 1}`);
  const { tokenizer, capacity } = options;
  const batch = await batchOf(dataset, index, capacity);
  return describe(batch, { tokenizer, sample: batch.samples.indexOf(index), colour: process.stdout.isTTY, where: (i) => dataset.where(i) });
}

/** The batch with sample `index`: evaluation keeps the order of the files, so it is found by halving. */
async function batchOf(dataset: Dataset, index: number, capacity: number): Promise<Batch> {
  const steps = await dataset.layOutEval({ capacity, microBatches: 1 });
  let [low, high] = [0, steps.length - 1];
  while (low < high) {
    const middle = Math.ceil((low + high) / 2);
    if ((steps.at(middle).samples[0] ?? 0) <= index) low = middle;
    else high = middle - 1;
  }
  return steps.at(low).batches[0]!;
}
