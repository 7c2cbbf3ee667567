// A section of a golden folder: a kind of file and how it is checked. The checker knows nothing but this.
import type { Engine } from './engine.ts';
import type { GoldenFolder } from './folder.ts';
import type { Judge } from './judge.ts';
import type { Row } from './row.ts';

/** What a section works with. */
export interface Context {
  readonly folder: GoldenFolder;
  readonly engine: Engine;
  readonly judge: Judge;
  /** Most updates of a trajectory that are run; the rest is skipped visibly. */
  readonly steps: number;
}

/** One part of a folder. `rows` may throw: the caller reports a failed row under `name`. */
export interface Section {
  /** First part of its rows' names. */
  readonly name: string;
  rows(context: Context): AsyncGenerator<Row>;
}

/** Finds sections in a folder, from its files alone. */
export type Discover = (folder: GoldenFolder) => readonly Section[];
