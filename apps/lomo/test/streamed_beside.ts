// Steps of one model with weights that stay and weights that come from a file, taken in turn: how long they take, and how long the device waits.
import { cpu } from '@lomo/cpu';
import { initialiseAnywhere, nodeFiles } from '@lomo/models';
import { lomo } from '@lomo/optim';
import { openStreamFile } from '@lomo/trainer';
import { cut, small, smallSeed } from './small.ts';

/** Of one way, medians over the rounds. */
export interface Measured {
  readonly milliseconds: number;
  /** Share of a step in which the device worked on nothing. */
  readonly idle: number;
}

const config = { hidden_size: 768, intermediate_size: 2048, num_hidden_layers: 8, num_attention_heads: 12, num_key_value_heads: 12, vocab_size: 8000, tie_word_embeddings: false };

/** A model of 69 M numbers in f32, recomputed LOMO steps of one micro-batch. `ratio`: of streamed to resident time, median of the rounds' own. */
export async function streamedBeside({ tokens, rounds, file: folder }: { readonly tokens: number; readonly rounds: number; readonly file: string }): Promise<{ readonly ratio: number; readonly resident: Measured; readonly streamed: Measured; readonly bytes: number }> {
  await using backend = cpu();
  await using file = await openStreamFile(folder, { files: nodeFiles, bytes: 2 ** 29 });
  const common = { rule: lomo, tokens, microBatches: 1, config } as const;
  const made = { resident: small(backend, { ...common, bytes: 2 ** 30 }), streamed: small(backend, { ...common, bytes: 2 ** 29, stream: file }) };
  await initialiseAnywhere(made.streamed.model, smallSeed);
  const rows = { resident: [] as Measured[], streamed: [] as Measured[] };
  let bytes = 0;
  for (let round = 0; round <= rounds; round++) {
    for (const way of ['resident', 'streamed'] as const) {
      const { program, optimizer } = made[way];
      const before = program.residency?.traffic ?? { read: 0, written: 0 };
      backend.stopwatch.start(2 ** 16);
      const start = performance.now();
      await program.run({ step: round + 1, seed: 1, lr: 0.01, batches: cut(tokens, 1, { seed: round, vocabulary: config.vocab_size }), passes: optimizer.passes });
      const milliseconds = performance.now() - start;
      const { work } = await backend.stopwatch.stop();
      const after = program.residency?.traffic ?? before;
      const busy = work.reduce((sum, { start: from, end }) => sum + end - from, 0);
      bytes = after.read - before.read + (after.written - before.written);
      if (round > 0) rows[way].push({ milliseconds, idle: 1 - busy / milliseconds });
    }
  }
  const median = (of: readonly number[]): number => of.toSorted((a, b) => a - b)[Math.floor(of.length / 2)]!;
  const middle = (of: readonly Measured[]): Measured => ({ milliseconds: median(of.map((m) => m.milliseconds)), idle: median(of.map((m) => m.idle)) });
  const ratio = median(rows.streamed.map((m, i) => m.milliseconds / rows.resident[i]!.milliseconds));
  return { ratio, resident: middle(rows.resident), streamed: middle(rows.streamed), bytes };
}
