// Which algorithms of cuBLASLt multiply: what was chosen, as data that a run keeps so that a resumed one has the same bits.
import type { Facts } from './native.ts';

/** The algorithm of one class of products: all those with the same n, k, layout, dtypes and alignment, however many rows. */
export interface ProductAlgorithm {
  /** 'n 4096 k 1024 ldb 4096 ta bf16 -> f32 by 16'. */
  readonly product: string;
  /** The library's own description, in hexadecimal digits. */
  readonly algorithm: string;
  /** Of one product of 2048 rows where it was measured, else 0. */
  readonly microseconds: number;
  /** How many were measured. */
  readonly candidates: number;
  /** Numbers of rows that this algorithm does not do; the library's first choice for them does. */
  readonly notFor: readonly number[];
}

/** Everything chosen so far; JSON. Valid for this library on this kind of GPU. */
export interface Algorithms {
  /** 'cuBLASLt 13.0.2'. */
  readonly library: string;
  /** 'NVIDIA H100 80GB HBM3, sm_90'. */
  readonly gpu: string;
  readonly products: readonly ProductAlgorithm[];
}

/** The library and the GPU that algorithms chosen here are valid for. */
export function chooser({ name, architecture, libraries }: Facts): Pick<Algorithms, 'library' | 'gpu'> {
  const library = libraries.find((one) => one.name === 'cuBLASLt');
  return { library: `cuBLASLt ${library?.version ?? 'unknown'}`, gpu: `${name}, ${architecture}` };
}

/** Why recorded algorithms are not valid here, as a line to print; null where they are. */
export function mismatch(recorded: Algorithms, here: Pick<Algorithms, 'library' | 'gpu'>): string | null {
  if (recorded.library === here.library && recorded.gpu === here.gpu) return null;
  return `the recorded algorithms of products are of ${recorded.library} on ${recorded.gpu}, here are ${here.library} on ${here.gpu}: they are chosen anew, so results may differ in their last bits`;
}
