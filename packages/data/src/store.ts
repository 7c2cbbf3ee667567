// The tokenized samples, in memory: 5 bytes a token, and where each came from.
import { createHash } from 'node:crypto';
import { countTargets } from './mask.ts';
import type { Work } from './turns.ts';

/** One sample: views into the store, not to be written. */
export interface Sample {
  /** Its place in the dataset, from 0, in the order of the files. */
  readonly index: number;
  readonly ids: Int32Array;
  /** For each token 1 where it may be a target, else 0; the first is always 0. */
  readonly trained: Uint8Array;
  /** `path:line` it came from. */
  readonly where: string;
}

/** Grows by doubling; `at` is O(1). */
export class SampleStore {
  private ids = new Int32Array(1 << 14);
  private trained = new Uint8Array(1 << 14);
  private readonly starts: number[] = [0];
  private readonly sources: number[] = [];
  private readonly lines: number[] = [];
  private readonly targetCounts: number[] = [];
  private readonly paths: string[] = [];

  /** Number of samples. */
  get length(): number { return this.sources.length; }

  /** Number of tokens of all samples. */
  get tokens(): number { return this.starts.at(-1) ?? 0; }

  /** Registers a file, to be named by `add`. */
  addPath(path: string): number { return this.paths.push(path) - 1; }

  add(ids: Int32Array, trained: Uint8Array, place: { readonly path: number; readonly line: number }): void {
    const end = this.tokens + ids.length;
    if (end > this.ids.length) {
      const size = Math.max(end, this.ids.length * 2);
      const [grownIds, grownTrained] = [new Int32Array(size), new Uint8Array(size)];
      grownIds.set(this.ids);
      grownTrained.set(this.trained);
      this.ids = grownIds;
      this.trained = grownTrained;
    }
    this.ids.set(ids, this.tokens);
    this.trained.set(trained, this.tokens);
    this.starts.push(end);
    this.sources.push(place.path);
    this.lines.push(place.line);
    this.targetCounts.push(countTargets(trained));
  }

  /** Sample `index`; the caller has checked the range. */
  at(index: number): Sample {
    const [start, end] = [this.starts[index] ?? 0, this.starts[index + 1] ?? 0];
    return { index, ids: this.ids.subarray(start, end), trained: this.trained.subarray(start, end), where: `${this.paths[this.sources[index] ?? 0] ?? ''}:${this.lines[index] ?? 0}` };
  }

  /** Tokens of each sample. */
  lengths(): Int32Array {
    const lengths = new Int32Array(this.length);
    for (let i = 0; i < lengths.length; i += 1) lengths[i] = (this.starts[i + 1] ?? 0) - (this.starts[i] ?? 0);
    return lengths;
  }

  /** Targets of each sample. */
  targets(): Int32Array { return Int32Array.from(this.targetCounts); }

  /** SHA-256 over ids, masks and lengths, in hex: equal exactly when the samples are. A second a gigabyte, in turns. */
  *fingerprint(): Work<string> {
    const hash = createHash('sha256');
    for (const bytes of [new Uint8Array(this.ids.buffer, 0, this.tokens * 4), this.trained.subarray(0, this.tokens), new Uint8Array(Float64Array.from(this.starts).buffer)]) {
      for (let at = 0; at < bytes.byteLength; at += hashed) {
        hash.update(bytes.subarray(at, at + hashed));
        yield;
      }
    }
    return hash.digest('hex');
  }
}

/** Bytes hashed between two places to stop at: some milliseconds. */
const hashed = 2 ** 22;
