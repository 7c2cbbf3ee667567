// A model saved over itself on a disk that loses its power: the old one or the new one is whole, and what is not weights stays.
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { Disk } from '../../../tools/power_loss/disk.ts';
import { Draw } from '../../../tools/power_loss/draw.ts';
import { isLomoError } from '@lomo/tensor';
import { createModel, initialise, loadModel, observeFiles, saveModel } from '../src/index.ts';
import type { Files, JsonObject, LanguageModel } from '../src/index.ts';
import { temporary } from './folders.ts';
import { referenceDevice } from './run.ts';

const json: JsonObject = { architectures: ['LlamaForCausalLM'], model_type: 'llama', vocab_size: 19, hidden_size: 8, intermediate_size: 12, num_hidden_layers: 1, num_attention_heads: 2, tie_word_embeddings: true };
const device = referenceDevice();
const first = Date.now() % 1e6;

class PowerLoss extends Error {}

const norm = async (model: LanguageModel): Promise<string> => (await device.readNumbers(model.parameters[0]!)).slice(0, 4).join();

/** The number of a version, from what loads in `folder`; null where nothing whole is. */
async function versionIn(folder: string, files: Files, versions: readonly string[]): Promise<number | null> {
  if ((await files.facts(folder)) === null) return null;
  try {
    using model = await loadModel(folder, device, { files });
    const found = versions.indexOf(await norm(model));
    return found < 0 ? null : found;
  } catch (error) {
    if (isLomoError(error)) return null;
    throw error;
  }
}

test(`40 power losses while a model replaces its own source (seeds from ${first})`, async () => {
  const source = join(await temporary(), 'model');
  using model = createModel(json, device);
  initialise(model, 1);
  await saveModel(model, source);
  await writeFile(join(source, 'notes.txt'), 'kept');
  const versions = [await norm(model)];
  initialise(model, 2);
  versions.push(await norm(model));
  let [replaced, kept] = [0, 0];
  for (let seed = first; seed < first + 40; seed++) {
    const draw = new Draw(seed);
    const disk = new Disk();
    disk.import(source);
    let calls = draw.below(110);
    const files = observeFiles(disk.files, () => {
      if (--calls < 0) throw new PowerLoss();
    });
    const isDone = await saveModel(model, source, { from: source, files }).then(() => true, () => false);
    const after = observeFiles(disk.afterPowerLoss(draw).files, () => {});
    const [found, previous] = [await versionIn(source, after, versions), await versionIn(`${source}.previous`, after, versions)];
    const at = `seed ${seed}`;
    if (isDone) expect(found, at).toBe(1);
    else expect(found !== null || previous === 0, at).toBe(true);
    // A file that is not weights lies in the one or the other, whatever happened in between.
    expect([await after.facts(join(source, 'notes.txt')), await after.facts(join(`${source}.previous`, 'notes.txt'))].some((facts) => facts !== null), at).toBe(true);
    if (found === 1) replaced++;
    else kept++;
  }
  expect(replaced).toBeGreaterThan(0);
  expect(kept).toBeGreaterThan(0);
});
