// Which checkpoints outlive which runs, and what a run that cannot be opened leaves behind.
import { readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { optimOps } from '@lomo/optim';
import { isLomoError, ReferenceBackend, tensorOps } from '@lomo/tensor';
import { expect, test } from 'vitest';
import { modelFolder } from '../../../tools/tiny/folder.ts';
import { fit, listCheckpoints } from '../src/index.ts';
import { openPoisoned } from './poisoned.ts';
import { open, settings } from './tiny.ts';

test('the best checkpoint outlives the runs that resume after it', async () => {
  const { output_dir, ...rest } = settings({ save_steps: 1, save_total_limit: 1 });
  const changes = { ...rest, output_dir: output_dir! };
  const first = await open(changes);
  const controller = new AbortController();
  for await (const event of fit(first, { signal: controller.signal })) {
    if (event.kind === 'step' && event.step === 2) first.noteEvaluation(1e-3);
    if (event.kind === 'step' && event.step === 3) controller.abort();
  }
  await first.close();
  expect((await listCheckpoints(first.root)).map(({ step }) => step)).toEqual([3, 2]);
  const second = await open(changes);
  await second.restore();
  for await (const event of fit(second)) if (event.kind === 'step') expect(second.noteEvaluation(1)).toBe(false);
  // A held-out loss that is none is not the best, and what was the best stays it.
  expect(second.noteEvaluation(NaN)).toBe(false);
  expect(second.bestEvalLoss).toBe(1e-3);
  await second.close();
  expect((await listCheckpoints(second.root)).map(({ step }) => step)).toEqual([6, 2]);
});

test('a run that does not resume what lies in its folder keeps what it saves', async () => {
  const { output_dir, ...rest } = settings({ save_steps: 1, save_total_limit: 2, max_steps: 3 });
  const changes = { ...rest, output_dir: output_dir! };
  const first = await open(changes);
  for await (const _ of fit(first));
  await first.close();
  const second = await open({ ...changes, resume_from_checkpoint: false, learning_rate: 0.2 });
  const seen: number[][] = [];
  for await (const event of fit(second)) if (event.kind === 'saved') seen.push((await listCheckpoints(second.root)).map(({ step }) => step));
  await second.close();
  expect(seen).toEqual([[3, 2, 1], [3, 2, 1], [3, 2]]);
});

test.each([1, 100])('a torn step goes back within its own run, saved every %i steps, whatever else lies in the folder', async (save_steps) => {
  const { output_dir, ...rest } = settings({ save_steps: 1, max_steps: 4 });
  const changes = { ...rest, output_dir: output_dir! };
  const first = await openPoisoned({ kind: 'gradient', sick: () => false }, changes);
  for await (const _ of fit(first));
  await first.close();
  const { model_name_or_path } = first.config;
  const second = await openPoisoned({ kind: 'gradient', sick: (step) => step === 3 }, { ...changes, model_name_or_path, save_steps, resume_from_checkpoint: false });
  const steps: string[] = [];
  for await (const event of fit(second)) if (event.kind === 'step' || event.kind === 'rolled back') steps.push('to' in event ? `back to ${event.to}` : String(event.step));
  await second.close();
  expect(steps).toEqual(save_steps === 1 ? ['1', '2', 'back to 2', '4'] : ['1', '2', 'back to 0', '1', '2', '4']);
});

test('a run without weights to load gives its memory back', async () => {
  const folder = modelFolder();
  for (const name of readdirSync(folder)) if (name.endsWith('.safetensors')) rmSync(join(folder, name));
  const backend = new ReferenceBackend({ ops: [...tensorOps, ...optimOps], precision: 'f32' });
  const { output_dir: _, ...rest } = settings();
  const error = await open({ ...rest, init: 'pretrained', model_name_or_path: folder, output_dir: join(folder, 'out'), clip_mode: 'global', clip_by: 'file' }, { backend }).then(() => null, (e: unknown) => e);
  expect(isLomoError(error)).toBe(true);
  expect(backend.reserved()).toBe(0);
});
