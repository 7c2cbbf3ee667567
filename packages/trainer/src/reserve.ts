// The arena reserved on a backend; where the memory is not there after all, the error says what of the plan it was for and what would need less.
import type { Backend } from '@lomo/tensor';
import { Device, isLomoError, LomoError } from '@lomo/tensor';
import { choose, wayOf } from './choice.ts';
import type { Asked } from './nearest.ts';
import { nearest, peakLines, settingWords, slowerWords } from './nearest.ts';
import { bytes } from './quantity.ts';
import type { Way } from './ways.ts';
import { Ways } from './ways.ts';

/** A device with an arena of the chosen plan's extent. Throws OutOfMemory or MemoryHeld with the peak of the plan and the next settings that need less. */
export async function reserve(backend: Backend, asked: Asked): Promise<Device> {
  const { plan } = asked.chosen.candidate;
  try {
    return new Device(backend, { bytes: plan.extent });
  } catch (error) {
    if (!isLomoError(error, 'OutOfMemory') && !isLomoError(error, 'MemoryHeld')) throw error;
    const less = await smaller(asked);
    throw new LomoError(error.code, [error.message, 'nothing has been started', ...peakLines(plan), ...(less.length === 0 ? ['nothing near this run needs less'] : ['what needs less:', ...less.map((line) => `  ${line}`)])].join('\n'), error.details, error);
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

/** What the run could do without being another one, then the nearest other settings; each with its saving. */
async function smaller({ backend, base, chosen, ...rest }: Asked): Promise<readonly string[]> {
  const { candidate } = chosen;
  const { extent } = candidate.plan;
  const saves = (other: number): string => `saves ${bytes(extent - other)}, then needs ${bytes(other)}`;
  const lines: string[] = [];
  const own = await choose(new Ways(backend, base, rest.rates), extent - 1);
  if (own.fits) lines.push(`${changes(wayOf(candidate), wayOf(own.candidate)).join(', ') || 'smaller micro-batches'}: ${saves(own.candidate.plan.extent)}`);
  for (const n of await nearest({ backend, base, chosen: { ...chosen, memory: extent - 1 }, ...rest })) {
    const line = `${settingWords(n.settings)}: ${saves(n.extent)}, ${slowerWords(n)}${n.note === null ? '' : ` (${n.note})`}`;
    if (!lines.some((known) => known.startsWith(`${settingWords(n.settings)}: `))) lines.push(line);
  }
  return lines;
}
