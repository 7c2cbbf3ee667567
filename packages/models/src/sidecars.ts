// What travels with a model besides its weights: configuration, tokenizer, templates, licence.
import { join } from 'node:path';
import { confinement } from './checkpoint.ts';
import type { Files } from './files.ts';

const weightFile = /\.(safetensors|bin|pt|pth|ckpt|gguf|ggml|h5|msgpack|onnx|npz)(\.index\.json)?$/i;

/** True for names that hold weights in some format. */
export function isWeights(name: string): boolean {
  return weightFile.test(name);
}

/** Names of the files in a model's folder that travel with it: everything but weights, hidden files and folders. */
export async function sidecarsOf(files: Files, folder: string): Promise<readonly string[]> {
  const isInside = await confinement(files, folder);
  const names: string[] = [];
  for (const name of await files.list(folder)) {
    if (name.startsWith('.') || isWeights(name)) continue;
    const path = join(folder, name);
    if ((await files.facts(path))?.kind === 'folder') continue;
    await isInside(path);
    names.push(name);
  }
  return names;
}
