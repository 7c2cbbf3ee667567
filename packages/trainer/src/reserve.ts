// The arena reserved on a backend; where the memory is not there after all, the error says what of the plan it was for and what would need less.
import type { MemoryPlan } from '@lomo/parallel';
import type { Backend } from '@lomo/tensor';
import { Device, isLomoError, LomoError } from '@lomo/tensor';
import { choose, wayOf } from './choice.ts';
import type { Asked } from './nearest.ts';
import { nearest, peakLines, settingWords, slowerWords } from './nearest.ts';
import { bytes } from './quantity.ts';
import type { Way } from './ways.ts';
import { Ways } from './ways.ts';

/** A device with an arena of the chosen plan's extent. Throws OutOfMemory or MemoryHeld with the peak of the plan and the next settings that need less. */
export function reserve(backend: Backend, asked: Asked): Promise<Device> {
  return reserveFor(backend, asked.chosen.candidate.plan, () => smaller(asked));
}

/** The same for a plan that stands alone; `less` says what would need less. */
export async function reserveFor(backend: Backend, plan: MemoryPlan, less: () => readonly string[] | Promise<readonly string[]>): Promise<Device> {
  try {
    return new Device(backend, { bytes: plan.extent });
  } catch (error) {
    if (!isLomoError(error, 'OutOfMemory') && !isLomoError(error, 'MemoryHeld')) throw error;
    const lines = await less();
    throw new LomoError(error.code, [error.message, 'nothing has been started; it was for', ...peakLines(plan), ...(lines.length === 0 ? ['nothing near this needs less'] : ['what needs less:', ...lines.map((line) => `  ${line}`)])].join('\n'), error.details, error);
  }
}

/** How settings say that a way is another one. */
function changes(from: Way, to: Way): string[] {
  return [
    ...(from.keeps && !to.keeps ? ['gradient_checkpointing: true'] : []),
    ...(from.by === to.by ? [] : [`clip_by: ${to.by}`]),
    ...(from.stages === to.stages ? [] : [`stages: ${to.stages}`]),
    ...(from.accumulate === to.accumulate ? [] : [`accumulation: ${to.accumulate}`]),
    ...(from.headForm === to.headForm ? [] : [`head_form: ${to.headForm}`]),
  ];
}

/** Share of the extent that a proposal saves at least. */
const worthwhile = 0.05;

/** What the run could do without being another one, then the nearest other settings; each with its saving. */
async function smaller({ backend, base, chosen, ...rest }: Asked): Promise<readonly string[]> {
  const { candidate } = chosen;
  const { extent } = candidate.plan;
  const saves = (other: number): string => `saves ${bytes(extent - other)}, then needs ${bytes(other)}`;
  const lines: string[] = [];
  const memory = Math.floor(extent * (1 - worthwhile));
  const own = await choose(new Ways(backend, base, rest.rates), memory);
  if (own.fits) lines.push(`${changes(wayOf(candidate), wayOf(own.candidate)).join(', ') || 'smaller micro-batches'}: ${saves(own.candidate.plan.extent)}`);
  for (const n of await nearest({ backend, base, chosen: { ...chosen, memory }, ...rest })) {
    const line = `${settingWords(n.settings)}: ${saves(n.extent)}, ${slowerWords(n)}${n.note === null ? '' : ` (${n.note})`}`;
    if (!lines.some((known) => known.startsWith(`${settingWords(n.settings)}: `))) lines.push(line);
  }
  return lines;
}
