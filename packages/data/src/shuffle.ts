// The order of an epoch: a seeded Fisher-Yates shuffle, a pure function of (seed, epoch, length).
import { atOnce } from './turns.ts';
import type { Work } from './turns.ts';

/** A permutation of 0 .. length - 1; `seed` and `epoch` are whole numbers from 0 to 2^53 - 1. */
export function shuffledOrder(length: number, seed: number, epoch: number): Int32Array {
  return atOnce(shuffling(length, seed, epoch));
}

/** Swaps between two places to stop at: less than a millisecond. */
const stretch = 16_384;

/** The same as work to be done in turns. */
export function* shuffling(length: number, seed: number, epoch: number): Work<Int32Array> {
  const order = fileOrder(length);
  const draw = generator(seed, epoch);
  for (let i = length - 1; i > 0; i -= 1) {
    const j = below(draw, i + 1);
    const moved = order[i] ?? 0;
    order[i] = order[j] ?? 0;
    order[j] = moved;
    if (i % stretch === 0) yield;
  }
  return order;
}

/** 0 .. length - 1: the order of the files. */
export function fileOrder(length: number): Int32Array {
  const order = new Int32Array(length);
  for (let i = 0; i < length; i += 1) order[i] = i;
  return order;
}

/** sfc32 (Doty-Humphrey's small fast counting generator), seeded with both halves of `seed` and `epoch`. */
function generator(seed: number, epoch: number): () => number {
  const high = (n: number): number => Math.floor(n / 2 ** 32) | 0;
  let a = seed | 0;
  let b = epoch | 0;
  let c = high(seed) ^ Math.imul(high(epoch), 0x9e3779b1);
  let counter = 1;
  const next = (): number => {
    const result = (a + b + counter) | 0;
    counter = (counter + 1) | 0;
    a = b ^ (b >>> 9);
    b = (c + (c << 3)) | 0;
    c = (((c << 21) | (c >>> 11)) + result) | 0;
    return result >>> 0;
  };
  // Nearby seeds differ in a few bits; after twenty rounds every output bit depends on all of them.
  for (let i = 0; i < 20; i += 1) next();
  return next;
}

/** Uniform below n, by rejection, without modulo bias. */
function below(draw: () => number, n: number): number {
  const limit = 2 ** 32 - (2 ** 32 % n);
  let value = draw();
  while (value >= limit) value = draw();
  return value % n;
}
