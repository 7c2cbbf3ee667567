// trainer_state.json: what a run must know beside the weights to go on as if it had never stopped.
import { LomoError } from '@lomo/tensor';
import { z } from 'zod';
import { lossScaleStateSchema } from './loss_scale.ts';

const schema = z.object({
  format: z.literal(1),
  /** Steps finished, skipped ones included. */
  step: z.number().int().min(0),
  /** Steps that were rejected and are skipped when replayed. */
  skipped: z.array(z.number().int()),
  steps: z.number().int(),
  seed: z.number().int(),
  dataSeed: z.number().int(),
  trainedTokens: z.number().int(),
  bestEvalLoss: z.number().nullable(),
  /** The step it was seen after, whose checkpoint is kept; null in states made before this was noted. */
  bestStep: z.number().int().nullable().default(null),
  /** A dynamic loss scale as it stands after `step`; null without one. */
  lossScale: lossScaleStateSchema.nullable().default(null),
  /** SHA-256 of the settings that the weights depend on. */
  fingerprint: z.string(),
  /** What equal bits need to be equal too: library, instruction set, chunk. */
  machine: z.record(z.string(), z.string()),
  /** Every file of the folder with its SHA-256. */
  files: z.record(z.string(), z.string()),
});

export type TrainerState = z.output<typeof schema>;

export const stateName = 'trainer_state.json';

/** Throws CorruptState naming the file and what is wrong in it. */
export function parseState(text: string, path: string): TrainerState {
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
  if (Object.keys(made).length === 0 || Object.keys(here).length === 0) return [];
  const names = [...new Set([...Object.keys(made), ...Object.keys(here)])];
  return names.filter((name) => made[name] !== here[name]).map((name) => `${name} ${made[name] ?? 'unknown'}, here ${here[name] ?? 'unknown'}`);
}
