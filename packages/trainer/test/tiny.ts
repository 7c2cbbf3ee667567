// Short runs on the reference backend, a second each.
import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { optimOps } from '@lomo/optim';
import { ReferenceBackend, tensorOps } from '@lomo/tensor';
import { dataFile, modelFolder } from '../../../tools/tiny/folder.ts';
import type { RunInput, SessionInput } from '../src/index.ts';
import { openSession, parseRun } from '../src/index.ts';

/** Settings of a short run into a folder of its own. */
export function settings(changes: Partial<RunInput> = {}): RunInput {
  return {
    model_name_or_path: modelFolder(), init: 'random', datasets: [{ path: dataFile() }], max_seq_length: 16, per_device_train_batch_size: 4,
    gradient_accumulation_steps: 2, max_steps: 6, optim: 'lomo', learning_rate: 0.1, clip_mode: 'none', lr_scheduler_type: 'constant', warmup_steps: 0,
    output_dir: mkdtempSync(join(tmpdir(), 'lomo-trainer-run-')), save_steps: 100, ...changes,
  };
}

/** A session on the reference backend in float32. */
export function open(changes: Partial<RunInput> = {}, more: Partial<SessionInput> = {}) {
  const backend = new ReferenceBackend({ ops: [...tensorOps, ...optimOps], precision: 'f32' });
  return openSession({ config: parseRun(settings(changes)).config, backend, memory: 2 ** 30, ...more });
}
