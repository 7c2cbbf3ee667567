// The conformance suite: every op, every dtype, random cases, on any backend; what has no kernel is listed, never passed over.
import { LomoError } from '../src/index.ts';
import type { Backend, DType, KernelSignature, Op } from '../src/index.ts';
import { makeCase, runCase } from './case.ts';

export interface ConformanceOptions {
  /** Makes a backend. It is asked once, and again after a case that made the backend fail: the first error poisons a backend. */
  readonly backend: () => Backend | Promise<Backend>;
  /** `tensorOps` of @lomo/tensor, `optimOps` of @lomo/optim, and those of the packages in use. */
  readonly ops: readonly Op[];
  /** dtypes to stand for 'real'; each op's own unless given. */
  readonly dtypes?: readonly DType[];
  /** Random cases of an op and dtype; 20 unless given. */
  readonly cases?: number;
  /** Case i of every op is drawn from `seed + i`; 1 unless given. */
  readonly seed?: number;
}

/** A case that did not pass; `op.sample(new Random(seed))` draws it again. */
export interface ConformanceFailure {
  readonly seed: number;
  readonly message: string;
}

/** What one op did for one combination of dtypes. */
export interface ConformanceRow {
  readonly op: string;
  /** What 'real' stood for. */
  readonly dtype: DType;
  /** 'ins | inouts | outs'. */
  readonly signature: string;
  /** Cases run. */
  readonly cases: number;
  /** Absolute error and what is allowed, of the element that came nearest to its bar, or passed it, over all cases. */
  readonly error: number;
  readonly bar: number;
  /** Why no case ran, or null. */
  readonly skipped: string | null;
  readonly failures: readonly ConformanceFailure[];
}

type Open = { -readonly [K in keyof ConformanceRow]: ConformanceRow[K] } & { failures: ConformanceFailure[] };

function spell({ ins, inouts, outs }: KernelSignature): string {
  return [ins, inouts, outs].map((list) => list.join(', ')).join(' | ');
}

/** Runs the suite; rows in the order of ops and dtypes. Throws only what making a backend throws. */
export async function conformance(options: ConformanceOptions): Promise<readonly ConformanceRow[]> {
  const { ops, cases = 20, seed = 1 } = options;
  const rows = new Map<string, Open>();
  let backend = await options.backend();
  try {
    for (const op of ops) {
      for (const dtype of op.dtypes.filter((d) => options.dtypes?.includes(d) ?? true)) {
        for (let i = 0; i < cases; i++) {
          const one = makeCase(op, dtype, seed + i);
          const signature = spell(one.signature);
          const key = `${op.name} ${dtype} ${signature}`;
          let row = rows.get(key);
          if (row === undefined) rows.set(key, (row = { op: op.name, dtype, signature, cases: 0, error: 0, bar: 0, skipped: null, failures: [] }));
          const kernel = backend.kernel(op.name, one.signature);
          if (kernel === null) {
            const has = backend.supported(op.name);
            row.skipped = `${backend.name} has no kernel for it (has: ${has.length === 0 ? 'none' : has.join('; ')})`;
            continue;
          }
          row.cases++;
          try {
            const verdict = await runCase(backend, one, kernel);
            if (ratio(verdict) >= ratio(row)) [row.error, row.bar] = [verdict.error, verdict.bar];
            for (const message of verdict.failures) row.failures.push({ seed: one.seed, message });
          } catch (error) {
            row.failures.push({ seed: one.seed, message: `threw: ${error instanceof Error ? error.message : String(error)}` });
            await backend[Symbol.asyncDispose]();
            backend = await options.backend();
          }
        }
      }
    }
  } finally {
    await backend[Symbol.asyncDispose]();
  }
  return [...rows.values()];
}

function ratio({ error, bar }: { readonly error: number; readonly bar: number }): number {
  return error === 0 ? 0 : error / bar;
}

/** The rows as a table for people: failures with their seeds, skipped combinations with their reasons. */
export function formatConformance(rows: readonly ConformanceRow[]): string {
  return rows
    .flatMap((row) => {
      const head = `${row.op} (${row.signature})`;
      if (row.skipped !== null) return [`skipped  ${head}: ${row.skipped}`];
      const share = `${(100 * ratio(row)).toFixed(0)} % of the bar`;
      const line = `${row.failures.length === 0 ? 'passed' : 'FAILED'}   ${head}: ${row.cases} cases, error ${row.error.toExponential(1)}, ${share}`;
      return [line, ...row.failures.map(({ seed, message }) => `         seed ${seed}: ${message}`)];
    })
    .join('\n');
}

/** What a test runner must offer: vitest's `test` does. */
export type RegisterTest = (name: string, body: (context: { skip(note?: string): void }) => Promise<void>) => unknown;

/** Registers one test an op and dtype. A combination without kernel makes the test skipped, with the reason, unless others of it ran. */
export function registerConformance(test: RegisterTest, options: ConformanceOptions): void {
  for (const op of options.ops) {
    for (const dtype of op.dtypes.filter((d) => options.dtypes?.includes(d) ?? true)) {
      test(`${op.name} ${dtype}`, async (context) => {
        const rows = await conformance({ ...options, ops: [op], dtypes: [dtype] });
        const failed = rows.filter((row) => row.failures.length > 0);
        if (failed.length > 0) {
          throw new LomoError('ConformanceFailure', `${op.name} is not what its definition says:\n${formatConformance(failed)}`, { op: op.name, dtype });
        }
        const skipped = rows.filter((row) => row.skipped !== null);
        if (skipped.length === rows.length) context.skip(skipped.map((row) => row.skipped).join('; '));
      });
    }
  }
}
