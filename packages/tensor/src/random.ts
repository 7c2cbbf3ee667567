// A seeded source of random shapes and values for samples and tests.
import { philox } from './philox.ts';

/** Everything it gives is a pure function of its seed and of how often it was asked. */
export class Random {
  private readonly seed: number;
  private drawn = 0;

  constructor(seed: number) {
    this.seed = seed >>> 0;
  }

  /** Uniform in (0, 1). */
  uniform(): number {
    return (philox([this.seed, 0], [this.drawn++, 0, 0, 0])[0] + 0.5) / 2 ** 32;
  }

  /** An integer in [low, high]. */
  int(low: number, high: number): number {
    return low + Math.floor(this.uniform() * (high - low + 1));
  }

  pick<T>(choices: readonly [T, ...T[]]): T {
    return choices[this.int(0, choices.length - 1)] ?? choices[0];
  }

  /** `count` values of a normal distribution. */
  normal(count: number, std = 1, mean = 0): Float64Array {
    return Float64Array.from({ length: count }, () => mean + std * Math.sqrt(-2 * Math.log(this.uniform())) * Math.cos(2 * Math.PI * this.uniform()));
  }

  /** `count` integers in [0, below). */
  ints(count: number, below: number): Float64Array {
    return Float64Array.from({ length: count }, () => this.int(0, below - 1));
  }
}
