// The JSON files of a golden folder as they are read: what is used is checked, what is unknown is let through.
import { readFile } from 'node:fs/promises';
import { z } from 'zod';

const distance = z.object({ max_abs: z.number(), max_rel: z.number(), rel_l2: z.number() });

/** How far float32 runs land from the golden values. */
export type FileDistance = z.infer<typeof distance>;

const ids = z.array(z.array(z.int()));
const numbers = z.array(z.number());
const norms = z.record(z.string(), z.number());

/** batches.json: rows of ids and labels. */
export const batchesFile = z.looseObject({
  forward: ids.optional(),
  train: z.array(ids).optional(),
  train_labels: z.array(ids).optional(),
  accumulation_labels: z.record(z.string(), z.array(ids)).optional(),
});

/** One labelling of the forward batch in forward.json. */
export const forwardEntry = z.object({
  trained_tokens: z.int(),
  loss: z.number(),
  token_losses: z.array(numbers),
  grad_norm: z.number(),
  grad_l2: norms,
  float32_distance: z.record(z.string(), z.object({ loss: z.number(), gradients: distance })),
});

/** forward.json; labellings are the keys besides logits_distance. */
export const forwardFile = z.looseObject({ logits_distance: z.record(z.string(), distance).optional() });

/** greedy.json. */
export const greedyFile = z.object({ prompt: z.array(z.int()), ids: z.array(z.int()), text: z.string().optional(), smallest_margin: z.number().optional() });

/** A rule with its hyper-parameters, as trajectories.json, accumulation.json and rules.json describe it. */
export const ruleEntry = z.looseObject({
  rule: z.string(),
  lr: z.number(),
  weight_decay: z.number().optional(),
  clip_value: z.number().nullish(),
  clip_norm: z.number().nullish(),
  decays: z.enum(['all', 'matrices', 'none']),
});
export type RuleEntry = z.infer<typeof ruleEntry>;

const stepDistances = z.looseObject({ loss: z.number() }).catchall(distance);

/** One run of trajectories.json. */
export const trajectoryEntry = ruleEntry.extend({
  full: z.array(z.int()),
  sampled: z.array(z.int()),
  loss: numbers,
  final_loss: numbers,
  grad_norm: numbers,
  clip_coefficient: numbers.nullable(),
  l2: z.record(z.string(), norms),
  float32_distance: z.record(z.string(), stepDistances),
});
export type TrajectoryEntry = z.infer<typeof trajectoryEntry>;

/** trajectories.json. */
export const trajectoriesFile = z.object({ steps: z.int(), runs: z.record(z.string(), trajectoryEntry) });

/** accumulation.json, by case. */
export const accumulationFile = z.record(
  z.string(),
  z.object({
    trained_tokens: z.array(z.int()),
    loss: z.number(),
    grad_norm: z.number(),
    grad_l2: norms,
    float32_distance: distance,
    after_one_step: z.record(z.string(), ruleEntry.extend({ clip_coefficient: z.number(), l2: norms })),
  }),
);

/** rules.json. */
export const rulesFile = z.object({
  steps: z.int(),
  runs: z.record(z.string(), ruleEntry.extend({ float32_distance: distance, clip_coefficient: numbers.nullable() })),
});

/** rules_bf16/rules.json: weights after the steps in `kept`; gradients taken in turn. */
export const rulesBf16File = z.object({
  steps: z.int(),
  kept: z.array(z.int()),
  gradients: z.int(),
  runs: z.record(z.string(), ruleEntry.extend({ clip_coefficient: numbers.nullable(), float32_run_rel_l2: z.number() })),
});

/** models/FAMILY/golden.json. */
export const familyFile = z.object({
  ids,
  loss: z.number(),
  token_losses: z.array(numbers),
  tied: z.boolean(),
  float32_distance: z.object({ logits: distance, loss: z.number(), gradients: distance }),
});

/** tokenizers/NAME.json. */
export const tokenizerFile = z.array(z.object({ text: z.string(), ids: z.array(z.int()), decoded: z.string(), decoded_without_special: z.string() }));

/** numbers/bf16.json and f16.json: [bits of a float32, bits of the 16-bit value]. */
export const roundingFile = z.array(z.tuple([z.int(), z.int()]));

const word = z.int().min(0).max(0xffffffff);

/** numbers/philox4x32_10.json. */
export const philoxFile = z.array(z.object({ key: z.tuple([word, word]), counter: z.tuple([word, word, word, word]), output: z.tuple([word, word, word, word]) }));

/** numbers/schedules.json. */
export const schedulesFile = z.record(
  z.string(),
  z.looseObject({ scheduler: z.string(), lr: z.number(), num_warmup_steps: z.int(), num_training_steps: z.int(), rates: numbers }),
);
export type ScheduleEntry = z.infer<typeof schedulesFile>[string];

/** The JSON of `path`, checked; the error of a bad file names it and the place inside. */
export async function readJson<T>(path: string, schema: z.ZodType<T>): Promise<T> {
  return parsed(path, JSON.parse(await readFile(path, 'utf8')), schema);
}

/** `value`, found at `place`, checked. */
export function parsed<T>(place: string, value: unknown, schema: z.ZodType<T>): T {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  const issue = result.error.issues[0]!;
  throw new Error(`${place}: ${issue.path.join('.')}: ${issue.message}`);
}
