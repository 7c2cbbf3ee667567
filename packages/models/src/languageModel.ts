// A language model on a device: its stages, its parameters, fresh weights. What `model_type` it is matters only to its family.
import type { Device, Model, Parameter, Residence } from '@lomo/tensor';
import { LomoError, fill, keyOf, normalFill, numel, sizeOf } from '@lomo/tensor';
import type { BuildOptions, CausalStage, Role, StageBlueprint } from './build.ts';
import { Build, inventory } from './build.ts';
import type { ModelConfig } from './config/model.ts';
import type { ConfigFamily } from './family.ts';
import { familyOf } from './family.ts';
import type { JsonObject } from './json.ts';
import { llama } from './llama.ts';
import type { WantedTensor } from './match.ts';
import { mistral } from './mistral.ts';
import { qwen2 } from './qwen2.ts';
import { qwen3 } from './qwen3.ts';

/** What this package asks of any family's configuration. */
export type CommonConfig = Pick<ModelConfig, 'modelType' | 'vocabSize' | 'initializerRange' | 'storedDtype' | 'eosIds' | 'source'>;

/** A `model_type`: how its config.json is read and which stages it makes. Plugins bring theirs; nothing here lists them. */
export interface ModelFamily<C extends CommonConfig = CommonConfig> extends ConfigFamily<C> {
  stages(config: C): readonly StageBlueprint[];
}

/** The families of this package, for callers to extend: `[...builtInFamilies, mine]`. */
export const builtInFamilies: readonly ModelFamily[] = [llama, mistral, qwen2, qwen3];

export interface CreateModelOptions extends BuildOptions {
  readonly families?: readonly ModelFamily[];
  /** Which stages this rank makes; all unless given. */
  readonly owns?: (stage: number) => boolean;
}

/** Stages on a device. Owns its parameters: `dispose` gives their bytes back. */
export class LanguageModel implements Model, Disposable {
  readonly device: Device;
  readonly config: CommonConfig;
  /** Names of all stages, made here or not. */
  readonly stageNames: readonly string[];
  /** The stages made here, in order. */
  readonly stages: readonly CausalStage[];
  /** What a checkpoint of the whole model holds, in order, on any rank. */
  readonly tensors: readonly WantedTensor[];
  /** Names under which a checkpoint may repeat a tensor (a tied head), and the tensor's own name. */
  readonly aliases: ReadonlyMap<string, string>;
  /** Who brings the parameters of a model that was made `away` in and out; null where they stay on the device. */
  residence: Residence | null = null;
  private readonly build: Build;

  constructor(device: Device, plan: { readonly config: CommonConfig; readonly blueprints: readonly StageBlueprint[] }, options: CreateModelOptions = {}) {
    const { blueprints } = plan;
    this.device = device;
    this.config = plan.config;
    this.stageNames = blueprints.map((b) => b.name);
    const { tensors, aliases } = inventory(blueprints);
    this.tensors = tensors;
    this.aliases = aliases;
    this.build = new Build(device, options);
    this.stages = blueprints.filter((_, i) => options.owns?.(i) ?? true).map((b) => b.create(this.build));
  }

  /** The parameters made here, in order, each once. */
  get parameters(): readonly Parameter[] {
    return this.build.parameters.map((p) => p.parameter);
  }

  /** The same with how each starts. */
  get roles(): readonly { readonly parameter: Parameter; readonly role: Role }[] {
    return this.build.parameters;
  }

  /** Numbers to train in the whole model. */
  get size(): number {
    return this.tensors.reduce((n, t) => n + numel(t.shape), 0);
  }

  dispose(): void {
    this.build.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

/** A model from a parsed config.json; its weights hold anything until they are loaded or initialised. Allocates in a fixed order. */
export function createModel(json: JsonObject, device: Device, options: CreateModelOptions = {}): LanguageModel {
  const family = familyOf(json, options.families ?? builtInFamilies);
  const config = family.parseConfig(json);
  return new LanguageModel(device, { config, blueprints: family.stages(config) }, options);
}

/**
 * Fresh weights, as transformers starts them: matrices normal with `initializerRange`, norms 1, biases 0. The numbers depend on the seed
 * and the parameter's name alone, so every split over ranks starts equal. `seed` below 2^32. Parameters that are away: 'ParameterAway'; use
 * `initialiseAnywhere`.
 */
export function initialise(model: LanguageModel, seed: number): void {
  checkSeed(seed);
  for (const each of model.roles) freshen(each, model.config, seed);
}

/** As `initialise`; parameters that are away come in one after the other, are filled, and go home. */
export async function initialiseAnywhere(model: LanguageModel, seed: number): Promise<void> {
  checkSeed(seed);
  for (const each of model.roles) {
    const { parameter } = each;
    const { home, device } = parameter;
    if (!parameter.away) {
      freshen(each, model.config, seed);
      continue;
    }
    if (home === null) throw new LomoError('ParameterAway', `${parameter.path} was made away and has no home: give the model a residency before its weights`, { path: parameter.path });
    const block = device.arena.allocate(parameter.bytes, 'weights', parameter.path);
    parameter.arrive(block);
    device.arena.release(block);
    try {
      freshen(each, model.config, seed);
      const flat = parameter.reshape([numel(parameter.shape)]);
      const step = homewardBytes / sizeOf(parameter.dtype);
      for (let at = 0; at < flat.shape[0]!; at += step) {
        const values = await device.read(flat.rows(at, Math.min(flat.shape[0]!, at + step)));
        await home.write(new Uint8Array(values.buffer, values.byteOffset, values.byteLength), at * sizeOf(parameter.dtype));
      }
    } finally {
      parameter.leave();
    }
  }
}

/** Bytes of a slice of fresh weights on its way home. */
const homewardBytes = 2 ** 22;

function checkSeed(seed: number): void {
  if (!Number.isInteger(seed) || seed < 0 || seed >= 2 ** 32) throw new LomoError('SeedError', `initialise: seed = ${seed}; expected a whole number below 2^32`, { seed });
}

function freshen({ parameter, role }: { readonly parameter: Parameter; readonly role: Role }, config: CommonConfig, seed: number): void {
  if (role === 'matrix') normalFill(parameter, { key: keyOf(parameter.path), seed, mean: 0, std: config.initializerRange });
  else fill(parameter, role === 'norm' ? 1 : 0);
}
