// models/FAMILY: small models of any family as whole folders, with logits, losses and gradients.
import { Comparison } from '../compare.ts';
import { familyFile, readJson } from '../format.ts';
import { lossesByRow, packRows } from '../hostBatch.ts';
import { forwardOf, gradientsOf } from '../modelRun.ts';
import type { Row } from '../row.ts';
import { exact, skipped } from '../row.ts';
import type { Context, Discover } from '../section.ts';
import { readTensors, under } from '../tensorFile.ts';
import { gradientRows } from './forward.ts';

/** Every folder of models/ that has a golden.json. */
export const families: Discover = (folder) =>
  folder.folders('models').map((family) => ({ name: `models/${family}`, rows: (context) => rows(context, family) }));

async function* rows(context: Context, family: string): AsyncGenerator<Row> {
  const { folder, engine, judge } = context;
  const at = `models/${family}`;
  const model = folder.path('models', family);
  for (const file of ['golden.json', 'config.json', 'model.safetensors']) {
    if (folder.has('models', family, file)) continue;
    yield skipped(at, `${file} is not in the folder`);
    return;
  }
  const { ids, loss, token_losses: tokenLosses, tied, float32_distance: distance } = await readJson(folder.path('models', family, 'golden.json'), familyFile);
  const packed = packRows([{ ids, labels: ids }]);
  const { evaluated, chunks, tiles, untied } = await engine.onModel(model, packed.shape.maxLength, async (run) => ({
    evaluated: await forwardOf(run, packed.shape, packed.batches[0]!),
    chunks: await gradientsOf(run, packed, { headForm: 'chunks' }),
    tiles: await gradientsOf(run, packed, { headForm: 'tiles' }),
    untied: run.model.parameters.some((p) => p.path === 'lm_head.weight'),
  }));
  yield exact(`${at}/tied`, 1, tied === !untied ? [] : [`${!untied} here, ${tied} in the file`]);
  yield judge.losses(`${at}/loss`, { got: [evaluated.loss], want: [loss] }, distance.loss);
  yield judge.losses(`${at}/loss while training`, { got: [chunks.loss], want: [loss] }, distance.loss);
  // A token's loss is a logit against their logsumexp: it moves as far as logits do.
  yield judge.losses(`${at}/token losses`, { got: lossesByRow(evaluated.tokenLosses, ids).flat(), want: tokenLosses.flat() }, distance.logits.max_abs);
  if (!folder.has('models', family, 'golden.safetensors')) {
    yield skipped(`${at}/logits and gradients`, 'golden.safetensors is not in the folder');
    return;
  }
  const golden = await readTensors(folder.path('models', family, 'golden.safetensors'));
  const logits = golden.get('logits');
  if (logits === undefined) yield skipped(`${at}/logits`, 'golden.safetensors has no logits');
  else {
    const comparison = new Comparison();
    comparison.add('logits', { got: evaluated.logits, want: logits.values });
    yield* judge.tensors(`${at}/logits`, comparison, { distance: distance.logits });
  }
  const want = under(golden, 'grad.');
  yield* gradientRows(context, `${at}/gradients`, { got: chunks, want, distance: distance.gradients });
  yield* gradientRows(context, `${at}/gradients, head by vocabulary tiles`, { got: tiles, want, distance: distance.gradients });
}
