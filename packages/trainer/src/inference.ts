// A model opened to be read, not trained: evaluation and text, without an optimizer's bytes.
import type { Tokenizer } from '@lomo/data';
import { openTokenizer } from '@lomo/data';
import type { LanguageModel, ModelFamily } from '@lomo/models';
import { builtInFamilies, createModel, generate, readConfig } from '@lomo/models';
import type { BatchShape, MemoryPlan } from '@lomo/parallel';
import { makePlan, Program } from '@lomo/parallel';
import type { Backend, DType } from '@lomo/tensor';
import { Device } from '@lomo/tensor';
import { emptyBatch } from './assemble.ts';
import { loadChecked } from './restore.ts';

export interface InferenceOptions {
  readonly backend: Backend;
  readonly dtype?: DType;
  readonly families?: readonly ModelFamily[];
  /** Longest text: prompt and new tokens. */
  readonly text: { readonly prompt: number; readonly fresh: number };
  /** Shape of evaluation batches, where losses are wanted. */
  readonly batch?: BatchShape;
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
  const { backend, text, batch } = options;
  const json = await readConfig(folder);
  const families = [...(options.families ?? []), ...builtInFamilies];
  const assemble = (device: Device) => {
    const maxLength = Math.max(text.prompt + text.fresh, batch?.maxLength ?? 0);
    const model = createModel(json, device, { families, dtype: options.dtype ?? 'f32', maxLength });
    return { model, program: batch === undefined ? null : new Program(device, model, { ...batch, microBatches: 1 }) };
  };
  const plan = await makePlan(backend, function* (device) {
    let made: ReturnType<typeof assemble> | null = null;
    const parts = () => (made ??= assemble(device));
    yield { name: 'setup', run: () => void parts() };
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
  const tokenizer = await openTokenizer(folder);
  const device = new Device(backend, { bytes: plan.extent });
  const close = async (): Promise<void> => {
    await tokenizer.close();
    device.free();
  };
  try {
    const made = assemble(device);
    await loadChecked(made.model, folder);
    return { ...made, tokenizer, plan, [Symbol.asyncDispose]: close };
  } catch (error) {
    await close();
    throw error;
  }
}
