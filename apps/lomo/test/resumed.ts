// Runs stopped after any step and gone on with: what their settings are, and the SHA-256 of the state they end in.
import { createHash } from 'node:crypto';
import { mkdtempSync, readFileSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fit, listCheckpoints, openSession, parseRun } from '@lomo/trainer';
import type { RunInput, Session } from '@lomo/trainer';
import { cpu } from '@lomo/cpu';
import type { Backend } from '@lomo/tensor';
import { dataFile, modelFolder } from '../../../tools/tiny/folder.ts';

/** Settings that leave something behind for the next step, or decide what is read of it. `stop`: the step after which a run is gone on with. */
export const resumeAxes = {
  rule: ['lomo', 'adalomo', 'adamw', 'sgd'],
  dtype: ['f32', 'bf16', 'f16'],
  rounding: ['stochastic', 'nearest'],
  clip: ['none', 'value', 'parameter', 'two-pass', 'memory', 'file'],
  split: [1, 2, 4],
  scale: ['none', '1024', 'dynamic'],
  schedule: ['constant', 'cosine', 'wsd'],
  packing: ['true', 'false'],
  stop: [1, 2, 3, 4],
} as const satisfies Readonly<Record<string, readonly (string | number)[]>>;
export type ResumeRow = Readonly<Record<keyof typeof resumeAxes, string | number>>;
/** Steps of a whole run. */
export const runSteps = 5;

/** Where f32 has nothing to round. */
export function isRepeated({ dtype, rounding }: ResumeRow): boolean {
  return dtype === 'f32' && rounding === 'nearest';
}

/** One data file and one model for all runs. */
export class Runs implements AsyncDisposable {
  private readonly model = modelFolder();
  private readonly data = dataFile(23);
  private readonly backend: Backend;

  /** The CPU on one thread, unless another backend is given; the runs dispose of it. */
  constructor(backend: Backend = cpu({ threads: 1 })) {
    this.backend = backend;
  }

  /** Runs to the end from the beginning, saving after every step. Returns the folder of checkpoints. */
  async whole(row: ResumeRow): Promise<string> {
    const root = mkdtempSync(join(tmpdir(), 'lomo-resume-'));
    const session = await this.open(row, { output_dir: root, save_steps: 1, save_total_limit: runSteps });
    await drive(session);
    return root;
  }

  /** Goes on from the checkpoint of `whole` after step `stop`, into a folder of its own. Returns the digest of the state it ends in. */
  async resumed(row: ResumeRow, { whole, stop }: { readonly whole: string; readonly stop: number }): Promise<string> {
    const root = mkdtempSync(join(tmpdir(), 'lomo-resume-'));
    const session = await this.open(row, { output_dir: root });
    const found = (await listCheckpoints(whole)).find(({ step }) => step === stop);
    if (found === undefined) throw new Error(`${whole} has no checkpoint of step ${stop}`);
    await session.resume(found.path);
    await drive(session);
    const digest = await digestOf(root);
    await rm(root, { recursive: true });
    return digest;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.backend[Symbol.asyncDispose]();
  }

  private open(row: ResumeRow, changes: Partial<RunInput>): Promise<Session> {
    const clip: Partial<RunInput> =
      row.clip === 'none' ? { clip_mode: 'none' }
      : row.clip === 'value' ? { clip_mode: 'value', clip_value: 1e-3 }
      : row.clip === 'parameter' ? { clip_mode: 'parameter', max_grad_norm: 0.05 }
      : { clip_mode: 'global', max_grad_norm: 0.2, clip_by: row.clip as 'memory' };
    const { config } = parseRun({
      model_name_or_path: this.model, init: 'random', datasets: [{ path: this.data }], max_seq_length: 16, per_device_train_batch_size: 4, max_steps: runSteps,
      optim: row.rule, dtype: row.dtype, rounding: row.rounding, gradient_accumulation_steps: row.split, lr_scheduler_type: row.schedule, packing: row.packing === 'true',
      loss_scale: row.scale === 'dynamic' ? { initial: 1024, growth_steps: 2 } : row.scale === '1024' ? 1024 : 'none',
      learning_rate: 0.01, warmup_steps: 2, weight_decay: 0.1, seed: 7, ...clip, ...changes,
    });
    return openSession({ config, backend: this.backend, memory: 2 ** 30 });
  }
}

/** SHA-256 of the state that the newest checkpoint of `root` is in: what trainer_state.json says, which has the SHA-256 of every other file. */
export async function digestOf(root: string): Promise<string> {
  const [newest] = await listCheckpoints(root);
  if (newest?.step !== runSteps) throw new Error(`${root}: the newest checkpoint is of step ${newest?.step}`);
  return createHash('sha256').update(readFileSync(join(newest.path, 'trainer_state.json'))).digest('hex');
}

async function drive(session: Session): Promise<void> {
  for await (const event of fit(session)) if ('error' in event) throw event.error;
  await session.close();
}
