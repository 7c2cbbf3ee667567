// Breadth-first (arXiv 2211.05953): every micro-batch passes a stage before the next stage begins, so that exact accumulation costs one stage's gradient.
import type { Schedule, Work } from '../schedule.ts';

/** The last stage has no forward of its own: its loss is made when it is walked back. */
export const breadthFirst: Schedule = ({ rank, placement, microBatches }) => {
  const own = placement.flatMap((owner, stage) => (owner === rank ? [stage] : []));
  const last = placement.length - 1;
  const all = (kind: Work['kind'], stage: number): Work[] => Array.from({ length: microBatches }, (_, microBatch) => ({ kind, stage, microBatch }));
  return [
    ...own.filter((stage) => stage !== last).flatMap((stage) => all('forward', stage)),
    ...own.toReversed().flatMap((stage) => all('backward', stage)),
  ];
};
