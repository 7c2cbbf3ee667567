// A process of the GPU bench: one job as JSON in the first argument, what it finds as lines of JSON.
import type { ConformanceJob, GoldenJob } from './conform.ts';
import { conformanceVerdicts, goldenRows } from './conform.ts';
import type { KernelsJob, ProfileJob } from './kernels_process.ts';
import { profileStep, timeKernels } from './kernels_process.ts';
import type { LimitSizes } from './limits.ts';
import { measureGpuLimits } from './limits.ts';
import type { RowsJob } from './rows.ts';
import { compareRows } from './rows.ts';
import type { StepsJob } from './steps.ts';
import { trainSteps } from './steps.ts';
import type { Where } from './where.ts';
import { openCuda } from './where.ts';

export type Job =
  | ({ readonly kind: 'steps' } & StepsJob)
  | ({ readonly kind: 'conformance' } & ConformanceJob)
  | ({ readonly kind: 'golden' } & GoldenJob)
  | ({ readonly kind: 'kernels' } & KernelsJob)
  | ({ readonly kind: 'profile' } & ProfileJob)
  | ({ readonly kind: 'rows' } & RowsJob)
  | { readonly kind: 'limits'; readonly where: Where; readonly sizes: LimitSizes }
  | { readonly kind: 'facts'; readonly where: Where };

/** Does a job; `found` hears its findings one by one. Throws what the job throws. */
export async function work(job: Job, found: (finding: unknown) => void): Promise<void> {
  switch (job.kind) {
    case 'steps':
      return found(await trainSteps(job));
    case 'conformance':
      for await (const verdict of conformanceVerdicts(job)) found(verdict);
      return;
    case 'golden':
      for await (const row of goldenRows(job)) found({ ...row, error: row.error === null ? null : String(row.error), bar: row.bar === null ? null : String(row.bar) });
      return;
    case 'kernels':
      return found(await timeKernels(job));
    case 'profile':
      return found(await profileStep(job));
    case 'rows':
      return found(await compareRows(job));
    case 'limits': {
      await using backend = openCuda(job.where);
      return found(await measureGpuLimits(backend, job.sizes));
    }
    case 'facts': {
      await using backend = openCuda(job.where);
      return found(backend.facts);
    }
    default:
      throw new Error(`no job '${String((job satisfies never as { kind: string }).kind)}'`);
  }
}
