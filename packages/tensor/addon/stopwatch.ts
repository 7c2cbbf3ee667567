// When an addon's device did what, on the clock of performance.now().
import type { Stopwatch, TimedWork } from '../src/index.ts';
import type { NativeVerbs } from './native.ts';
import { translate } from './native.ts';

/** By the numbers of the native CommandKind; what is not among them is housekeeping. */
const kinds: readonly (TimedWork['kind'] | undefined)[] = ['launch', 'copy', 'write', 'read'];

/** The stopwatch of a native backend: its device notes laps, into a ring reserved at `start`. */
export class AddonStopwatch implements Stopwatch {
  private readonly native: Pick<NativeVerbs, 'time' | 'timed'>;
  private origin = 0;

  constructor(native: Pick<NativeVerbs, 'time' | 'timed'>) {
    this.native = native;
  }

  start(capacity: number): void {
    try {
      this.native.time(capacity);
    } catch (error) {
      throw translate(error);
    }
    this.origin = performance.now();
  }

  async stop(): Promise<{ readonly work: readonly TimedWork[]; readonly lost: number }> {
    let laps: Float64Array;
    try {
      laps = this.native.timed();
    } catch (error) {
      throw translate(error);
    }
    const work: TimedWork[] = [];
    for (let i = 1; i < laps.length; i += 4) {
      const kind = kinds[laps[i]!];
      if (kind !== undefined) work.push({ kind, ticket: laps[i + 1]!, start: this.origin + laps[i + 2]!, end: this.origin + laps[i + 3]! });
    }
    return { work, lost: laps[0]! };
  }
}
