// gpu determinism: the same steps in processes of their own, in several ways that must not matter, to equal SHA-256 over all weights.
import { table } from '../manners.ts';
import type { Conclusion } from './findings.ts';
import type { Context, Part, Scale } from './part.ts';
import { measureOne } from './part.ts';
import type { RowsResult } from './rows.ts';
import type { StepsJob, StepsResult } from './steps.ts';

/** Ways that must end in the bits of the first. */
const ways = {
  'first run': {},
  'second run': {},
  recomputed: { tapes: 'recomputed' },
  'small tiles': { tileBytes: 2 ** 20 },
  'four micro-batches': { batch: 1, microBatches: 4 },
} as const satisfies Readonly<Record<string, Partial<StepsJob>>>;

type Way = keyof typeof ways;
const names = Object.keys(ways) as readonly Way[];

function jobOf(context: Pick<Context, 'where' | 'scale'>, way: Way): { readonly kind: 'steps' } & StepsJob {
  const { where, scale } = context;
  // Micro-batches of whole chunks of 512 tokens: those add up to equal bits.
  const sizes = scale.tiny ? { models: ['tiny'], seq: 512, steps: 1 } : { models: ['0.5b'], seq: 1024, steps: 6 };
  return { kind: 'steps', where, ...sizes, dtype: 'bf16', batch: scale.tiny ? 2 : 4, microBatches: 1, tapes: 'kept', headForm: 'chunks', lr: 0.01, warmup: 0, sameTokens: false, digest: true, ...ways[way], ...(scale.tiny && way === 'four micro-batches' ? { microBatches: 2 } : {}) };
}

async function run(context: Context): Promise<void> {
  const { where, scale } = context;
  for (const way of names) await measureOne(context, { id: way, job: jobOf(context, way), expects: scale.tiny ? 10 : 25 });
  const products = scale.tiny ? ([[64, 64], [64, 176]] as const) : ([[4096, 4096], [4096, 11008], [11008, 4096], [4096, 32000]] as const);
  await measureOne(context, { id: 'rows', job: { kind: 'rows', where, products, counts: scale.tiny ? [1, 7, 64] : [1, 7, 64, 128, 512, 1000, 1024, 4096, 8192] }, expects: 20 });
}

/** What the findings come to. */
export function concludeDeterminism(findings: Parameters<Part['conclude']>[0], scale: Scale): Conclusion {
  const [held, missed, open]: [string[], string[], string[]] = [[], [], []];
  const first = findings.get<StepsResult>('first run');
  for (const way of names) {
    const found = findings.get<StepsResult>(way);
    if (found === undefined || first === undefined) open.push(`${way}: ${findings.failure(way) ?? 'not measured'}`);
    else if (way !== 'first run') (found.digest === first.digest ? held : missed).push(`${way}: ${found.digest === first.digest ? 'the bits of the first run' : `SHA-256 ${found.digest!.slice(0, 16)}, the first run's is ${first.digest!.slice(0, 16)}`} after ${found.losses.length} steps`);
  }
  const rows = findings.get<RowsResult>('rows');
  if (rows === undefined) open.push(`rows of products: ${findings.failure('rows') ?? 'not measured'}`);
  else if (rows.differ.length === 0) held.push(`rows of products: ${rows.compared} products, equal bits however many rows there are`);
  else missed.push(`rows of products: ${rows.differ.length} of ${rows.compared} differ: ${rows.differ.map(({ product, rows: count }) => `${product} with ${count} rows`).join(', ')}`);
  const told = names.flatMap((way) => {
    const found = findings.get<StepsResult>(way);
    return found === undefined ? [] : [[way, found.digest?.slice(0, 16) ?? '-', found.losses.map((loss) => loss.toFixed(6)).join(' ')]];
  });
  return { lines: [table([['', 'SHA-256', 'losses'], ...told], [0, 1, 2])], figure: `${held.length} of ${names.length} comparisons to equal bits${scale.tiny ? ', tiny' : ''}`, held, missed, open };
}

export const determinism: Part = { name: 'determinism', run, conclude: (findings, { scale }) => concludeDeterminism(findings, scale) };
