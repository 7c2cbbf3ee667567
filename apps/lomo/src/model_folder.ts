// A model's folder, told from the output folder of a run, which holds such folders.
import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { LomoError } from '@lomo/tensor';
import { listCheckpoints } from '@lomo/trainer';

/** Throws NotAModel, naming the newest checkpoint, where `folder` is the output folder of a run. What else may be wrong with it is found by whoever reads it. */
export async function expectModel(folder: string): Promise<void> {
  const isModel = await stat(join(folder, 'config.json')).then(() => true, () => false);
  if (isModel || (await stat(folder).catch(() => null))?.isDirectory() !== true) return;
  const newest = (await listCheckpoints(folder))[0];
  if (newest === undefined) return;
  throw new LomoError('NotAModel', `${folder} is the folder of a run, not a model: it holds checkpoints, the newest of them ${newest.path}. Give that one`, { path: folder, newest: newest.path });
}
