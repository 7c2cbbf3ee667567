// What a check says: one row a case, with the worst error and its bar, or why it was not checked.

/**
 * How the error of a row is measured; see `Comparison` for the first three. 'exact' counts the values that differ, 'units' is the largest
 * distance in units of the 16-bit dtype.
 */
export type Measure = 'max_abs' | 'max_rel' | 'rel_l2' | 'relative' | 'exact' | 'units';

/** One case. */
export interface Row {
  /** Path-like and unique in a folder: 'stories260k/trajectories/lomo/weights after 20'. */
  readonly name: string;
  readonly status: 'held' | 'missed' | 'skipped';
  /** Worst error; null where nothing could be compared. */
  readonly error: number | null;
  /** Largest error allowed. */
  readonly bar: number | null;
  readonly measure: Measure | null;
  /** Where the worst error is, why a case was skipped, or what failed. */
  readonly note: string;
}

/** A comparison against a bar; an error that is not a number misses. */
export function compared(name: string, facts: { readonly error: number; readonly bar: number; readonly measure: Measure; readonly note?: string }): Row {
  return { name, status: facts.error <= facts.bar ? 'held' : 'missed', error: facts.error, bar: facts.bar, measure: facts.measure, note: facts.note ?? '' };
}

/** Values that must be equal: `differences` names those that are not. */
export function exact(name: string, count: number, differences: readonly string[]): Row {
  if (count === 0) return failed(name, 'the file has no value to compare');
  const note = differences.length === 0 ? `${count} equal` : differences.slice(0, 3).join('; ');
  return compared(name, { error: differences.length, bar: 0, measure: 'exact', note });
}

/** A case that is not checked, with the reason. */
export function skipped(name: string, reason: string): Row {
  return { name, status: 'skipped', error: null, bar: null, measure: null, note: reason };
}

/** A case that could not be compared though it should have been. */
export function failed(name: string, reason: string): Row {
  return { name, status: 'missed', error: null, bar: null, measure: null, note: reason };
}
