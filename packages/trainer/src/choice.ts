// What the plan decides: tapes kept or recomputed, and how a step is judged before its first update. Every candidate is run dry; the fastest that fits is taken.
import type { Backend } from '@lomo/tensor';
import { LomoError } from '@lomo/tensor';
import type { Blueprint, JudgedBy, RunPlan, StagePlace } from './assemble.ts';
import { clipOf, planRun } from './assemble.ts';
import type { RunConfig } from './config.ts';
import { bytes, shortTime, significant } from './quantity.ts';
import type { Choice } from './session.ts';

/** What a machine does in a second, where nobody has measured it. */
export interface Rates {
  /** Floating-point operations. */
  readonly flops: number;
  /** Bytes copied in memory. */
  readonly memory: number;
  /** Bytes written to, or read from, a disk. */
  readonly disk: number;
}

/** Two cores with AVX-512, and a plain SSD. */
export const assumedRates: Rates = { flops: 200e9, memory: 8e9, disk: 0.5e9 };

export interface Candidate {
  readonly keeps: boolean;
  readonly by: JudgedBy;
  readonly stages: StagePlace;
  readonly plan: RunPlan;
  /** Of one step, estimated. */
  readonly seconds: number;
}

export interface ChoiceOptions {
  /** Bytes this run may take. */
  readonly memory: number;
  readonly rates?: Rates;
}

/** Share of the memory that kept tapes and gradients put aside may fill. */
const extraShare = 0.8;

/** True when every step is judged whole before its first update. */
export function isJudgedFirst(config: RunConfig): boolean {
  const clip = clipOf(config);
  return config.atomic || config.dtype === 'f16' || (clip?.norm !== undefined && clip.scope !== 'parameter');
}

/** Every way of running that the configuration leaves open, planned, fastest first; those that stream their weights after those that keep them. */
export async function candidatesOf(backend: Backend, blueprint: Omit<Blueprint, 'keeps' | 'by' | 'stages'>, rates: Rates = assumedRates): Promise<readonly Candidate[]> {
  const { config } = blueprint;
  const { gradient_checkpointing: checkpointing, clip_by: wish } = config;
  const ways: readonly JudgedBy[] = !isJudgedFirst(config) ? ['two-pass'] : wish === 'auto' ? ['two-pass', 'memory', 'file'] : [wish];
  const found: Candidate[] = [];
  const places: readonly StagePlace[] = config.stages === 'auto' ? ['resident', 'streamed'] : [config.stages];
  for (const stages of places) {
    for (const keeps of checkpointing !== 'auto' ? [!checkpointing] : config.offload === 'file' ? [false] : [true, false]) {
      for (const by of ways) {
        const plan = await planRun(backend, { ...blueprint, keeps, by, stages });
        const seconds = Math.max(stepFlops(plan) / rates.flops, streamSeconds(plan, rates)) + spillSeconds(config, { by, plan }, rates);
        found.push({ keeps, by, stages, plan, seconds });
      }
    }
  }
  return found.toSorted((a, b) => places.indexOf(a.stages) - places.indexOf(b.stages) || a.seconds - b.seconds);
}

/** Weights and boundaries come and go while stages compute; what is longer counts. */
function streamSeconds({ streamed, offloaded }: RunPlan, rates: Rates): number {
  return ((streamed?.read ?? 0) + (streamed?.written ?? 0) + 2 * offloaded) / rates.disk;
}

/** The fastest candidate that fits, with room left where it keeps what it need not; the smallest where none does. */
export function pick(candidates: readonly Candidate[], memory: number): Candidate {
  const room = ({ keeps, by }: Candidate): number => (keeps || by === 'memory' ? extraShare : 1) * memory;
  return candidates.find((c) => c.plan.extent <= room(c)) ?? candidates.toSorted((a, b) => a.plan.extent - b.plan.extent)[0]!;
}

/** Throws DoesNotFit. */
export function assertFits({ plan: { extent: needed } }: Candidate, memory: number): void {
  if (needed <= memory) return;
  throw new LomoError('DoesNotFit', `the run needs ${bytes(needed)}, ${bytes(memory)} are free; lower per_device_train_batch_size or max_seq_length, or set gradient_checkpointing: true, clip_by: two-pass and stages: auto`, { needed, memory });
}

/** What was chosen and why, for a screen. */
export function explain(config: RunConfig, candidates: readonly Candidate[], { chosen, memory, rates = assumedRates }: { readonly chosen: Candidate; readonly memory: number; readonly rates?: Rates }): Choice[] {
  const extent = (keeps: boolean): number | undefined => candidates.find((c) => c.by === chosen.by && c.stages === chosen.stages && c.keeps === keeps)?.plan.extent;
  const [kept, recomputed] = [extent(true), extent(false)];
  const both = kept === undefined || recomputed === undefined ? '' : ` (kept ${bytes(kept)}, recomputed ${bytes(recomputed)}, free ${bytes(memory)})`;
  const why = config.gradient_checkpointing === 'auto' ? (chosen.keeps ? 'they fit' : 'kept they would not fit') : 'as the run asks';
  const activations = { name: 'activations', value: chosen.keeps ? 'kept' : 'recomputed', reason: `${why}${both}` };
  const judged = isJudgedFirst(config) ? [{ name: 'clip', value: chosen.by, reason: judgement(config, candidates, { chosen, rates }) }] : [];
  return [...placeOf(config, candidates, { chosen, memory, rates }), activations, ...judged];
}

/** Nothing where weights stay and nobody asked. */
function placeOf(config: RunConfig, candidates: readonly Candidate[], { chosen, memory, rates }: { readonly chosen: Candidate; readonly memory: number; readonly rates: Rates }): Choice[] {
  const { streamed, offloaded } = chosen.plan;
  const boundaries = offloaded === 0 ? [] : [{ name: 'boundaries', value: 'in a file', reason: `as the run asks: ${bytes(offloaded)} written and read a step` }];
  if (streamed === null) return config.stages === 'auto' ? boundaries : [{ name: 'weights', value: 'resident', reason: 'as the run asks' }, ...boundaries];
  const least = Math.min(...candidates.filter((c) => c.stages === 'resident').map((c) => c.plan.extent));
  const why = config.stages === 'auto' ? `resident the run needs ${bytes(least)}, ${bytes(memory)} are free` : 'as the run asks';
  const work = `${bytes(streamed.bytes)} in a file, ${bytes(streamed.read)} read and ${bytes(streamed.written)} written a step, ${shortTime(streamSeconds(chosen.plan, rates))} at ${rates.disk / 1e9} GB/s beside ${shortTime(stepFlops(chosen.plan) / rates.flops)} of computing`;
  return [{ name: 'weights', value: 'streamed', reason: `${why}: ${work}` }, ...boundaries];
}

function judgement(config: RunConfig, candidates: readonly Candidate[], { chosen, rates }: { readonly chosen: Candidate; readonly rates: Rates }): string {
  const beside = candidates.filter((c) => c.keeps === chosen.keeps && c.stages === chosen.stages);
  const least = Math.min(...beside.map(({ plan }) => stepFlops(plan)));
  const words = beside.map((c): string => {
    const seconds = c.by === 'two-pass' ? (stepFlops(c.plan) - least) / rates.flops : spillSeconds(config, c, rates);
    const work = c.by === 'two-pass' ? `${significant((stepFlops(c.plan) - least) / 1e9)} GFLOP more` : `${bytes(c.plan.spilled)} put aside`;
    return `${c.by} ${work}, ${shortTime(seconds)}`;
  });
  if (words.length === 1) return `as the run asks${chosen.by === 'two-pass' ? '' : `: ${words[0]}`}`;
  const cheapest = candidates.find((c) => c.stages === chosen.stages)!;
  const why = chosen.by === cheapest.by ? 'the cheapest' : `${cheapest.by} would be cheaper, and does not fit`;
  const assumed = `assuming ${rates.flops / 1e9} GFLOP/s, memory ${rates.memory / 1e9} GB/s, disk ${rates.disk / 1e9} GB/s`;
  return `${why} (${words.join('; ')} a step, ${assumed})`;
}

function stepFlops(plan: RunPlan): number {
  return plan.flops.get('step') ?? 0;
}

/** Written once and read once; with f16 weights read once more, for the rehearsal. */
function spillSeconds(config: RunConfig, { by, plan }: Pick<Candidate, 'by' | 'plan'>, rates: Rates): number {
  if (by === 'two-pass') return 0;
  return ((config.dtype === 'f16' ? 3 : 2) * plan.spilled) / (by === 'memory' ? rates.memory : rates.disk);
}
