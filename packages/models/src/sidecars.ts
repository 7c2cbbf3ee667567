// What travels with a model besides its weights: configuration, tokenizer, templates, licence.
import { join } from 'node:path';
import { ConfinedFolder } from './confined.ts';
import type { Files } from './files.ts';

const weightFile = /\.(safetensors|bin|pt|pth|ckpt|gguf|ggml|h5|msgpack|onnx|npz)(\.index\.json)?$/i;

/** True for names that hold weights in some format. */
export function isWeights(name: string): boolean {
  return weightFile.test(name);
}

/** Names of the files in a model's folder that travel with it: everything but weights, hidden files and folders. */
export async function sidecarsOf(files: Files, folder: string): Promise<readonly string[]> {
  const inside = await ConfinedFolder.open(folder, { files });
  const names: string[] = [];
  for (const name of await files.list(folder)) {
    if (name.startsWith('.') || isWeights(name)) continue;
    if ((await files.facts(join(folder, name)))?.kind === 'folder') continue;
    await inside.locate(name);
    names.push(name);
  }
  return names;
}
