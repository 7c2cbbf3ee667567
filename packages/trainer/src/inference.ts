// A model opened to be read, not trained: evaluation and text, without an optimizer's bytes.
import type { Tokenizer } from '@lomo/data';
import { openTokenizer } from '@lomo/data';
import type { LanguageModel, ModelFamily } from '@lomo/models';
import { builtInFamilies, createModel, generate, nodeFiles, readConfig } from '@lomo/models';
import type { BatchShape, ByteStore, MemoryPlan } from '@lomo/parallel';
import { makePlan, Program, Residency } from '@lomo/parallel';
import type { Backend, Device, DType } from '@lomo/tensor';
import { dryStore, emptyBatch } from './assemble.ts';
import { reserveFor } from './reserve.ts';
import { loadChecked } from './restore.ts';
import type { ScratchFile } from './scratch_file.ts';
import { openStreamFile } from './scratch_files.ts';

export interface InferenceOptions {
  readonly backend: Backend;
  readonly dtype?: DType;
  readonly families?: readonly ModelFamily[];
  /** Longest text: prompt and new tokens. */
  readonly text: { readonly prompt: number; readonly fresh: number };
  /** Shape of evaluation batches, where losses are wanted. */
  readonly batch?: BatchShape;
  /** For a model larger than memory: weights are put into a nameless file in this folder and come from there stage by stage; equal bits. */
  readonly streamDir?: string;
}

export interface OpenedModel extends AsyncDisposable {
  readonly model: LanguageModel;
  readonly tokenizer: Tokenizer;
  readonly plan: MemoryPlan;
  /** Null unless a batch shape was given. */
  readonly program: Program | null;
}

/** Opens a Hugging Face folder; where it is a checkpoint, every file but the optimizer's state is compared with its manifest. Reserves what one evaluation and one text of the given lengths need, no more. */
export async function openModel(folder: string, options: InferenceOptions): Promise<OpenedModel> {
  const { backend, text, batch, streamDir } = options;
  const json = await readConfig(folder);
  const families = [...(options.families ?? []), ...builtInFamilies];
  const assemble = (device: Device, store: ByteStore | null) => {
    const maxLength = Math.max(text.prompt + text.fresh, batch?.maxLength ?? 0);
    const model = createModel(json, device, { families, dtype: options.dtype ?? 'f32', maxLength, away: store !== null });
    const residency = store === null ? null : new Residency(device, model, store);
    model.residence = residency;
    const program = batch === undefined ? null : new Program(device, model, { ...batch, microBatches: 1, ...(residency === null ? {} : { residency }) });
    return { model, program, streamed: residency?.bytes ?? 0 };
  };
  let streamed = 0;
  const plan = await makePlan(backend, function* (device) {
    let made: ReturnType<typeof assemble> | null = null;
    const parts = () => (made ??= assemble(device, streamDir === undefined ? null : dryStore));
    yield { name: 'setup', run: () => void ({ streamed } = parts()) };
    if (batch !== undefined) {
      yield {
        name: 'evaluate',
        run: async () => {
          await parts().program?.evaluate([emptyBatch(batch.tokens, batch.maxSegments)]);
        },
      };
    }
    yield {
      name: 'generate',
      run: async () => {
        let left = 2;
        const prompt = Array.from({ length: Math.max(1, text.prompt) }, () => 0);
        for await (const _ of generate(parts().model, prompt, { maxNewTokens: Math.max(2, text.fresh), stop: [] })) if (--left === 0) break;
      },
    };
  });
  const less = [...((options.dtype ?? 'f32') === 'f32' ? ['dtype bf16: weights in half the bytes'] : []), ...(streamDir === undefined ? ['stream-dir FOLDER: weights come stage by stage from a file there'] : [])];
  const tokenizer = await openTokenizer(folder);
  let file: ScratchFile | null = null;
  let device: Device | null = null;
  const close = async (): Promise<void> => {
    await tokenizer.close();
    await file?.[Symbol.asyncDispose]();
    device?.free();
  };
  try {
    if (streamDir !== undefined) file = await openStreamFile(streamDir, { files: nodeFiles, bytes: streamed });
    const { model, program } = assemble((device = await reserveFor(backend, plan, () => less)), file);
    await loadChecked(model, folder);
    return { model, program, tokenizer, plan, [Symbol.asyncDispose]: close };
  } catch (error) {
    await close();
    throw error;
  }
}
