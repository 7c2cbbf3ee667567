// NAME/greedy.json: generation by arg max, token by token, with its text; and that uncached logits pick the same by the same margin.
import { openTokenizer } from '@lomo/data';
import { generate } from '@lomo/models';
import { greedyFile, readJson } from '../format.ts';
import { packRows } from '../hostBatch.ts';
import { forwardOf } from '../modelRun.ts';
import type { Row } from '../row.ts';
import { exact } from '../row.ts';
import type { Context } from '../section.ts';
import { forwardDistances } from './forward.ts';

/** Rows of `name`/greedy.json with the model of `model`. */
export async function* greedy({ folder, engine, judge }: Context, name: string, model: string): AsyncGenerator<Row> {
  const { prompt, ids, text, smallest_margin: margin } = await readJson(folder.path(name, 'greedy.json'), greedyFile);
  const all = [...prompt, ...ids];
  const packed = packRows([{ ids: [all], labels: [all] }]);
  const { found, logits } = await engine.onModel(model, all.length, async (run) => {
    const made: number[] = [];
    for await (const id of generate(run.model, prompt, { maxNewTokens: ids.length, stop: [] })) made.push(id);
    return { found: made, logits: (await forwardOf(run, packed.shape, packed.batches[0]!)).logits };
  });
  const wrong = ids.flatMap((id, i) => (found[i] === id ? [] : [`token ${i}: ${found[i]} here, ${id} in the file`]));
  yield exact(`${name}/greedy/tokens`, ids.length, wrong);
  if (text !== undefined) {
    await using tokenizer = await openTokenizer(model);
    const ours = await tokenizer.decode([...prompt, ...found], { skipSpecialTokens: true });
    yield exact(`${name}/greedy/text`, 1, ours === text ? [] : [`'${ours}' here`]);
  }
  if (margin === undefined) return;
  const { picks, smallest } = margins(logits, all.length, { from: prompt.length - 1, count: ids.length });
  yield exact(`${name}/greedy/tokens without a cache`, ids.length, ids.flatMap((id, i) => (picks[i] === id ? [] : [`token ${i}: ${picks[i]} here, ${id} in the file`])));
  // A difference of two logits moves at most twice as far as one.
  yield judge.losses(`${name}/greedy/smallest margin`, { got: [smallest], want: [margin] }, 2 * (await forwardDistances(folder, name)).logits.max_abs);
}

function margins(logits: ArrayLike<number>, tokens: number, span: { readonly from: number; readonly count: number }): { readonly picks: readonly number[]; readonly smallest: number } {
  const vocabulary = logits.length / tokens;
  const picks: number[] = [];
  let smallest = Infinity;
  for (let t = span.from; t < span.from + span.count; t++) {
    let [best, first, second] = [-1, -Infinity, -Infinity];
    for (let v = 0; v < vocabulary; v++) {
      const x = logits[t * vocabulary + v]!;
      if (x > first) [best, second, first] = [v, first, x];
      else if (x > second) second = x;
    }
    picks.push(best);
    smallest = Math.min(smallest, first - second);
  }
  return { picks, smallest };
}
