// Writes a model as a Hugging Face folder that transformers loads: weights anew, config.json saying their type, everything else byte for byte.
import { createHash } from 'node:crypto';
import { basename, dirname, join, resolve } from 'node:path';
import { LomoError } from '@lomo/tensor';
import { configSaying } from './config/saved.ts';
import { configLimit, configName } from './family.ts';
import type { Files } from './files.ts';
import { closing, ensureFolder, nodeFiles, readFully, readWhole, writeFully, writeWhole } from './files.ts';
import type { LanguageModel } from './languageModel.ts';
import type { RealDiskType } from './safetensors/diskType.ts';
import { diskTypeOf } from './safetensors/diskType.ts';
import type { TensorSource, WrittenFile } from './safetensors/write.ts';
import { writeShards } from './safetensors/write.ts';
import { isWeights, sidecarsOf } from './sidecars.ts';
import { modelSources } from './weights.ts';

export interface SaveModelOptions {
  /** The folder whose config.json, tokenizer and other small files go with the model. Without it, only config.json is written. */
  readonly from?: string;
  readonly files?: Files;
  /** Type on disk; the parameters' own unless given. */
  readonly dtype?: RealDiskType;
  readonly shardBytes?: number;
}

export interface WriteModelOptions extends SaveModelOptions {
  /** The weights, if not the ones that the model has now: a copy of earlier ones, in the types of `modelSources`. */
  readonly sources?: readonly TensorSource[];
}

/** Writes the model into an existing folder, config.json naming the type that its weights then have, and makes it durable; returns every file with its SHA-256. Replaces files of equal name in place. */
export async function writeModel(model: LanguageModel, folder: string, options: WriteModelOptions = {}): Promise<readonly WrittenFile[]> {
  const files = options.files ?? nodeFiles;
  const sources = options.sources ?? modelSources(model, options.dtype);
  const dtype = options.dtype ?? diskTypeOf(model.parameters[0]!.dtype);
  const written: WrittenFile[] = [];
  if (options.from === undefined) {
    const bytes = new TextEncoder().encode(`${JSON.stringify(model.config.source, null, 2)}\n`);
    written.push(await writeConfig(files, { folder, bytes, dtype }));
  } else {
    for (const name of await sidecarsOf(files, options.from)) {
      const from = join(options.from, name);
      if (name === configName) written.push(await writeConfig(files, { folder, bytes: await readWhole(files, from, configLimit), dtype }));
      else written.push(await copyFile(files, { from, to: join(folder, name) }));
    }
  }
  written.push(...(await writeShards(folder, sources, { files, ...(options.shardBytes === undefined ? {} : { shardBytes: options.shardBytes }) })));
  await files.syncFolder(folder);
  return written;
}

/**
 * Writes the model to `folder`, which afterwards is the new model, durably, or, after a failed call, a whole one: everything is written to
 * `<folder>.partial` first and renamed. The folder may be `options.from` itself; any other folder must be absent or empty
 * ('FolderNotEmpty'). A crash between the two renames of a replacement leaves the old model in `<folder>.previous`.
 */
export async function saveModel(model: LanguageModel, folder: string, options: SaveModelOptions = {}): Promise<readonly WrittenFile[]> {
  const files = options.files ?? nodeFiles;
  const facts = await files.facts(folder);
  const target = facts === null ? resolve(folder) : await files.resolve(folder);
  const kept = facts === null ? [] : await files.list(target);
  const isSource = options.from !== undefined && facts !== null && (await files.resolve(options.from)) === target;
  if (kept.length > 0 && !isSource) throw new LomoError('FolderNotEmpty', `${folder} is not empty; choose another output folder or remove it`, { path: folder });
  if ((await files.facts(previousOf(target))) !== null) {
    throw new LomoError('LeftoverFolder', `${previousOf(target)} is left from an interrupted save; move what you need out of it, then remove it`, { path: previousOf(target) });
  }
  const partial = `${target}.partial`;
  await ensureFolder(files, dirname(target));
  await files.remove(partial);
  await files.makeFolder(partial);
  try {
    const written = await writeModel(model, partial, { ...options, files });
    await swap(files, { target, partial, exists: facts !== null });
    const replaced = new Set(written.map((w) => w.name));
    const previous = previousOf(target);
    const moved = kept.filter((name) => !replaced.has(name) && !isWeights(name));
    for (const name of moved) await files.rename(join(previous, name), join(target, name));
    if (moved.length > 0) await files.syncFolder(target);
    await files.syncFolder(dirname(target));
    await files.remove(previous);
    return written;
  } catch (error) {
    // Best effort: the error at hand matters more than what a full disk leaves behind.
    await files.remove(partial).catch(() => {});
    throw error;
  }
}

function previousOf(target: string): string {
  return `${target}.previous`;
}

/** Puts `partial` in the place of `target`, whose old content goes to `<target>.previous`. A failure leaves `target` as it was. */
async function swap(files: Files, paths: { readonly target: string; readonly partial: string; readonly exists: boolean }): Promise<void> {
  const { target, partial, exists } = paths;
  if (exists) await files.rename(target, previousOf(target));
  try {
    // Else a power loss could keep the second rename alone, and the old model would have no name.
    if (exists) await files.syncFolder(dirname(target));
    await files.rename(partial, target);
  } catch (error) {
    if (exists) await files.rename(previousOf(target), target);
    throw error;
  }
}

async function writeConfig(files: Files, { folder, bytes, dtype }: { readonly folder: string; readonly bytes: Uint8Array; readonly dtype: RealDiskType }): Promise<WrittenFile> {
  const path = join(folder, configName);
  const said = configSaying(bytes, dtype, path);
  await writeWhole(files, path, said);
  return { name: configName, bytes: said.byteLength, sha256: createHash('sha256').update(said).digest('hex') };
}

async function copyFile(files: Files, paths: { readonly from: string; readonly to: string }): Promise<WrittenFile> {
  return closing(await files.open(paths.from, 'read'), async (source) =>
    closing(await files.open(paths.to, 'write'), async (target) => {
      const hash = createHash('sha256');
      const buffer = new Uint8Array(2 ** 20);
      let at = 0;
      for (;;) {
        const n = await readFully(source, buffer, at);
        const bytes = buffer.subarray(0, n);
        await writeFully(target, bytes, at);
        hash.update(bytes);
        at += n;
        if (n < buffer.byteLength) break;
      }
      await target.sync();
      return { name: basename(paths.to), bytes: at, sha256: hash.digest('hex') };
    }),
  );
}
