// lomo generate: text from a model's folder.
import { generate as generateIds } from '@lomo/models';
import type { DType } from '@lomo/tensor';
import { openModel } from '@lomo/trainer';
import type { BackendName } from '../backends.ts';
import { openBackend } from '../backends.ts';
import { expectModel } from '../model_folder.ts';
import { loadPlugins } from '../plugins.ts';

export interface GenerateFlags {
  readonly prompt: string;
  readonly maxNewTokens: number;
  readonly temperature: number;
  readonly topK: number;
  readonly topP: number;
  readonly seed: number;
  /** Modules that bring model families. */
  readonly plugin: readonly string[];
  readonly threads?: number;
  readonly backend: BackendName;
  /** Which GPU, with backend cuda. */
  readonly gpu?: number;
  readonly dtype: DType;
  /** Folder of the file that weights come from stage by stage, for a model larger than memory. */
  readonly streamDir?: string;
}

/** Writes what follows the prompt, as it is made. */
export async function generate(folder: string, flags: GenerateFlags): Promise<void> {
  await expectModel(folder);
  const { families, ops } = await loadPlugins(flags.plugin);
  const { backend } = await openBackend(flags.backend, { threads: flags.threads, gpu: flags.gpu, ops });
  const { openTokenizer } = await import('@lomo/data');
  const tokenizer = await openTokenizer(folder);
  const prompt = [...(await tokenizer.encode(flags.prompt))];
  await tokenizer.close();
  await using opened = await openModel(folder, { backend, families, dtype: flags.dtype, ...(flags.streamDir === undefined ? {} : { streamDir: flags.streamDir }), text: { prompt: prompt.length, fresh: flags.maxNewTokens } });
  const { maxNewTokens, temperature, topK, topP, seed } = flags;
  const ids: number[] = [];
  let shown = '';
  process.stdout.write(flags.prompt);
  const given = await opened.tokenizer.decode(prompt, { skipSpecialTokens: true });
  for await (const id of generateIds(opened.model, prompt, { maxNewTokens, temperature, topK, topP, seed })) {
    ids.push(id);
    // Decoded with what came before: a piece alone may lose its space, or be half a character.
    const all = (await opened.tokenizer.decode([...prompt, ...ids], { skipSpecialTokens: true })).slice(given.length);
    if (all.endsWith('\uFFFD')) continue;
    process.stdout.write(all.slice(shown.length));
    shown = all;
  }
  process.stdout.write('\n');
}
