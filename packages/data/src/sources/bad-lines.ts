// What happens to a line that cannot be used: stop with its place, or skip it and keep count.
import { DataError } from '../errors.ts';

/** `fail` stops at the first bad line; `skip` leaves bad lines out and counts them. */
export type OnBadLine = 'fail' | 'skip';

/** Counts the bad lines of one source, and throws at the first when the mode is `fail`. */
export class BadLines {
  /** Bad lines left out so far. */
  count = 0;
  /** The first ten of them, as `path:line: what is wrong`. */
  readonly first: string[] = [];
  private readonly path: string;
  private readonly mode: OnBadLine;

  constructor(path: string, mode: OnBadLine) {
    this.path = path;
    this.mode = mode;
  }

  /** Records one bad line; throws DataError BadLine, `path:line: what is wrong, what is expected`, when the mode is `fail`. */
  add(line: number, problem: string): void {
    const message = `${this.path}:${line}: ${problem}`;
    if (this.mode === 'fail') {
      throw new DataError('BadLine', `${message}. Correct the line, or set onBadLine: 'skip' to leave such lines out and count them`, { path: this.path, line });
    }
    this.count += 1;
    if (this.first.length < 10) this.first.push(message);
  }
}
