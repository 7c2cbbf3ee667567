// Which tokens are trained: tokens of pieces are aligned with the ids of the whole text, then shifted into targets.
import type { Piece } from './template.ts';
import type { Tokenizer } from './tokenizer/tokenizer.ts';

/** The target of a position that is not trained. */
export const ignored = -100;

/** Ids of one example and, for each token, 1 where it may be a target. */
export interface MaskedIds {
  readonly ids: Int32Array;
  readonly trained: Uint8Array;
  /** A token joins characters of a masked and a trained piece; it is trained, and generation from the prompt alone would meet other tokens. */
  readonly straddles: boolean;
}

/** How masking treats inputs and ends. */
export interface MaskOptions {
  readonly trainOnInputs: boolean;
  /** Appended, with the mask of the last piece, unless the ids already end with it; null appends nothing. */
  readonly eosId: number | null;
}

/**
 * Encodes the pieces of many examples. The ids are those of the whole text, so that no boundary leaves a trace; a piece begins where the ids of
 * the text before it stop agreeing with the whole. The first token is never a target.
 */
export async function encodeExamples(examples: readonly (readonly Piece[])[], tokenizer: Tokenizer, options: MaskOptions): Promise<readonly MaskedIds[]> {
  const texts: string[] = [];
  const plans = examples.map((pieces) => {
    const whole = texts.push(pieces.map((piece) => piece.text).join('')) - 1;
    const cuts: { readonly text: number; readonly trained: boolean }[] = [];
    let before = '';
    pieces.forEach((piece, i) => {
      const previous = pieces[i - 1];
      if (!options.trainOnInputs && previous !== undefined && previous.trained !== piece.trained) cuts.push({ text: texts.push(before) - 1, trained: piece.trained });
      before += piece.text;
    });
    return { whole, cuts, first: options.trainOnInputs || (pieces[0]?.trained ?? false), last: options.trainOnInputs || (pieces.at(-1)?.trained ?? false) };
  });
  const rows = await tokenizer.encodeAll(texts);
  return plans.map((plan) => {
    const encoded = rows[plan.whole] ?? new Int32Array(0);
    const ends = options.eosId === null || encoded.at(-1) === options.eosId;
    const ids = new Int32Array(encoded.length + (ends ? 0 : 1));
    ids.set(encoded);
    if (!ends && options.eosId !== null) ids[encoded.length] = options.eosId;
    const trained = new Uint8Array(ids.length).fill(plan.first ? 1 : 0);
    let straddles = false;
    for (const cut of plan.cuts) {
      const before = withoutEnd(rows[cut.text] ?? new Int32Array(0), tokenizer.eosId);
      const at = commonLength(before, encoded);
      straddles ||= at < before.length;
      trained.fill(cut.trained ? 1 : 0, at);
    }
    if (!ends) trained[ids.length - 1] = plan.last ? 1 : 0;
    if (trained.length > 0) trained[0] = 0;
    return { ids, trained, straddles };
  });
}

/** Writes the targets of one sample at `at`: targets[at + t] = ids[t + 1] where that token is trained, else -100; -100 at its last token. Returns how many are trained. */
export function writeTargets(targets: Int32Array, at: number, sample: { readonly ids: Int32Array; readonly trained: Uint8Array }): number {
  const { ids, trained } = sample;
  let count = 0;
  for (let t = 0; t < ids.length; t += 1) {
    const next = ids[t + 1];
    const counts = next !== undefined && trained[t + 1] === 1;
    targets[at + t] = counts ? next : ignored;
    if (counts) count += 1;
  }
  return count;
}

/** How many targets a sample has: its trained tokens but the first. */
export function countTargets(trained: Uint8Array): number {
  let count = 0;
  for (let t = 1; t < trained.length; t += 1) count += trained[t] ?? 0;
  return count;
}

/** A text cut short still gets the end token that some tokenizers add by themselves; it is no part of the whole. */
function withoutEnd(ids: Int32Array, eosId: number | null): Int32Array {
  return eosId !== null && ids.at(-1) === eosId ? ids.subarray(0, -1) : ids;
}

function commonLength(a: Int32Array, b: Int32Array): number {
  let n = 0;
  while (n < a.length && n < b.length && a[n] === b[n]) n += 1;
  return n;
}
