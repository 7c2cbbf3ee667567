// Every file call of a save, of a save that rotates, of one that replaces its own step and of a resume fails in turn: what was saved stays whole.
// A slice is run by faults.test.ts, all of it by tools/power_loss/faults.long.ts.
import { createHash } from 'node:crypto';
import { observeFiles } from '@lomo/models';
import type { FileCall, Files } from '@lomo/models';
import { isLomoError } from '@lomo/tensor';
import type { LomoError } from '@lomo/tensor';
import { expect } from 'vitest';
import type { Session } from '../src/index.ts';
import { surveyCheckpoints } from '../src/index.ts';
import { Disk } from '../../../tools/power_loss/disk.ts';
import { open, settings } from './tiny.ts';

/** A disk in memory, where a thousand syncs cost nothing, that fails the call that `fails` picks, with `errno`. */
class Faults {
  readonly disk = new Disk();
  count = 0;
  errno = 'EIO';
  fails: (call: FileCall, count: number) => boolean = () => false;
  readonly files: Files = observeFiles(this.disk.files, (call) => {
    if (this.fails(call, ++this.count)) throw Object.assign(new Error('injected'), { code: this.errno });
  });

  /** Calls of `body` when nothing fails. */
  async calls(body: () => Promise<unknown>): Promise<number> {
    this.count = 0;
    await body();
    return this.count;
  }

  /** What `body` gives, or throws, when its call `k` fails. */
  async failing(k: number, errno: string, body: () => Promise<unknown>): Promise<unknown> {
    this.count = 0;
    this.errno = errno;
    this.fails = (_, count) => count === k;
    const result = await body().then((value) => value, (e: unknown) => e);
    this.fails = () => false;
    return result;
  }
}

export async function digest({ assembly: { device, model, optimizer } }: Session): Promise<string> {
  const hash = createHash('sha256');
  for (const p of model.parameters) hash.update(new Uint8Array((await device.read(p)).buffer));
  for (const { tensor } of optimizer.state()) hash.update(new Uint8Array((await device.read(tensor)).buffer));
  return hash.digest('hex');
}

/** Writes the step into every weight, so that each step's checkpoint has bytes of its own. */
export function fake(session: Session, step: number, version = 0): void {
  const { device, model } = session.assembly;
  for (const p of model.parameters) device.writeNumbers(p, Array.from({ length: p.bytes / 4 }, (_, i) => step + version / 4 + i / 4096));
  session.done = step;
}

async function onDisk({ disk, files }: Faults, keep = 2): Promise<Session> {
  const { model_name_or_path } = settings();
  disk.import(model_name_or_path);
  return open({ optim: 'adamw', model_name_or_path, output_dir: '/runs/one', save_total_limit: keep }, { files });
}

/** SHA-256 of the state of every complete checkpoint, by its step: each is loaded, every byte checked. */
async function contents(session: Session, files: Files): Promise<Map<number, string>> {
  const { complete, damaged } = await surveyCheckpoints(session.root, files);
  expect(damaged).toEqual([]);
  const found = new Map<number, string>();
  for (const { path, step } of complete) {
    await session.resume(path);
    found.set(step, await digest(session));
  }
  return found;
}

const errnos = ['ENOSPC', 'EDQUOT', 'EROFS', 'EIO', 'EMFILE'];

/** How a save failed: typed, with path and errno, whether it was thrown or said of a checkpoint that is durable. */
function expectNamed(result: unknown, errno: string, at: string): void {
  const error = isLomoError(result) ? result : (result as { notRemoved: LomoError | null }).notRemoved;
  expect(error, at).not.toBeNull();
  expect(isLomoError(error, 'FileError'), `${at}: ${String(error)}`).toBe(true);
  expect(error!.details['errno'], at).toBe(errno);
  expect(error!.message, at).toContain(String(error!.details['path']));
  expect(error!.message, at).toContain(errno);
}

/** What is saved while calls fail: a new step or the newest one again; how many checkpoints are kept. */
export interface SaveCase {
  readonly name: string;
  readonly replaces: boolean;
  readonly keep: number;
}

export const saveCases: readonly SaveCase[] = [
  { name: 'a save after another', replaces: false, keep: 2 },
  { name: 'a save that removes an older one', replaces: false, keep: 1 },
  { name: 'a save of a step that is saved already', replaces: true, keep: 2 },
];

/** Which calls fail: every `stride`th from `from` on; all with 1 and 1. */
export interface Slice {
  readonly from: number;
  readonly stride: number;
}

/** Fails one call of a save after the other; returns how many. */
export async function sweepSaves({ replaces, keep }: SaveCase, { copied, from, stride }: Slice & { readonly copied: boolean }): Promise<number> {
  const faults = new Faults();
  const session = await onDisk(faults, keep);
  const save = async (): Promise<unknown> => (copied ? (await session.saveCopy())!.saved : session.save());
  let step = 1;
  let version = 0;
  fake(session, step);
  await save();
  fake(session, replaces ? step : ++step, ++version);
  const calls = await faults.calls(save);
  expect(calls).toBeGreaterThan(35);
  let failed = 0;
  for (let k = from; k <= calls; k += stride) {
    const errno = errnos[k % errnos.length]!;
    const at = `call ${k} of ${calls}`;
    const before = await contents(session, faults.files);
    const newest = Math.max(...before.keys());
    fake(session, replaces ? step : ++step, ++version);
    const wanted = await digest(session);
    const result = await faults.failing(k, errno, save);
    expectNamed(result, errno, at);
    const after = await contents(session, faults.files);
    if (isLomoError(result)) {
      // The last good one is intact; the new one is there whole (only its name may not be durable), or not at all.
      if (!replaces) expect(after.get(newest), at).toBe(before.get(newest));
      expect([wanted, replaces ? before.get(step) : undefined], at).toContain(after.get(step));
    } else expect(after.get(step), at).toBe(wanted);
    // The disk is well again: the next save works, and clears what was left.
    fake(session, replaces ? step : ++step, ++version);
    const again = await digest(session);
    expect(await save(), at).toMatchObject({ notRemoved: null });
    expect((await contents(session, faults.files)).get(step), at).toBe(again);
    expect((await faults.files.list(session.root)).filter((name) => name.includes('.')), at).toEqual([]);
    failed++;
  }
  await session.close();
  return failed;
}

/** Fails one call of finding and loading the newest checkpoint after the other; returns how many. */
export async function sweepResume({ from, stride }: Slice): Promise<number> {
  const faults = new Faults();
  const session = await onDisk(faults);
  fake(session, 1);
  await session.save();
  const expected = await digest(session);
  const resume = async (): Promise<unknown> => session.resume((await session.newest()).path!);
  const calls = await faults.calls(resume);
  expect(calls).toBeGreaterThan(15);
  let failed = 0;
  for (let k = from; k <= calls; k += stride) {
    const errno = errnos[k % errnos.length]!;
    expectNamed(await faults.failing(k, errno, resume), errno, `call ${k}`);
    expect(await contents(session, faults.files)).toEqual(new Map([[1, expected]]));
    failed++;
  }
  await session.close();
  return failed;
}

/** From one call on all calls fail, as on a disk that is gone; when it is back, nothing is lost. Returns how often. */
export async function sweepOutages({ from, stride }: Slice): Promise<number> {
  const faults = new Faults();
  const session = await onDisk(faults, 1);
  fake(session, 1);
  await session.save();
  fake(session, 2);
  const calls = await faults.calls(() => session.save());
  let failed = 0;
  for (let step = 3, k = from; k <= calls; k += stride, step++) {
    const before = await contents(session, faults.files);
    fake(session, step);
    const wanted = await digest(session);
    faults.count = 0;
    faults.fails = (_, count) => count >= k;
    const result = await session.save().then((saved) => saved, (e: unknown) => e);
    faults.fails = () => false;
    expectNamed(result, faults.errno, `from call ${k}`);
    const after = await contents(session, faults.files);
    const newest = Math.max(...after.keys());
    expect(newest).toBeGreaterThanOrEqual(Math.max(...before.keys()));
    expect(after.get(newest)).toBe(newest === step ? wanted : before.get(newest));
    expect((await session.newest()).path).toContain(String(newest));
    failed++;
  }
  await session.close();
  return failed;
}
