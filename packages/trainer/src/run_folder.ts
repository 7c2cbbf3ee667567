// The folder that a run writes to: its checkpoints, one being written at a time, from the weights as they stand or from a copy while training goes on.
import type { Files } from '@lomo/models';
import type { SavedCheckpoint } from './checkpoint.ts';
import { saveCheckpoint } from './checkpoint.ts';
import type { DamagedCheckpoint } from './checkpoint_folders.ts';
import { surveyCheckpoints, tidy } from './checkpoint_folders.ts';
import type { RunConfig } from './config.ts';
import type { Contents, Training } from './contents.ts';
import { contentBytes, contentsOf, copyFits, Snapshot } from './contents.ts';
import type { ProbeOptions } from './probe.ts';
import { probeFolder } from './probe.ts';
import type { TrainerState } from './state.ts';

/** What a session says of itself in a checkpoint; the manifest of files is added when they are written. */
export type SavedState = Omit<TrainerState, 'files' | 'sizes'>;

/** What is saved, and how. */
export interface RunFolderParts {
  readonly config: Pick<RunConfig, 'model_name_or_path' | 'save_total_limit'>;
  readonly assembly: Training;
  readonly files: Files;
  /** Whether a checkpoint is written from a copy while training goes on. */
  readonly copies: boolean;
  /** Bytes this process may still take, where somebody can tell. */
  readonly freeMemory: (() => number) | null;
}

/** Made for a session, whose saves go through it. */
export class RunFolder {
  readonly root: string;
  /** The checkpoint that was saved or resumed last. */
  durable: string | null = null;
  private readonly parts: RunFolderParts;
  private readonly snapshot: Snapshot | null;
  private writing: Promise<SavedCheckpoint> | null = null;

  constructor(root: string, parts: RunFolderParts) {
    this.root = root;
    this.parts = parts;
    this.snapshot = parts.copies ? new Snapshot() : null;
  }

  /** Saves what is trained with `state`, asked when no other save is under way; nothing may change until this returns, and the checkpoint is durable then. */
  async save(state: () => SavedState): Promise<SavedCheckpoint> {
    await this.settled();
    return this.write(state(), contentsOf(this.parts.assembly));
  }

  /**
   * Copies what is trained and saves the copy while training goes on: it may once this returns. `saved` is what `save` would return or throw.
   * One at a time: an earlier one is waited for first. Null where there is no memory for a copy.
   */
  async saveCopy(state: () => SavedState): Promise<{ readonly saved: Promise<SavedCheckpoint> } | null> {
    if (this.snapshot === null) return null;
    await this.settled();
    const { assembly, freeMemory } = this.parts;
    const contents = contentsOf(assembly);
    if (freeMemory !== null && !this.snapshot.taken && !copyFits(contentBytes(contents), freeMemory())) return null;
    const now = state();
    let copy: Contents;
    try {
      copy = await this.snapshot.take(contents);
    } catch (error) {
      this.snapshot.drop();
      if (error instanceof RangeError) return null;
      throw error;
    }
    const saved = this.write(now, copy);
    this.writing = saved;
    // Whoever asked for it hears of a failure; until then it must not end the process.
    saved.catch(() => {});
    return { saved };
  }

  /** Makes the folder, clears what a crash left in it, and proves that checkpoints can be written there. Throws FileError or DiskFull. Returns warnings. */
  async probe(options: Pick<ProbeOptions, 'kept' | 'spill'>): Promise<readonly string[]> {
    const { assembly, files } = this.parts;
    const bytes = contentBytes(contentsOf(assembly));
    await this.settled();
    // First: what goes now is room.
    const left = await tidy(this.root, files);
    const warnings = await probeFolder(this.root, { files, bytes, ...options });
    return left === null ? warnings : [...warnings, left.message];
  }

  /** The newest complete checkpoint, what a crash interrupted there finished; and newer ones that are damaged. */
  async newest(): Promise<{ readonly path: string | null; readonly damaged: readonly DamagedCheckpoint[] }> {
    await this.settled();
    await tidy(this.root, this.parts.files);
    const { complete, damaged } = await surveyCheckpoints(this.root, this.parts.files);
    return { path: complete[0]?.path ?? null, damaged };
  }

  /** Returns when no checkpoint is being written, however that ended. */
  async settled(): Promise<void> {
    await this.writing?.catch(() => {});
    this.writing = null;
  }

  private async write(state: SavedState, contents: Contents): Promise<SavedCheckpoint> {
    const { assembly, config, files } = this.parts;
    const { model_name_or_path: from, save_total_limit: keep } = config;
    const saved = await saveCheckpoint(assembly, this.root, { from, keep, state, contents, files });
    this.durable = saved.path;
    return saved;
  }
}
