// Opens a run: data tokenized, memory planned and reserved, weights in place.
import { join } from 'node:path';
import { openTokenizer } from '@lomo/data';
import type { Files, JsonObject, ModelFamily } from '@lomo/models';
import { builtInFamilies, familyOf, isJsonObject, missingFolders, nodeFiles, readConfig, readWhole, removeEmpty } from '@lomo/models';
import { adalomo, adamw, lomo, sgd } from '@lomo/optim';
import type { Rule } from '@lomo/optim';
import { underPlan } from '@lomo/parallel';
import type { Backend, HeadForm } from '@lomo/tensor';
import type { Device } from '@lomo/tensor';
import { LomoError } from '@lomo/tensor';
import { assemble } from './assemble.ts';
import { surveyCheckpoints } from './checkpoint_folders.ts';
import type { Choice } from './choice.ts';
import { choose, explain } from './choice.ts';
import type { RunConfig } from './config.ts';
import { rootOf, suggestion } from './config.ts';
import { contentBytes, contentsOf, copyFits } from './contents.ts';
import { openRunData } from './data.ts';
import { LossScale } from './loss_scale.ts';
import { nearest, refuse } from './nearest.ts';
import { bytes } from './quantity.ts';
import { reserve } from './reserve.ts';
import { Session } from './session.ts';
import type { ScratchFile } from './scratch_file.ts';
import { openOffloadFile, openSpillFile, openStreamFile } from './scratch_files.ts';
import type { TrainerState } from './state.ts';
import { parseState, stateName } from './state.ts';
import { freshTokens } from './texts.ts';
import type { Rates, RunBase } from './ways.ts';
import { joinedShape, Ways } from './ways.ts';

/** Rules by the name `optim` takes. */
export const builtInRules: readonly Rule[] = [lomo, adalomo(), adamw(), sgd];

export interface SessionInput {
  readonly config: RunConfig;
  readonly backend: Backend;
  /** Bytes this run may take: the plan chooses by them how it is run. */
  readonly memory: number;
  /** Bytes of host memory that a copy for checkpoints may take, where `memory` is a GPU's; what the plan leaves of `memory` unless given. */
  readonly hostMemory?: number;
  /** Host memory as it stands at any time, asked before memory outside the plan is taken: for the copy that a checkpoint is written from. */
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

/**
 * Opens a run: reads, checks, plans, reserves, loads. Nothing is trained yet. The first failing check throws; nothing is left behind. Throws
 * DoesNotFit, with what would fit, where no way of running fits.
 */
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
    const base: RunBase = {
      config,
      json,
      families,
      rule,
      shape: data.shape,
      generates: { prompt: config.max_seq_length, fresh: freshTokens },
      evaluates: held !== null,
      formerHead: await formerHead(config, files),
    };
    const { memory, rates } = input;
    const ways = new Ways(backend, base, rates);
    const chosen = await choose(ways, memory);
    const asked = { backend, base, chosen, ...(rates === undefined ? {} : { rates }) };
    if (!chosen.fits) return refuse(asked, await nearest(asked));
    const { rows, plan, seconds: _, ...way } = chosen.candidate;
    const { by, headForm } = way;
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
    const reserved = (device = await reserve(backend, asked));
    const assembly = await underPlan(reserved, plan, { name: 'setup', body: () => assemble(reserved, { ...base, ...way, shape: joinedShape(data.shape, rows) }, stores) });
    const saving = savingChoice(config, { bytes: contentBytes(contentsOf(assembly)), ...(input.hostMemory === undefined ? { spare: memory - plan.extent, whose: 'the plan leaves' } : { spare: input.hostMemory, whose: 'the host has' }) });
    const session = new Session({
      config, assembly, plan, tokenizer, train, held, files, scratch, spilled, heldSteps: data.heldSteps, schedule: data.steps, rows,
      machine: { ...input.machine, head_form: headForm },
      choices: [...data.choices, ...positionsChoice(config, json), ...explain(ways, chosen), ...scaleChoice(config), saving],
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

/** The form of the head that the run was begun with, which its bits depend on: the plan keeps to it where it can. Null for a run that begins. */
async function formerHead({ resume_from_checkpoint: wish, ...config }: RunConfig, files: Files): Promise<HeadForm | null> {
  if (wish === false) return null;
  const state = typeof wish === 'string' ? await stateOf(wish, files).catch(() => null) : (await surveyCheckpoints(rootOf(config), files)).complete[0]?.state;
  const former = state?.machine['head_form'];
  return former === 'chunks' || former === 'tiles' ? former : null;
}

/** Without the checks of a resume, which come later and say more. */
async function stateOf(folder: string, files: Files): Promise<TrainerState> {
  const path = join(folder, stateName);
  return parseState(new TextDecoder().decode(await readWhole(files, path, 2 ** 26)), path);
}

/** Whether checkpoints are written from a copy, which the memory that the plan leaves must hold. */
function savingChoice(config: RunConfig, { bytes: needed, spare, whose }: { readonly bytes: number; readonly spare: number; readonly whose: string }): Choice & { readonly value: 'copy' | 'weights' } {
  const wish = config.save_from;
  const fits = copyFits(needed, spare);
  const room = `a copy takes ${bytes(needed)}, ${whose} ${bytes(Math.max(0, spare))}`;
  const value = wish === 'auto' ? (fits ? 'copy' : 'weights') : wish;
  const then = value === 'copy' ? 'training goes on while it is written' : 'training waits while they are written';
  return { name: 'saving from', value, reason: `${wish === 'auto' ? '' : 'as the run asks; '}${then} (${room})` };
}

/** A word where samples may be longer than any the model was made for: it knows nothing of such places, and writes badly. */
function positionsChoice({ max_seq_length: longest }: RunConfig, json: JsonObject): Choice[] {
  const positions = json['max_position_embeddings'];
  if (typeof positions !== 'number') return [];
  const rope = json['rope_scaling'] ?? json['rope_parameters'];
  const [type, factor] = isJsonObject(rope) ? [rope['rope_type'] ?? rope['type'], rope['factor']] : [];
  const reach = typeof factor === 'number' && (type === 'linear' || type === 'dynamic') ? positions * factor : positions;
  if (longest <= reach) return [];
  const said = (n: number): string => n.toLocaleString('en-US');
  return [{ name: 'positions', value: said(longest), reason: `the model was made for ${said(reach)} (max_position_embeddings of its config.json), and knows nothing of those beyond them until it is trained on them` }];
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
