// `pnpm bench gpu`: the five proofs that need a GPU, by one command, within the time there is; each goes on where the last call ended.
import { table } from '../manners.ts';
import type { Outcome, Tick } from './claims.ts';
import { tick } from './claims.ts';
import { conformancePart } from './conformance.ts';
import { determinism } from './determinism.ts';
import { Findings } from './findings.ts';
import { kernels } from './kernels.ts';
import { largest } from './largest.ts';
import type { Stamp } from './machine.ts';
import type { Context, Part, Scale } from './part.ts';
import { Budget } from './runner.ts';
import { train } from './train.ts';
import type { Where } from './where.ts';

/** In the order that they are run in: what must be right first, then what is asked for most. */
export const parts: readonly Part[] = [conformancePart, determinism, train, largest, kernels];

export interface GpuOptions {
  /** Names of parts; all unless any is given. */
  readonly parts: readonly string[];
  readonly where: Where;
  readonly double: Where | null;
  readonly stamp: Stamp;
  readonly scale: Scale;
  readonly python: string | undefined;
  readonly shared: string | undefined;
  /** Where results go. */
  readonly folder: string;
  /** Where results of earlier calls are. */
  readonly former: readonly string[];
  /** Seconds this call may take. */
  readonly seconds: number;
  readonly again: boolean;
  readonly anyCommit: boolean;
  readonly start: Context['start'];
  readonly say: (text: string) => void;
}

/** What a call came to. */
export interface GpuReport {
  readonly lines: readonly string[];
  readonly missed: readonly string[];
  readonly open: readonly string[];
  readonly ticks: readonly Tick[];
  readonly files: readonly string[];
}

/** Measures what is missing of the parts and reports on all of them. Throws only where a part's name is unknown, or results cannot be written. */
export async function gpu(options: GpuOptions): Promise<GpuReport> {
  const wanted = options.parts.length === 0 ? parts : options.parts.map(partNamed);
  const { where, double, scale, python, shared, folder, stamp, say, start, again, anyCommit } = options;
  const budget = new Budget(options.seconds);
  const former = [...new Set([...options.former, folder])];
  const outcomes: Partial<Record<Part['name'], Outcome>> = {};
  const [lines, missed, open, files]: [string[], string[], string[], string[]] = [[], [], [], []];
  for (const part of parts) {
    const name = `gpu-${part.name}${'double' in where ? '-double' : ''}`;
    const asked = wanted.includes(part);
    const findings = new Findings({ folder, name, stamp, former, again: again && asked, anyCommit });
    const concluded = () => part.conclude(findings, { scale, former });
    let file: string | null = null;
    const keep = (): void => void (file = findings.save(concluded()));
    if (asked) {
      say(`== ${part.name}, ${budget.left.toFixed(0)} s left`);
      await part.run({ where, double, findings, budget, scale, python, shared, former, start, say: (text) => say(`  ${text}`), keep });
      keep();
    }
    const conclusion = concluded();
    outcomes[part.name] = { conclusion, findings };
    if (!asked) continue;
    lines.push('', `${part.name}: ${conclusion.figure}`, ...conclusion.lines, ...conclusion.held.map((line) => `held: ${line}`), ...conclusion.missed.map((line) => `missed: ${line}`), ...conclusion.open.map((line) => `open: ${line}`));
    missed.push(...conclusion.missed.map((line) => `${part.name}: ${line}`));
    open.push(...conclusion.open.map((line) => `${part.name}: ${line}`));
    if (file !== null) files.push(file);
  }
  // What the double does says nothing of a GPU.
  const ticks = tick(outcomes).map((one): Tick => ('double' in where && one.state !== 'open' ? { ...one, state: 'rehearsed' } : one));
  lines.push('', 'What only a GPU can prove:', table(ticks.map(({ state, name, words }) => [state, name, words]), [0, 1, 2]));
  return { lines, missed, open, ticks, files };
}

function partNamed(name: string): Part {
  const part = parts.find((one) => one.name === name);
  if (part === undefined) throw new Error(`no part '${name}' (there are ${parts.map((one) => one.name).join(', ')})`);
  return part;
}
