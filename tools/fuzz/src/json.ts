// The strict JSON parser against the engine's own: what it accepts it reads alike, and it refuses no more than it says.
import { isLomoError } from '@lomo/tensor';
import { parseJson } from '@lomo/models';
import type { Outcome, Target } from './target.ts';
import { outcomeOf, promise } from './target.ts';
import { anything, damage, print } from './texts.ts';

/** What the parser refuses and JSON.parse does not. */
const stricter = /duplicate key|nested deeper than|more than \d+ (values|arrays and objects)|lone surrogate/;

/** Any JSON, whole and damaged. */
export const json: Target = {
  name: 'json',
  make: (dice) => {
    let bytes: Uint8Array = new TextEncoder().encode(print(anything(dice, 1 + dice.below(5)), dice));
    if (!dice.oneIn(4)) for (let n = dice.oneIn(3) ? 3 : 1; n > 0; n--) bytes = damage(bytes, dice);
    return { bytes, run: () => compared(bytes) };
  },
};

function compared(bytes: Uint8Array): Outcome {
  let mine: unknown;
  let error: unknown;
  const outcome = outcomeOf(() => {
    try {
      mine = parseJson(bytes, 'x.json');
    } catch (caught) {
      error = caught;
      throw caught;
    }
  }, ['CorruptJson']);
  let theirs: { readonly value: unknown } | null = null;
  try {
    const text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
    theirs = { value: JSON.parse(text.replace(/^\ufeff/, '')) };
  } catch {
    theirs = null;
  }
  if (outcome === 'accepted') {
    promise(theirs !== null, () => 'accepted what JSON.parse refuses');
    promise(JSON.stringify(mine) === JSON.stringify(theirs!.value), () => 'read otherwise than JSON.parse');
  } else {
    promise(theirs === null || (isLomoError(error) && stricter.test(error.message)), () => `refused what JSON.parse reads: ${String(error)}`);
  }
  return outcome;
}
