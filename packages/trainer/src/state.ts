// trainer_state.json: what a run must know beside the weights to go on as if it had never stopped, and the manifest of its checkpoint.
import { createHash } from 'node:crypto';
import { LomoError } from '@lomo/tensor';
import { z } from 'zod';
import { lossScaleStateSchema } from './loss_scale.ts';

/** A name in the checkpoint's own folder: nothing that leads out of it. */
const plainName = z.string().regex(/^(?!\.\.?$)[^/\\\0]+$/);

const schema = z.object({
  format: z.literal(2, { error: 'made by another version of lomo, which this one does not resume' }),
  /** Steps finished, skipped ones included. */
  step: z.number().int().min(0),
  /** Steps that were rejected and are skipped when replayed. */
  skipped: z.array(z.number().int()),
  steps: z.number().int(),
  seed: z.number().int(),
  dataSeed: z.number().int(),
  trainedTokens: z.number().int(),
  bestEvalLoss: z.number().nullable(),
  /** The step it was seen after. */
  bestStep: z.number().int().nullable(),
  /** Held-out loss of exactly these weights, where it was measured: the checkpoint with the lowest one is kept. */
  evalLoss: z.number().nullable(),
  /** A dynamic loss scale as it stands after `step`; null without one. */
  lossScale: lossScaleStateSchema.nullable(),
  /** SHA-256 of the settings and the data that the weights depend on. */
  fingerprint: z.string(),
  /** Those settings, to name what differs; null in states made before they were noted. */
  settings: z.record(z.string(), z.unknown()).nullable().default(null),
  /** SHA-256 of the samples trained on; null likewise. */
  data: z.string().nullable().default(null),
  /** What equal bits need to be equal too: library, instruction set, chunk. */
  machine: z.record(z.string(), z.string()),
  /** Every other file of the folder with its SHA-256. */
  files: z.record(plainName, z.string()),
  /** And with its bytes. */
  sizes: z.record(plainName, z.number().int().min(0)),
});

export type TrainerState = z.output<typeof schema>;

export const stateName = 'trainer_state.json';

/** Most bytes of it that are read: parsed, it may take fifty times as much. */
export const stateLimit = 4 * 2 ** 20;

/** Where the file keeps its own SHA-256, taken with zeros in this place. */
const own = /(?<="sha256": ")[0-9a-f]{64}(?="\n\}\n$)/;

/** The file's bytes: a state, and last the SHA-256 of the file itself. */
export function stateBytes(state: TrainerState): Uint8Array {
  const text = `${JSON.stringify({ ...state, sha256: '0'.repeat(64) }, null, 2)}\n`;
  return new TextEncoder().encode(text.replace(own, sha256(text)));
}

/** Throws CorruptState naming the file and what is wrong in it. */
export function parseState(text: string, path: string): TrainerState {
  const found = own.exec(text)?.[0];
  const expected = sha256(text.replace(own, '0'.repeat(64)));
  // An older format has no checksum, and is told by its number below.
  if (found === undefined ? !/"format": 1\b/.test(text) : found !== expected) {
    throw new LomoError('CorruptState', `${path}: ${found === undefined ? 'its own SHA-256 is missing' : `SHA-256 is ${expected}, it says ${found}`}; resume from another checkpoint`, { path });
  }
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (error) {
    throw new LomoError('CorruptState', `${path} is not JSON: ${String(error)}; resume from another checkpoint`, { path });
  }
  const result = schema.safeParse(json);
  if (result.success) return result.data;
  const issue = result.error.issues[0];
  throw new LomoError('CorruptState', `${path}: ${issue?.path.join('.') ?? ''}: ${issue?.message ?? 'not a trainer state'}; resume from another checkpoint`, { path });
}

/** What differs between the machine a state was made on and this one: 'isa avx512, here avx2'. Nothing where either says nothing of itself. */
export function machineDifferences(made: TrainerState['machine'], here: TrainerState['machine']): string[] {
  // The form of the head is the run's own, and known also where nobody has said what machine it is.
  const isKnown = (machine: TrainerState['machine']): boolean => Object.keys(machine).some((name) => name !== 'head_form');
  const all = [...new Set([...Object.keys(made), ...Object.keys(here)])];
  const names = isKnown(made) && isKnown(here) ? all : all.filter((name) => name in made && name in here);
  return names.filter((name) => made[name] !== here[name]).map((name) => `${name} ${made[name] ?? 'unknown'}, here ${here[name] ?? 'unknown'}`);
}

function sha256(text: string): string {
  return createHash('sha256').update(text).digest('hex');
}

/** What differs between the settings a state was made with and those of a run: 'learning_rate 0.1, now 0.2'. Empty where the state does not say. */
export function settingDifferences(made: Pick<TrainerState, 'settings' | 'data'>, now: { readonly settings: Readonly<Record<string, unknown>>; readonly data: string }): string[] {
  const { settings } = made;
  if (settings === null) return [];
  const spell = (value: unknown): string => (value === undefined ? 'unset' : typeof value === 'string' ? value : JSON.stringify(value));
  const names = [...new Set([...Object.keys(settings), ...Object.keys(now.settings)])];
  const changed = names.filter((name) => JSON.stringify(settings[name]) !== JSON.stringify(now.settings[name]));
  const words = changed.map((name) => `${name} ${spell(settings[name])}, now ${spell(now.settings[name])}`);
  return made.data === null || made.data === now.data || changed.includes('datasets') ? words : [...words, 'other samples (the data files, the tokenizer or how they are cut have changed)'];
}
