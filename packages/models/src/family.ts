// A model family: what `model_type` names. An open list: callers add their own beside the built-in ones, nothing here knows them all.
import { join } from 'node:path';
import { LomoError } from '@lomo/tensor';
import type { ModelConfig } from './config/model.ts';
import { unsupported } from './config/fields.ts';
import type { Sums } from './confined.ts';
import { ConfinedFolder } from './confined.ts';
import type { Files } from './files.ts';
import { nodeFiles } from './files.ts';
import type { JsonObject } from './json.ts';
import { isJsonObject, parseJson } from './json.ts';

/** The model's description in its folder. */
export const configName = 'config.json';

/** The largest config.json that is read, bytes. */
export const configLimit = 16 * 2 ** 20;

/** How one `model_type` reads its config.json. */
export interface ConfigFamily<C = ModelConfig> {
  readonly modelType: string;
  /** Strict: LomoError 'UnsupportedConfig' for every field that is not understood. */
  parseConfig(json: JsonObject): C;
}

/** The family that `json` names. Throws LomoError 'UnsupportedConfig' listing the known ones. */
export function familyOf<F extends ConfigFamily<unknown>>(json: JsonObject, families: readonly F[]): F {
  const type = json['model_type'];
  const family = families.find((f) => f.modelType === type);
  if (family === undefined) throw unsupported('model_type', type, `known: ${families.map((f) => f.modelType).join(', ')}; add a family through plugins`);
  return family;
}

/** config.json of a Hugging Face folder as strict JSON: duplicate keys, links out of the folder, oversized files, and one that is not what `sums` says are refused. */
export async function readConfig(folder: string, files: Files = nodeFiles, sums?: Sums): Promise<JsonObject> {
  const inside = await ConfinedFolder.open(folder, { files, ...(sums === undefined ? {} : { sums }) });
  const path = join(folder, configName);
  const json = parseJson(await inside.read(configName, configLimit), path);
  if (!isJsonObject(json)) throw new LomoError('CorruptJson', `${path}: expected an object`, { path });
  return json;
}
