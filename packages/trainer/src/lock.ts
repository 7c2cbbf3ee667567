// One run in one folder: a lock that says whose it is, that a dead process cannot keep, and that two who find it dead cannot both take.
//
// The lock is a folder, .lock, with the owner's facts in it. It appears whole, by a rename from a name of its own, which fails while there is
// one; so it goes, to a name made of its owner's id, which fails for whoever comes second. Beats, for those who cannot ask the owner's kernel,
// are renames too: they need no room on a disk.
import { createHash, randomUUID } from 'node:crypto';
import { join } from 'node:path';
import type { Files } from '@lomo/models';
import { closing, ensureFolder, missingFolders, nodeFiles, readWhole, removeEmpty, writeFully } from '@lomo/models';
import { isLomoError, LomoError } from '@lomo/tensor';
import { z } from 'zod';
import type { ProcessIdentity } from './process_identity.ts';
import { fateOf, thisProcess } from './process_identity.ts';

const lockName = '.lock';
const ownerName = 'owner.json';
const candidate = /^\.lock-[\w-]+$/;
const ended = /^\.lock\.ended-[\w-]+$/;

/** Who holds a folder. */
export interface LockOwner extends ProcessIdentity {
  readonly id: string;
  /** When it began, by its clock; for words only. */
  readonly since: string;
}

const ownerSchema = z.object({
  id: z.string().regex(/^[\w-]{1,64}$/), since: z.string().max(64), pid: z.number().int().positive(), host: z.string().max(256),
  boot: z.string().nullable(), space: z.string().nullable(), started: z.string().nullable(),
});

export interface LockOptions {
  readonly files?: Files;
  /** Hears what is waited for and what is taken over, in a sentence. */
  readonly say?: (line: string) => void;
  /** Called when another run has taken the lock, which only one that was stopped for long can lose: nothing may be written from then on. */
  readonly onLost?: () => void;
  /** The process that takes it; this one unless a test says otherwise. */
  readonly here?: ProcessIdentity;
  /** Milliseconds between two beats, and how long a lock from elsewhere must be silent to be taken over. */
  readonly beat?: number;
  readonly silence?: number;
}

/** What a file system says where nothing can be written: no lock is needed, and whoever wants to write hears it when it tries. */
const unwritable: readonly string[] = ['EROFS', 'EACCES', 'EPERM'];

/** How often a lock may be gone again when it is looked at. */
const mostTries = 40;

/** A folder that this process alone writes to, until it is released. */
export class FolderLock implements AsyncDisposable {
  readonly root: string;
  readonly owner: LockOwner;
  private readonly files: Files;
  private readonly made: readonly string[];
  private readonly timer: NodeJS.Timeout;
  private beats = 0;
  private beating: Promise<void> = Promise.resolve();
  private held = true;

  /** Made by `lockFolder`. */
  constructor(root: string, options: { readonly owner: LockOwner; readonly files: Files; readonly made: readonly string[]; readonly beat: number; readonly onLost: () => void }) {
    this.root = root;
    this.owner = options.owner;
    this.files = options.files;
    this.made = options.made;
    this.timer = setInterval(() => {
      this.beating = this.beating.then(() => this.goOn(options.onLost));
    }, options.beat);
    this.timer.unref();
  }

  /** Gives the folder to whoever comes next, and takes away folders that were made for it and hold nothing else. A disk that refuses is no error: a lock whose process has ended is none. */
  async release(): Promise<void> {
    clearInterval(this.timer);
    await this.beating;
    if (!this.held) return;
    this.held = false;
    const { files, root, owner } = this;
    try {
      const path = join(root, `${lockName}-${owner.id}`);
      await files.rename(join(root, lockName), path);
      await files.remove(path);
      await sweep(root, { files, here: owner, spare: null });
      await removeEmpty(files, this.made);
    } catch (error) {
      if (!isLomoError(error)) throw error;
    }
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.release();
  }

  private async goOn(onLost: () => void): Promise<void> {
    if (!this.held) return;
    const path = (n: number): string => join(this.root, lockName, beatName(this.owner.id, n));
    try {
      await this.files.rename(path(this.beats), path(this.beats + 1));
      this.beats++;
    } catch (error) {
      // A disk that fails a beat may be well at the next.
      if (errnoOf(error) !== 'ENOENT') return;
      clearInterval(this.timer);
      this.held = false;
      onLost();
    }
  }
}

/**
 * Makes `root`, if need be, and takes its lock. One whose process has ended is taken over, and that is said; so is one from elsewhere that is
 * silent for `silence` milliseconds. Null where nothing can be written. Throws FolderInUse naming process, host and folder, and FileError.
 */
export async function lockFolder(root: string, options: LockOptions = {}): Promise<FolderLock | null> {
  const { files = nodeFiles, say = () => {}, onLost = () => {}, here = thisProcess(), beat = 5000, silence = 30_000 } = options;
  const owner: LockOwner = { ...here, id: randomUUID(), since: new Date().toISOString() };
  const path = join(root, lockName);
  try {
    const made = await missingFolders(files, root);
    await ensureFolder(files, root);
    let spare: string | null = null;
    for (let tries = 0; !(await take(root, files, owner)); tries++) {
      if (tries >= mostTries) throw new LomoError('FolderInUse', `${root}: its lock, ${path}, changes hands faster than it can be read; try again`, { path, folder: root });
      const holder = await ownerOf(path, files);
      if (holder === 'nobody') continue;
      if (!('wreck' in holder)) await judge(holder, { root, files, here, say, silence });
      const away = join(root, `${lockName}.ended-${'wreck' in holder ? holder.wreck : holder.id}`);
      // Two wrecks may look alike, and an older one be in the way.
      if ('wreck' in holder && tries > mostTries / 2) await files.remove(away);
      if (!(await moved(files, path, away))) continue;
      spare = away;
      say('wreck' in holder ? `${path} was left damaged by a crash: taken over` : `${path} was left by ${words(holder)}, which has ended: taken over`);
    }
    await sweep(root, { files, here, spare });
    return new FolderLock(root, { owner, files, made, beat, onLost });
  } catch (error) {
    if (isLomoError(error) && error.details['verb'] !== 'rename' && unwritable.includes(errnoOf(error))) return null;
    throw error;
  }
}

/** Throws FolderInUse where the holder runs, or goes on giving signs of it. */
async function judge(holder: LockOwner, { root, files, here, say, silence }: { readonly root: string; readonly files: Files; readonly here: ProcessIdentity; readonly say: (line: string) => void; readonly silence: number }): Promise<void> {
  const fate = fateOf(holder, here);
  if (fate === 'ended') return;
  const path = join(root, lockName);
  if (fate === 'elsewhere') {
    say(`${root} is held by ${words(holder)}: watching it for up to ${Math.ceil(silence / 1000)} s, for it may have ended`);
    if (await isSilent(path, { files, silence })) return;
  }
  const stop = fate === 'running' ? `stop it (kill ${holder.pid}: it saves first)` : 'stop it there';
  throw new LomoError('FolderInUse', `${root} is in use by ${words(holder)}, since ${holder.since}: two runs would remove each other's checkpoints. Let it end, ${stop}, or choose another output_dir`, {
    path, folder: root, pid: holder.pid, host: holder.host,
  });
}

/** True when nothing in the lock has moved for `silence` milliseconds. */
async function isSilent(path: string, { files, silence }: { readonly files: Files; readonly silence: number }): Promise<boolean> {
  const seen = await signs(path, files);
  const end = performance.now() + silence;
  while (performance.now() < end) {
    await new Promise((resolve) => setTimeout(resolve, Math.min(500, silence / 10)));
    if ((await signs(path, files)) !== seen) return false;
  }
  return true;
}

async function signs(path: string, files: Files): Promise<string> {
  try {
    return (await files.list(path)).join();
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return 'gone';
    throw error;
  }
}

/** Puts a lock of ours where none is; false where one is. */
async function take(root: string, files: Files, owner: LockOwner): Promise<boolean> {
  const own = join(root, `${lockName}-${owner.id}`);
  const path = join(root, lockName);
  try {
    await files.makeFolder(own);
    for (const [name, text] of [[ownerName, `${JSON.stringify(owner, null, 2)}\n`], [beatName(owner.id, 0), '']] as const) {
      await closing(await files.open(join(own, name), 'write'), (file) => writeFully(file, new TextEncoder().encode(text), 0));
    }
    if (await moved(files, own, path)) return true;
    // A server may have done it and lost the answer.
    const holder = await ownerOf(path, files);
    if (typeof holder === 'object' && 'id' in holder && holder.id === owner.id) return true;
    await files.remove(own);
    return false;
  } catch (error) {
    await files.remove(own).catch(() => {});
    // Whoever has the lock by now has swept it away.
    if (errnoOf(error) === 'ENOENT') return false;
    throw error;
  }
}

/** Whether the folder got the other name: not where one of that name holds something, nor where it is gone. */
async function moved(files: Files, from: string, to: string): Promise<boolean> {
  try {
    await files.rename(from, to);
    return true;
  } catch (error) {
    const errno = errnoOf(error);
    if (['ENOTEMPTY', 'EEXIST', 'ENOENT'].includes(errno)) return false;
    // Some file systems say no right where others say not empty.
    if (unwritable.includes(errno) && !['', 'gone'].includes(await signs(to, files))) return false;
    throw error;
  }
}

/** Whose lock it is; what a power loss left of one, told by its bytes; 'nobody' where there was none for a moment. */
async function ownerOf(path: string, files: Files): Promise<LockOwner | { readonly wreck: string } | 'nobody'> {
  let bytes: Uint8Array;
  try {
    bytes = await readWhole(files, join(path, ownerName), 4096);
  } catch (error) {
    if (isLomoError(error, 'FileError') && errnoOf(error) !== 'ENOENT') throw error;
    const found = await signs(path, files);
    // A lock is never without its owner's file: either it is another one by now, or a power loss has taken the file.
    return found === 'gone' || (errnoOf(error) === 'ENOENT' && found.includes(ownerName)) ? 'nobody' : { wreck: hashOf(found) };
  }
  try {
    return ownerSchema.parse(JSON.parse(new TextDecoder().decode(bytes)));
  } catch {
    return { wreck: hashOf(bytes) };
  }
}

function hashOf(bytes: string | Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex').slice(0, 32);
}

/** Removes what others that have ended left of theirs: locks in the making, and locks taken over, all but `spare`. What a disk refuses stays, and harms nobody. */
async function sweep(root: string, { files, here, spare }: { readonly files: Files; readonly here: ProcessIdentity; readonly spare: string | null }): Promise<void> {
  try {
    for (const name of await files.list(root)) {
      const path = join(root, name);
      if (ended.test(name) && path !== spare) await files.remove(path);
      if (!candidate.test(name)) continue;
      const holder = await ownerOf(path, files);
      // One that lives makes another when it finds this one gone.
      if (holder !== 'nobody' && ('wreck' in holder || fateOf(holder, here) === 'ended')) await files.remove(path);
    }
  } catch (error) {
    if (!isLomoError(error)) throw error;
  }
}

function beatName(id: string, n: number): string {
  return `beat-${id}-${n}`;
}

function words({ pid, host }: LockOwner): string {
  return `process ${pid} on ${host}`;
}

function errnoOf(error: unknown): string {
  return isLomoError(error) ? String(error.details['errno']) : '';
}
