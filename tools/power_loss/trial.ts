// One life of a run's checkpoints on a disk that loses its power again and again: whatever was acknowledged is found and whole after each crash.
import { createHash } from 'node:crypto';
import type { Files } from '../../packages/models/src/index.ts';
import { createModel, observeFiles, readConfig } from '../../packages/models/src/index.ts';
import { adamw, Optimizer, optimOps } from '../../packages/optim/src/index.ts';
import { Device, ReferenceBackend, tensorOps } from '../../packages/tensor/src/index.ts';
import type { TrainerState, Training } from '../../packages/trainer/src/index.ts';
import { contentsOf, restoreCheckpoint, saveCheckpoint, Snapshot, surveyCheckpoints, tidy } from '../../packages/trainer/src/index.ts';
import { modelFolder } from '../tiny/folder.ts';
import { Disk } from './disk.ts';
import type { Draw } from './draw.ts';

/** Thrown by every file call once the power is gone. */
export class PowerLoss extends Error {}

/** What a saver may do wrong, to see that the trial notices. */
export type Sabotage = 'none' | 'no sync at all' | 'files not synced' | 'folders not synced' | 'removes before it renames';

/** What is trained, without training: weights are written by the trial. */
export async function openTraining(): Promise<{ readonly training: Training; readonly from: string }> {
  const from = modelFolder();
  const device = new Device(new ReferenceBackend({ ops: [...tensorOps, ...optimOps], precision: 'f32' }), { bytes: 2 ** 20 });
  const model = createModel(await readConfig(from), device);
  return { training: { device, model, optimizer: new Optimizer(device, model.parameters, { rule: adamw() }) }, from };
}

export interface LifeOptions {
  readonly draw: Draw;
  readonly crashes: number;
  readonly sabotage?: Sabotage;
}

export interface Life {
  readonly crashes: number;
  /** Saves that returned. */
  readonly acknowledged: number;
  /** What was found wrong after a crash; the life ends there. */
  readonly wrong: string | null;
}

interface Attempt {
  readonly step: number;
  readonly digest: string;
  readonly evalLoss: number | null;
  acknowledged: boolean;
}

/** Saves, re-saves, rotates and starts again on one disk, which loses its power at instants drawn at random. */
export async function liveThrough({ training, from }: Awaited<ReturnType<typeof openTraining>>, { draw, crashes, sabotage = 'none' }: LifeOptions): Promise<Life> {
  const root = '/runs/one/run';
  let disk = new Disk();
  disk.import(from);
  const attempts: Attempt[] = [];
  let acknowledged = -1; // the attempt
  let saves = 0;
  // Of a step: saving it again is evaluating it again.
  const losses = new Map<number, number | null>();
  const keep = 1 + draw.below(3);
  const snapshot = new Snapshot();
  for (let crash = 1; crash <= crashes; crash++) {
    // At any call, or shortly after a rename: that is where names change hands.
    let renames = draw.next() < 0.5 ? 0 : 1 + draw.below(5);
    let calls = renames === 0 ? draw.below(260) : draw.below(4);
    const files = observeFiles(sabotaged(disk.files, sabotage), ({ verb }) => {
      if (acknowledged < 0) return; // something must be at stake
      if (renames > 0) renames -= verb === 'rename' ? 1 : 0;
      else if (--calls < 0) throw new PowerLoss();
    });
    try {
      await tidy(root, files);
      let step = (await surveyCheckpoints(root, files)).complete[0]?.step ?? 0;
      for (;;) {
        if (step === 0 || draw.next() > 0.3) step++;
        if (!losses.has(step)) losses.set(step, draw.next() < 0.4 ? draw.next() : null);
        const attempt: Attempt = { acknowledged: false, step, digest: await write(training, draw), evalLoss: losses.get(step)! };
        attempts.push(attempt);
        const number = attempts.length - 1;
        const contents = draw.next() < 0.5 ? contentsOf(training) : await snapshot.take(contentsOf(training));
        await saveCheckpoint(training, root, { from, files, keep, contents, state: stateOf(attempt) });
        acknowledged = number;
        attempt.acknowledged = true;
        saves++;
      }
    } catch (error) {
      if (!isPowerLoss(error)) throw error;
    }
    // Sometimes only the process dies, and the disk forgets nothing.
    if (draw.next() > 0.2) disk = disk.afterPowerLoss(draw);
    const wrong = await judge(training, disk.files, { root, attempts, acknowledged, keep });
    if (wrong !== null) return { crashes: crash, acknowledged: saves, wrong: `after crash ${crash}: ${wrong}` };
  }
  return { crashes, acknowledged: saves, wrong: null };
}

/** What is wrong with the checkpoints that a crash has left; null where nothing is. */
async function judge(training: Training, files: Files, { root, attempts, acknowledged, keep }: { readonly root: string; readonly attempts: readonly Attempt[]; readonly acknowledged: number; readonly keep: number }): Promise<string | null> {
  const { complete, damaged } = await surveyCheckpoints(root, files);
  if (damaged.length > 0) return `${damaged[0]!.path}: ${damaged[0]!.reason}`;
  if (acknowledged < 0) return null;
  const saved = attempts[acknowledged]!;
  const newest = complete[0];
  if (newest === undefined) return `step ${saved.step} was saved, no checkpoint is left`;
  if (newest.step < saved.step) return `step ${saved.step} was saved, the newest checkpoint is of step ${newest.step}`;
  for (const { path, step, state } of complete) {
    try {
      await restoreCheckpoint(training, path, files);
    } catch (error) {
      return String(error);
    }
    const found = await digestOf(training);
    const known = attempts.findLastIndex((attempt) => attempt.step === step && attempt.digest === found);
    if (known < 0 || attempts[known]!.evalLoss !== state.evalLoss) return `${path} holds what was never saved as step ${step}`;
    if (step === newest.step && known < acknowledged) return `${path} is older than what was saved last as step ${step}`;
  }
  // Fewer than asked for only while there were never that many: rotation takes none before another one is durable.
  const steps = new Set(attempts.filter((attempt) => attempt.acknowledged).map(({ step }) => step));
  if (complete.length < Math.min(keep, steps.size)) return `${complete.length} checkpoints are left of ${steps.size}, ${keep} are to be kept`;
  const best = attempts.filter((attempt) => attempt.acknowledged && attempt.evalLoss !== null).toSorted((a, b) => a.evalLoss! - b.evalLoss!)[0];
  const isKept = best === undefined || complete.some(({ state }) => state.evalLoss !== null && state.evalLoss <= best.evalLoss!);
  return isKept ? null : `the checkpoint of step ${best.step}, the best, is gone`;
}

/** Fills weights and state with new numbers; returns their digest. */
async function write(training: Training, draw: Draw): Promise<string> {
  const { device, model, optimizer } = training;
  for (const tensor of [...model.parameters, ...[...optimizer.state()].map((state) => state.tensor)]) {
    const base = draw.next();
    device.writeNumbers(tensor, Array.from({ length: tensor.bytes / 4 }, (_, i) => Math.fround(base + i / 1024)));
  }
  return digestOf(training);
}

async function digestOf({ device, model, optimizer }: Training): Promise<string> {
  const hash = createHash('sha256');
  for (const parameter of model.parameters) hash.update(new Uint8Array((await device.read(parameter)).buffer));
  for (const { tensor } of optimizer.state()) hash.update(new Uint8Array((await device.read(tensor)).buffer));
  return hash.digest('hex');
}

function stateOf({ step, evalLoss }: Attempt): Omit<TrainerState, 'files' | 'sizes'> {
  return {
    format: 2, step, skipped: [], steps: 1000, seed: 1, dataSeed: 1, trainedTokens: step, bestEvalLoss: null, bestStep: null, evalLoss, lossScale: null,
    fingerprint: 'one run', settings: null, data: null, machine: {},
  };
}

/** `files` as a careless saver would use them. */
export function sabotaged(files: Files, sabotage: Sabotage): Files {
  const nothing = (): Promise<void> => Promise.resolve();
  const unsynced: Files = {
    ...files,
    open: async (path, mode) => ({ ...(await files.open(path, mode)), sync: nothing }),
  };
  switch (sabotage) {
    case 'none':
      return files;
    case 'files not synced':
      return unsynced;
    case 'folders not synced':
      return { ...files, syncFolder: nothing };
    case 'no sync at all':
      return { ...unsynced, syncFolder: nothing };
    case 'removes before it renames':
      return { ...files, rename: (from, to) => (to.endsWith('.replaced') ? files.remove(from) : files.rename(from, to)) };
    default:
      throw new Error(`no sabotage '${String(sabotage satisfies never)}'`);
  }
}

/** Also where the error has been given the file layer's own words, or where closing a file failed as well. */
export function isPowerLoss(error: unknown): boolean {
  if (!(error instanceof Error)) return false;
  return error instanceof PowerLoss || isPowerLoss(error.cause) || ('error' in error && isPowerLoss(error.error));
}

/** A life for every seed from `first` on, until there were `crashes`; what went wrong in them. */
export async function lives(crashes: number, options: { readonly first: number; readonly sabotage?: Sabotage; readonly crashesEach: number; readonly draw: (seed: number) => Draw }): Promise<{ readonly crashes: number; readonly acknowledged: number; readonly wrong: readonly string[] }> {
  const opened = await openTraining();
  const wrong: string[] = [];
  let [seed, done, acknowledged] = [options.first, 0, 0];
  while (done < crashes) {
    const life = await liveThrough(opened, { draw: options.draw(seed), crashes: Math.min(options.crashesEach, crashes - done), ...(options.sabotage === undefined ? {} : { sabotage: options.sabotage }) });
    if (life.wrong !== null) wrong.push(`seed ${seed}, ${life.wrong}`);
    done += life.crashes;
    acknowledged += life.acknowledged;
    seed++;
  }
  opened.training.device.free();
  return { crashes: done, acknowledged, wrong };
}

