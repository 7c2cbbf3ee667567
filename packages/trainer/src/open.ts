// Opens a run: data tokenized, memory planned and reserved, weights in place.
import { openTokenizer } from '@lomo/data';
import type { Files, ModelFamily } from '@lomo/models';
import { builtInFamilies, familyOf, missingFolders, nodeFiles, readConfig, removeEmpty } from '@lomo/models';
import { adalomo, adamw, lomo, sgd } from '@lomo/optim';
import type { Rule } from '@lomo/optim';
import { underPlan } from '@lomo/parallel';
import type { Backend } from '@lomo/tensor';
import { Device, LomoError } from '@lomo/tensor';
import type { Assembly, Blueprint } from './assemble.ts';
import { assemble } from './assemble.ts';
import type { Rates } from './choice.ts';
import { assertFits, candidatesOf, explain, pick } from './choice.ts';
import type { RunConfig } from './config.ts';
import { suggestion } from './config.ts';
import { contentBytes, contentsOf, copyFits } from './contents.ts';
import { openRunData } from './data.ts';
import { LossScale } from './loss_scale.ts';
import { bytes } from './quantity.ts';
import type { Choice } from './session.ts';
import { freshTokens, rootOf, Session } from './session.ts';
import type { ScratchFile } from './scratch_file.ts';
import { openOffloadFile, openSpillFile, openStreamFile } from './scratch_files.ts';

/** Rules by the name `optim` takes. */
export const builtInRules: readonly Rule[] = [lomo, adalomo(), adamw(), sgd];

export interface SessionInput {
  readonly config: RunConfig;
  readonly backend: Backend;
  /** Bytes this run may take; decides whether tapes are kept and where gradients are put aside. */
  readonly memory: number;
  /** The same as it stands at any time, asked before memory outside the plan is taken: for the copy that a checkpoint is written from. */
  readonly freeMemory?: () => number;
  /** What estimates of time are made from; assumed ones unless given. */
  readonly rates?: Rates;
  /** Beside the built-in ones, from plugins. */
  readonly rules?: readonly Rule[];
  readonly families?: readonly ModelFamily[];
  /** What equal bits need beside equal settings: 'oneDNN 2.6.3', 'avx512'. */
  readonly machine?: Readonly<Record<string, string>>;
  /** Hears what is being done, for a screen. */
  readonly onPhase?: (text: string) => void;
  readonly signal?: AbortSignal;
  /** The file layer that weights and checkpoints go through; node's unless given. */
  readonly files?: Files;
}

/** Opens a run: reads, checks, plans, reserves, loads. Nothing is trained yet. The first failing check throws; nothing is left behind. */
export async function openSession(input: SessionInput): Promise<Session> {
  const { config, backend, signal } = input;
  const phase = input.onPhase ?? (() => {});
  const folder = config.model_name_or_path;
  const { files = nodeFiles } = input;
  const json = await readConfig(folder, files);
  const families = [...(input.families ?? []), ...builtInFamilies];
  const model = familyOf(json, families).parseConfig(json);
  phase('tokenizing');
  const tokenizer = await openTokenizer(folder);
  const scratch: ScratchFile[] = [];
  let device: Device | null = null;
  let missing: readonly string[] = [];
  try {
    const data = await openRunData(config, { tokenizer, vocabSize: model.vocabSize, ...(signal === undefined ? {} : { signal }) });
    const { train, held } = data;
    phase('planning');
    const rule = ruleOf(config, [...(input.rules ?? []), ...builtInRules]);
    const blueprint: Omit<Blueprint, 'keeps' | 'by' | 'stages'> = {
      config,
      json,
      families,
      rule,
      shape: data.shape,
      generates: { prompt: config.max_seq_length, fresh: freshTokens },
      evaluates: held !== null,
    };
    const { memory, rates } = input;
    const candidates = await candidatesOf(backend, blueprint, rates);
    const chosen = pick(candidates, memory);
    assertFits(chosen, memory);
    const { plan, keeps, by, stages } = chosen;
    const choices = explain(config, candidates, { chosen, memory, ...(rates === undefined ? {} : { rates }) });
    const spilled = by === 'file' ? { folder: config.spill_dir ?? rootOf(config), bytes: plan.spilled } : null;
    const streamFolder = config.stream_dir ?? rootOf(config);
    const opened = async (folder: string, needed: number, open: typeof openSpillFile): Promise<ScratchFile> => {
      missing = [...missing, ...(await missingFolders(files, folder))];
      const file = await open(folder, { files, bytes: needed });
      scratch.push(file);
      return file;
    };
    const stores = {
      spill: spilled === null ? null : await opened(spilled.folder, spilled.bytes, openSpillFile),
      stream: plan.streamed === null ? null : await opened(streamFolder, plan.streamed.bytes, openStreamFile),
      offload: config.offload === 'none' ? null : await opened(streamFolder, plan.offloaded, openOffloadFile),
    };
    const reserved = (device = new Device(backend, { bytes: plan.extent }));
    const assembly = await underPlan(reserved, plan, { name: 'setup', body: () => assemble(reserved, { ...blueprint, keeps, by, stages }, stores) });
    const saving = savingChoice(config, { bytes: contentBytes(contentsOf(assembly)), spare: memory - plan.extent });
    const session = new Session({
      config, assembly, plan, tokenizer, train, held, files, scratch, spilled, heldSteps: data.heldSteps, schedule: data.steps, machine: input.machine ?? {},
      choices: [...data.choices, ...choices, ...programChoices(assembly), ...scaleChoice(config), saving],
      copies: saving.value === 'copy',
      freeMemory: input.freeMemory ?? null,
    });
    phase('loading weights');
    await session.begin();
    return session;
  } catch (error) {
    device?.free();
    for (const file of scratch) await file[Symbol.asyncDispose]();
    // What is at hand matters more than a folder that stays.
    await removeEmpty(files, missing).catch(() => {});
    await tokenizer.close();
    throw error;
  }
}

/** Whether checkpoints are written from a copy, which the memory that the plan leaves must hold. */
function savingChoice(config: RunConfig, { bytes: needed, spare }: { readonly bytes: number; readonly spare: number }): Choice & { readonly value: 'copy' | 'weights' } {
  const wish = config.save_from;
  const fits = copyFits(needed, spare);
  const room = `a copy takes ${bytes(needed)}, the plan leaves ${bytes(Math.max(0, spare))}`;
  const value = wish === 'auto' ? (fits ? 'copy' : 'weights') : wish;
  const then = value === 'copy' ? 'training goes on while it is written' : 'training waits while they are written';
  return { name: 'saving from', value, reason: `${wish === 'auto' ? '' : 'as the run asks; '}${then} (${room})` };
}

function programChoices({ program }: Assembly): Choice[] {
  const { accumulate, headForm } = program;
  const reasons = {
    factors: 'equal bits for any split into micro-batches',
    buffer: 'micro-batches are whole chunks: equal bits, and less memory than factors',
    chunks: 'three products; the gradient of the head is held in f32',
    tiles: 'four products; the gradient of the head never exists whole',
  };
  return [
    ...(program.microBatches > 1 ? [{ name: 'accumulation', value: accumulate, reason: reasons[accumulate] }] : []),
    { name: 'head', value: headForm, reason: reasons[headForm] },
  ];
}

/** What a screen says of the loss scale of a run; nothing where it has none. */
export function scaleChoice(config: RunConfig): Choice[] {
  const words = new LossScale(config.loss_scale).words;
  return words === null ? [] : [{ name: 'loss scale', ...words }];
}

/** The rule that a run names. Throws ConfigError listing the known ones. */
export function ruleOf(config: RunConfig, rules: readonly Rule[]): Rule {
  const rule = rules.find(({ name }) => name === config.optim);
  if (rule === undefined) throw new LomoError('ConfigError', `optim: no '${config.optim}'; known: ${rules.map(({ name }) => name).join(', ')}; others come from plugins${suggestion(config.optim, rules.map(({ name }) => name))}`);
  return rule;
}
