// Proves before step 1 that a run's checkpoints, and gradients put aside, can be written where they are to go.
import { dirname, join, resolve } from 'node:path';
import type { Files } from '@lomo/models';
import { ensureFolder, writeWhole } from '@lomo/models';
import { LomoError } from '@lomo/tensor';
import { surveyCheckpoints } from './checkpoint_folders.ts';
import { bytes as said } from './quantity.ts';

export interface ProbeOptions {
  readonly files: Files;
  /** Of one checkpoint. */
  readonly bytes: number;
  /** Checkpoints kept when the run has made enough of them. */
  readonly kept: number;
  /** Where gradients are put aside and how many bytes, if in a file. */
  readonly spill: { readonly folder: string; readonly bytes: number } | null;
}

/**
 * Makes `root` and writes, syncs and removes a file in it. Throws FileError, and DiskFull where there is no room for one more checkpoint and,
 * on the same file system, a step's spilled gradients. Returns warnings: more checkpoints are to be kept than there is room for.
 */
export async function probeFolder(root: string, { files, bytes, kept, spill }: ProbeOptions): Promise<readonly string[]> {
  await ensureFolder(files, root);
  const path = join(root, '.probe');
  await writeWhole(files, path, new TextEncoder().encode('lomo'));
  await files.remove(path);
  await files.syncFolder(root);
  const shared = spill !== null && (await deviceOf(files, spill.folder)) === (await deviceOf(files, root)) ? spill.bytes : 0;
  const free = await files.freeBytes(root);
  if (free < bytes + shared) {
    const more = shared === 0 ? '' : ` and the gradients that a step puts aside ${said(shared)}`;
    throw new LomoError('DiskFull', `${root}: a checkpoint needs ${said(bytes)}${more}, ${said(free)} are free; free space or choose another output_dir`, { path: root, needed: bytes + shared, free });
  }
  const { complete } = await surveyCheckpoints(root, files);
  // The oldest goes only when the newest is durable: for a moment there is one more.
  const missing = Math.max(0, kept + 1 - complete.length) * bytes + shared - free;
  return missing <= 0 ? [] : [`${root}: ${kept + 1} checkpoints of ${said(bytes)} lie there while one is written; ${said(missing)} are missing for that: free space, or lower save_total_limit`];
}

/** Of the folder, or of where it would be made. */
async function deviceOf(files: Files, folder: string): Promise<number | undefined> {
  for (let at = resolve(folder); ; at = dirname(at)) {
    const facts = await files.facts(at);
    if (facts !== null || dirname(at) === at) return facts?.device;
  }
}
