// Steps of a small model on a backend, fused or as a textbook has them, and what they leave.
import { createHash } from 'node:crypto';
import type { Backend, Tensor } from '@lomo/tensor';
import { Dense, Grad } from '@lomo/tensor';
import type { Parameter } from '@lomo/tensor';
import type { ProgramPass, StepResult } from '@lomo/parallel';
import { cut, small } from '../../../apps/lomo/test/small.ts';
import type { SmallOptions } from '../../../apps/lomo/test/small.ts';

/** Small enough for fibers: a launch costs a microsecond for every thread that meets another. */
export const tiny = { vocab_size: 96, hidden_size: 32, intermediate_size: 48, num_hidden_layers: 2, num_attention_heads: 4, num_key_value_heads: 2 } as const;

/** Tokens of a segment. */
const length = 16;

export type Made = ReturnType<typeof small>;
export interface StepsOptions extends Omit<SmallOptions, 'tokens' | 'microBatches'> {
  /** Tokens of a step; 64 unless given. */
  readonly tokens?: number;
  /** Micro-batches of a step; 1 unless given. */
  readonly count?: number;
}

/** A tiny model on a device of its own. */
export function make(backend: Backend, { tokens = 64, count = 1, ...options }: StepsOptions): Made & { readonly count: number; readonly tokens: number } {
  return { ...small(backend, { bytes: 16 * 2 ** 20, ...options, config: { ...tiny, ...options.config }, tokens: tokens / count, microBatches: count, length }), count, tokens };
}

/** Step `n`, by the optimizer's passes unless others are given. */
export function step(made: ReturnType<typeof make>, n: number, options: { readonly passes?: readonly ProgramPass[]; readonly lossScale?: number; readonly lr?: number } = {}): Promise<StepResult> {
  const { program, optimizer, tokens, count } = made;
  return program.run({ step: n, seed: 3, lr: 0.05, batches: cut(tokens, count, { seed: n, vocabulary: tiny.vocab_size, length }), passes: optimizer.passes, ...options });
}

/** Step `n` as a textbook would: the whole backward with every gradient put aside, and only then the rule, on dense gradients. */
export async function unfused(made: ReturnType<typeof make>, n: number): Promise<StepResult> {
  const { device, optimizer, program } = made;
  const aside: { readonly p: Parameter; readonly g: Tensor }[] = [];
  const settle: ProgramPass['settle'] = (p, g) => {
    using value = g.value();
    const copy = device.allocate(value, 'gradient');
    device.copy(copy, value);
    aside.push({ p, g: copy });
  };
  const result = await step(made, n, { passes: [{ name: 'aside', settle, finish: () => {} }] });
  for (const pass of optimizer.passes) {
    aside.forEach(({ p, g }, order) => {
      const dense = new Grad(device, p.shape, [new Dense(g.share())]);
      pass.settle(p, dense, { step: program.step, order });
      dense.release();
    });
    await pass.finish(program.step, async () => {});
  }
  for (const { g } of aside) g.dispose();
  return result;
}

/** Every weight and every tensor of state, by name. */
export async function tensorsOf({ device, model, optimizer }: Made): Promise<ReadonlyMap<string, Uint8Array>> {
  const named: (readonly [string, Tensor])[] = [...model.parameters.map((p) => [p.path, p] as const), ...[...optimizer.state()].map(({ path, name, tensor }) => [`${path} ${name}`, tensor] as const)];
  const found = new Map<string, Uint8Array>();
  for (const [name, tensor] of named) found.set(name, new Uint8Array((await device.read(tensor)).buffer));
  return found;
}

/** SHA-256 of all weights and state. */
export async function digest(made: Made): Promise<string> {
  const hash = createHash('sha256');
  for (const bytes of (await tensorsOf(made)).values()) hash.update(bytes);
  return hash.digest('hex');
}
