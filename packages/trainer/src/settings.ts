// The settings that the weights of a run depend on: what a resumed run must share with the one it goes on with.
import { createHash } from 'node:crypto';
import type { RunConfig } from './config.ts';

/** All settings but those that only say where, how often or by which means of equal bits. */
export function settingsOf(config: RunConfig): Readonly<Record<string, unknown>> {
  const { output_dir: _o, run_name: _n, report_to: _r, logging_steps: _l, telemetry: _te, eval_steps: _e, save_steps: _s, save_minutes: _m, save_total_limit: _t, save_from: _sf, resume_from_checkpoint: _c, threads: _th, backend: _b, gpu: _gpu, gradient_checkpointing: _g, eval_datasets: _ed, clip_by: _cb, spill_dir: _sd, stages: _st, offload: _of, stream_dir: _stm, ...rest } = config;
  return rest;
}

/** SHA-256 of the settings and of `data`, a dataset's fingerprint: what weights depend on beside the model they begin with and the machine. */
export function fingerprintOf(config: RunConfig, data: string): string {
  return createHash('sha256').update(JSON.stringify(settingsOf(config))).update(data).digest('hex');
}
