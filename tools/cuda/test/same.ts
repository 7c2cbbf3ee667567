// In how many ways the same steps can be run on CUDA, none of which may show in a bit: how a step is cut, how large tiles are, what is kept, the order
// of a block's threads, and when queues do their work.
import { createHash } from 'node:crypto';
import type { Backend } from '@lomo/tensor';
import { adalomo, adamw, lomo } from '@lomo/optim';
import type { Clip, Rule } from '@lomo/optim';
import { digest, make, step } from './steps.ts';

const rules: Readonly<Record<string, Rule>> = { lomo, adalomo: adalomo(), adamw: adamw() };
const clips: Readonly<Record<string, Clip | null>> = { none: null, value: { value: 2e-3 }, 'two-pass': { norm: 0.5 }, memory: { norm: 0.5 } };
const splits: Readonly<Record<string, { readonly count: number; readonly accumulate: 'factors' | 'buffer' }>> = {
  one: { count: 1, accumulate: 'buffer' }, '2 factors': { count: 2, accumulate: 'factors' }, '4 factors': { count: 4, accumulate: 'factors' }, '2 buffer': { count: 2, accumulate: 'buffer' },
};

/** Every axis with its values; of those from `split` on the first is the reference's. */
export const axes = {
  rule: ['lomo', 'adalomo', 'adamw'],
  dtype: ['f32', 'bf16', 'f16'],
  clip: ['none', 'value', 'two-pass', 'memory'],
  head: ['tiles', 'chunks'],
  split: ['one', '2 factors', '4 factors', '2 buffer'],
  tile: [0, 16],
  tapes: ['recomputed', 'kept'],
  threads: ['0', '1', '20'],
  eager: ['0', '1', '15'],
} as const satisfies Readonly<Record<string, readonly (string | number)[]>>;
export type Way = { readonly [K in keyof typeof axes]: (typeof axes)[K][number] };

/** The way that another way of the same computation is held against; undefined where `way` is none: sums in a buffer and token chunks of the head need whole chunks of 512. */
export function referenceOf(way: Way, tokens: number): Way | undefined {
  const { count } = splits[way.split]!;
  if (count > 1 && (tokens / count) % 512 !== 0 && (way.head === 'chunks' || way.split.endsWith('buffer'))) return undefined;
  return { ...way, clip: way.clip === 'memory' ? 'two-pass' : way.clip, split: 'one', tile: 0, tapes: 'recomputed', threads: '0', eager: '0' };
}

/** SHA-256 of losses, norms, weights and state after two steps of `tokens` tokens, weights of 16 bits rounded stochastically. */
export async function digestOf(backend: Backend, way: Way, tokens: number): Promise<string> {
  process.env['LOMO_DOUBLE_SEED'] = way.threads;
  process.env['LOMO_DOUBLE_EAGER'] = way.eager;
  try {
    const clip = clips[way.clip]!;
    const made = make(backend, {
      rule: rules[way.rule]!, dtype: way.dtype, headForm: way.head, keeps: way.tapes === 'kept', tokens, ...splits[way.split]!,
      ...(clip === null ? {} : { clip }), ...(way.clip === 'memory' ? { spill: 'memory' as const } : {}), ...(way.tile === 0 ? {} : { tileBytes: way.tile * 32 * 4 }),
    });
    const hash = createHash('sha256');
    for (let n = 1; n <= 2; n++) {
      const { loss, gradNorm } = await step(made, n);
      hash.update(new Uint8Array(Float64Array.of(loss, gradNorm).buffer));
    }
    hash.update(await digest(made));
    made.device.free();
    return hash.digest('hex');
  } finally {
    delete process.env['LOMO_DOUBLE_SEED'];
    delete process.env['LOMO_DOUBLE_EAGER'];
  }
}
