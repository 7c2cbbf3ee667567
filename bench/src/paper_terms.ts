// What the LOMO paper (arXiv 2306.09782v2) prints about LLaMA-7B, in GiB though it writes GB, and the sizes that its terms come from.

/** Numbers of LLaMA-7B. */
export const parameters7b = 6_738_415_616;

const gibibyte = 2 ** 30;

/** GiB of all weights in 16 bit, and of the largest one: the vocabulary's, 32000 x 4096. */
export const smallest = { weights: (2 * parameters7b) / gibibyte, largest: (2 * 32000 * 4096) / gibibyte } as const;

/** A row of table 1: totals without and with activation checkpointing; the terms that do not depend on it. */
export interface PublishedRule {
  readonly kept: number;
  readonly recomputed: number;
  readonly gradients: number;
  readonly states: number;
}

/** Table 1 (sequence 512, batch 8), and of table 2 (sequence 1024, one row) what the abstract's share is made of. */
export const published = {
  adamw: { kept: 147.02, recomputed: 102.2, gradients: 12.55, states: 75.31 },
  sgd: { kept: 96.81, recomputed: 51.99, gradients: 12.55, states: 25.1 },
  lomo: { kept: 59.4, recomputed: 14.58, gradients: 0.24, states: 0 },
  /** LOMO with checkpointing on one card. */
  oneRow: 13.61,
  /** AdamW with ZeRO-3: bytes a number over all cards are weights 2, gradients 2, f32 copy and moments 12. */
  standard: { perCard: 15.76, cards: 8, bytesPerParameter: 16 },
} as const satisfies Readonly<Record<string, PublishedRule | number | object>>;
