// What only a GPU can prove, by name, and what the five proofs say of it.
import { percent } from '../manners.ts';
import type { Conclusion, Findings } from './findings.ts';
import type { Part } from './part.ts';
import type { StepsResult } from './steps.ts';

/** One part's outcome. */
export interface Outcome {
  readonly conclusion: Conclusion;
  readonly findings: Pick<Findings, 'get' | 'ids'>;
}

export type Outcomes = Readonly<Partial<Record<Part['name'], Outcome>>>;

/** A claim, ticked or not. */
export interface Tick {
  readonly name: string;
  readonly state: 'proven' | 'refuted' | 'open' | 'rehearsed';
  /** What says so. */
  readonly words: string;
}

interface Claim {
  readonly name: string;
  judge(outcomes: Outcomes): Omit<Tick, 'name'>;
}

/** Judged by lines of conclusions that begin so: refuted by a bar missed, proven by bars held, all of them there. */
function byBars(...wanted: readonly { readonly part: Part['name']; readonly begins: readonly string[] }[]): Claim['judge'] {
  return (outcomes) => {
    const [proofs, refuted, absent]: [string[], string[], string[]] = [[], [], []];
    for (const { part, begins } of wanted) {
      const conclusion = outcomes[part]?.conclusion;
      for (const start of begins) {
        const said = (lines: readonly string[]): string[] => lines.filter((line) => line.startsWith(start));
        const [held, missed] = [said(conclusion?.held ?? []), said(conclusion?.missed ?? [])];
        proofs.push(...held);
        refuted.push(...missed);
        if (held.length + missed.length === 0) absent.push(`${part}: ${start}`);
      }
    }
    if (refuted.length > 0) return { state: 'refuted', words: refuted.join('; ') };
    if (absent.length > 0) return { state: 'open', words: `not there: ${absent.join('; ')}` };
    return { state: 'proven', words: proofs.join('; ') };
  };
}

/** The claims, as docs/cuda.md and the package's README name them. */
const claims: readonly Claim[] = [
  { name: 'speed', judge: ({ train }) => (train === undefined || train.conclusion.held.length + train.conclusion.missed.length === 0 ? { state: 'open', words: 'not there: train' } : { state: train.conclusion.missed.length === 0 && train.conclusion.open.length === 0 ? 'proven' : train.conclusion.missed.length > 0 ? 'refuted' : 'open', words: train.conclusion.figure }) },
  { name: 'memory ordering between blocks', judge: byBars({ part: 'conformance', begins: ['conformance', 'golden'] }, { part: 'determinism', begins: ['second run'] }) },
  { name: "cuBLASLt's choices", judge: byBars({ part: 'conformance', begins: ['golden'] }, { part: 'determinism', begins: ['second run', 'recomputed', 'small tiles'] }) },
  { name: "a row's bits do not depend on how many rows there are", judge: byBars({ part: 'determinism', begins: ['rows of products', 'four micro-batches'] }) },
  {
    name: 'the bits of exp, rsqrt and fast division',
    judge: ({ conformance }) => {
      const compared = (conformance?.conclusion.data?.['differs_from_double'] as { readonly compared: number; readonly ops: readonly { readonly op: string }[] } | undefined) ?? { compared: 0, ops: [] };
      if (compared.compared === 0) return { state: 'open', words: 'not there: conformance beside the double' };
      const words = `${compared.ops.length} of ${compared.compared} ops and dtypes have other bits than on the double${compared.ops.length === 0 ? '' : `: ${[...new Set(compared.ops.map(({ op }) => op))].join(', ')}`}`;
      return { state: (conformance?.conclusion.missed ?? []).some((line) => line.startsWith('conformance')) ? 'refuted' : 'proven', words };
    },
  },
  {
    name: 'the bytes that a context and lazily loaded code take',
    judge: (outcomes) => {
      const all = stepsOf(outcomes).flatMap(({ driver, arena }) => (driver === null ? [] : [{ ...driver, arena }]));
      if (all.length === 0) return { state: 'open', words: 'the driver has said nothing' };
      const [opened, whole, grown] = [all.map(({ open, before }) => open - before), all.map(({ end, before, arena }) => end - before - arena), all.map(({ end, second }) => end - second)];
      return { state: grown.every((bytes) => bytes === 0) ? 'proven' : 'refuted', words: `${range(opened)} MiB once a backend is open, ${range(whole)} beside the arena at the end, at most +${mib(Math.max(...grown))} MiB after step 2, over ${all.length} runs` };
    },
  },
  {
    name: 'what the driver calls free can be reserved in one piece',
    judge: (outcomes) => {
      const largest = stepsOf(outcomes).toSorted((a, b) => b.arena / b.room - a.arena / a.room)[0];
      if (largest === undefined) return { state: 'open', words: 'nothing was reserved' };
      const share = largest.arena / largest.room;
      return { state: share > 0.9 ? 'proven' : 'open', words: `${(largest.arena / 2 ** 30).toFixed(1)} GiB were reserved of ${(largest.room / 2 ** 30).toFixed(1)} (${percent(share)})` };
    },
  },
  {
    name: 'what NVML shows from inside a container',
    judge: (outcomes) => {
      const seen = stepsOf(outcomes).map(({ seenByNvml }) => seenByNvml);
      if (seen.length === 0) return { state: 'open', words: 'no process has asked' };
      const told = { here: seen.filter((one) => one === true).length, silent: seen.filter((one) => one === null).length };
      return { state: 'proven', words: `${told.here} of ${seen.length} processes found themselves among the holders, ${told.silent} got no answer` };
    },
  },
];

/** Every run of steps, of all parts. */
function stepsOf(outcomes: Outcomes): readonly StepsResult[] {
  const isSteps = (data: Partial<StepsResult> | undefined): data is StepsResult => data?.room !== undefined && data.driver !== undefined;
  return Object.values(outcomes).flatMap(({ findings }) => findings.ids.flatMap((id) => findings.get<Partial<StepsResult>>(id) ?? []).filter(isSteps));
}

const range = (bytes: readonly number[]): string => `${mib(Math.min(...bytes))} to ${mib(Math.max(...bytes))}`;
const mib = (bytes: number): string => (bytes / 2 ** 20).toFixed(0);

/** Every claim with what the outcomes say of it. */
export function tick(outcomes: Outcomes): readonly Tick[] {
  return claims.map(({ name, judge }) => ({ name, ...judge(outcomes) }));
}
