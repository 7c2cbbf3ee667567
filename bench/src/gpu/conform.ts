// Every op on the device against its definition, with a hash of all that came out; and the golden folder's rows.
import { createHash } from 'node:crypto';
import { join } from 'node:path';
import type { CudaBackend } from '@lomo/cuda';
import { optimOps } from '@lomo/optim';
import { tensorOps } from '@lomo/tensor';
import { conformance } from '@lomo/tensor/conformance';
import type { ConformanceRow } from '@lomo/tensor/conformance';
import { checkFolder } from '../../../tools/golden/src/check.ts';
import { Engine } from '../../../tools/golden/src/engine.ts';
import type { Row } from '../../../tools/golden/src/row.ts';
import type { Where } from './where.ts';
import { openCuda } from './where.ts';
import { Witness } from './witness.ts';

export interface ConformanceJob {
  readonly where: Where;
  /** Random cases of an op and dtype. */
  readonly cases: number;
  /** Only these ops; all unless given. */
  readonly ops?: readonly string[];
}

/** One op and dtype. */
export interface OpVerdict {
  readonly op: string;
  readonly dtype: string;
  readonly cases: number;
  /** Error over what is allowed, of the worst element of all cases. */
  readonly share: number;
  /** SHA-256 of every operand after every case. */
  readonly digest: string;
  readonly failures: readonly string[];
  readonly skipped: readonly string[];
}

/** Every op, one verdict at a time. Throws only what making a backend throws. */
export async function* conformanceVerdicts({ where, cases, ops }: ConformanceJob): AsyncGenerator<OpVerdict> {
  // One backend for all of them, as long as none makes it fail: opening one takes a GPU longer than most ops do.
  let open: CudaBackend | null = null;
  try {
    for (const op of [...tensorOps, ...optimOps]) {
      if (ops !== undefined && !ops.includes(op.name)) continue;
      for (const dtype of op.dtypes) {
        const hash = createHash('sha256');
        let asked = false;
        const backend = async (): Promise<Witness> => {
          // Asked again, it is because the last one failed.
          if (asked) {
            await open?.[Symbol.asyncDispose]();
            open = null;
          }
          asked = true;
          return new Witness((open ??= openCuda(where)), hash);
        };
        const rows = await conformance({ backend, ops: [op], dtypes: [dtype], cases });
        yield verdictOf({ op: op.name, dtype, rows, digest: hash.digest('hex') });
      }
    }
  } finally {
    await (open as CudaBackend | null)?.[Symbol.asyncDispose]();
  }
}

function verdictOf({ op, dtype, rows, digest }: { readonly op: string; readonly dtype: string; readonly rows: readonly ConformanceRow[]; readonly digest: string }): OpVerdict {
  return {
    op,
    dtype,
    cases: rows.reduce((sum, row) => sum + row.cases, 0),
    share: Math.max(0, ...rows.map(({ error, bar }) => (error === 0 ? 0 : error / bar))),
    digest,
    failures: rows.flatMap((row) => row.failures.map(({ seed, message }) => `seed ${seed}: ${message}`)),
    skipped: rows.flatMap((row) => (row.skipped === null ? [] : [`${row.signature}: ${row.skipped}`])),
  };
}

export interface GoldenJob {
  readonly where: Where;
  /** The folder with golden/, models/ and tokenizers/. */
  readonly shared: string;
  /** Most updates of a trajectory. */
  readonly steps: number;
}

/** The golden folder's rows on the device, judged by the bars of the cpu backend. */
export async function* goldenRows({ where, shared, steps }: GoldenJob): AsyncGenerator<Row> {
  // The engine only asks whether a backend rounds to f32, as cpu does.
  const engine = new Engine('cpu', openCuda(where));
  try {
    yield* checkFolder(join(shared, 'golden'), { engine, elsewhere: { models: [], shared }, steps });
  } finally {
    await engine[Symbol.asyncDispose]();
  }
}
