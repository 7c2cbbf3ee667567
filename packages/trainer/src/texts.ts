// Held-out quality as a person counts it: completions generated for held-out prompts, equal to the reference or not.
import type { Dataset, Tokenizer } from '@lomo/data';
import type { LanguageModel } from '@lomo/models';
import { generate } from '@lomo/models';

/** Tokens of a generated text at most, for planning. */
export const freshTokens = 64;

/** A prompt, what should follow, and what the model wrote. */
export interface Completion {
  /** 'test.jsonl:3' */
  readonly where: string;
  readonly prompt: string;
  readonly expected: string;
  readonly written: string;
  readonly exact: boolean;
}

/** Splits a sample at its first trained token: what is given, and what should follow without the end-of-text token. */
export function splitSample(dataset: Dataset, index: number, eosId: number | null): { readonly prompt: readonly number[]; readonly expected: readonly number[] } {
  const { ids, trained } = dataset.at(index);
  const first = trained.indexOf(1);
  const at = first < 0 ? ids.length : first;
  const expected = [...ids.subarray(at)];
  if (expected.at(-1) === eosId) expected.pop();
  return { prompt: [...ids.subarray(0, at)], expected };
}

/** Greedy completions for the first `count` samples of `dataset`, one by one. */
export async function* complete(
  model: LanguageModel,
  tokenizer: Tokenizer,
  options: { readonly dataset: Dataset; readonly count: number; readonly maxNewTokens: number; readonly signal?: AbortSignal },
): AsyncGenerator<Completion, void> {
  const { dataset, count, maxNewTokens, signal } = options;
  const { eosId } = tokenizer;
  for (let index = 0; index < Math.min(count, dataset.length) && signal?.aborted !== true; index++) {
    const { prompt, expected } = splitSample(dataset, index, eosId);
    const written: number[] = [];
    const room = Math.min(maxNewTokens, expected.length + 8);
    const stop = eosId === null ? model.config.eosIds : [...model.config.eosIds, eosId];
    for await (const id of generate(model, prompt, { maxNewTokens: room, stop, ...(signal === undefined ? {} : { signal }) })) written.push(id);
    const exact = written.length === expected.length && written.every((id, i) => id === expected[i]);
    const [shownPrompt, shownExpected, shownWritten] = await Promise.all([prompt, expected, written].map((ids) => text(tokenizer, ids)));
    yield { where: dataset.where(index), prompt: shownPrompt!, expected: shownExpected!, written: shownWritten!, exact };
  }
}

async function text(tokenizer: Tokenizer, ids: readonly number[]): Promise<string> {
  return ids.length === 0 ? '' : tokenizer.decode([...ids], { skipSpecialTokens: true });
}
