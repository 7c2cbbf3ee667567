// The command line: `pnpm golden [FOLDER...] [--backend reference|cpu] [--steps N] [--models DIR] [--threads N] [--json]`.
import { parseArgs } from 'node:util';
import type { BackendName } from './engine.ts';

/** What was asked for. */
export interface Arguments {
  /** As given; none: the default folders. */
  readonly folders: readonly string[];
  readonly backend: BackendName;
  readonly steps: number;
  readonly models: readonly string[];
  readonly threads: number;
  readonly json: boolean;
  readonly help: boolean;
}

/** One screen of help. */
export const usage = `pnpm golden [FOLDER...] [--backend reference|cpu] [--steps N] [--models DIR] [--threads N] [--json]

Checks this workspace's numbers against folders of golden values (format: README of ../shared/golden; by default that folder, then tools/golden/fixtures).

  --backend cpu        everything, in float32: 4 times the file's own float32_distance (the default)
  --backend reference  in float64, to 1e-7 of a tensor's largest value; slow, so one update of each trajectory
  --steps N            at most N updates of each trajectory
  --models DIR         a folder with models or tokenizers, by name, besides those next to FOLDER; may be repeated
  --threads N          threads of the CPU backend; 1 unless given: the models are small, and the numbers are the same
  --json               one JSON object instead of the table

Ends with status 0 when every bar was held, 1 when one was missed, 2 when nothing could be checked.
`;

/** Parses `argv` (without node and script). Throws an Error with one sentence for what it does not understand. */
export function parseArguments(argv: readonly string[]): Arguments {
  const { values, positionals } = parseArgs({
    args: argv.filter((word) => word !== '--'),
    allowPositionals: true,
    options: {
      backend: { type: 'string', default: 'cpu' },
      steps: { type: 'string' },
      models: { type: 'string', multiple: true, default: [] },
      threads: { type: 'string', default: '1' },
      json: { type: 'boolean', default: false },
      help: { type: 'boolean', short: 'h', default: false },
    },
  });
  const { backend } = values;
  if (backend !== 'cpu' && backend !== 'reference') throw new Error(`--backend ${backend}: expected cpu or reference`);
  const steps = values.steps === undefined ? (backend === 'reference' ? 1 : Infinity) : countOf('--steps', values.steps);
  return { folders: positionals, backend, steps, models: values.models, threads: countOf('--threads', values.threads), json: values.json, help: values.help };
}

function countOf(option: string, text: string): number {
  const count = Number(text);
  if (!Number.isInteger(count) || count < 1) throw new Error(`${option} ${text}: expected a whole number from 1`);
  return count;
}
