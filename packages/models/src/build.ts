// What stages are built from: parameters by checkpoint name (so a tie is the same name asked for twice) and the rotary table.
import type { DType, Parameter, Tensor } from '@lomo/tensor';
import { Device, DryBackend, LomoError, ReferenceBackend, Stage, sameShape } from '@lomo/tensor';
import type { InverseFrequencies } from './config/frequencies.ts';
import type { WantedTensor } from './match.ts';

/** How a fresh weight starts: normal, one, or zero. */
export type Role = 'matrix' | 'norm' | 'bias';

/** Frequencies on the device, f32 [pairs], and the factor on rotated elements. */
export interface Rotary {
  readonly inverseFrequencies: Tensor;
  readonly scale: number;
}

/** One token step of generation, as stages see it. */
export interface DecodeStep {
  /** Ids i32 [T]. */
  readonly tokens: Tensor;
  readonly reach: Reach;
}

/** What queries of one forward pass can see: a packed batch, or a cache of earlier keys. */
export interface Reach {
  /** Position of each token within its sequence, i32 [T]. */
  readonly positions: Tensor;
  /** q [T, H, d], k and v [T, G, d] of layer `layer` -> [T, H, d]. `window` 0: all earlier keys. */
  attend(layer: number, qkv: { readonly q: Tensor; readonly k: Tensor; readonly v: Tensor }, window: number): Tensor;
}

/** A stage that can also decode: the last one returns logits f32 [1, vocabulary] of the last token. */
export abstract class CausalStage extends Stage {
  abstract decode(step: DecodeStep, arriving: Tensor | null): Tensor;
}

/** A stage to be made: pipeline ranks make only theirs. */
export interface StageBlueprint {
  /** 'embedding', 'block 3', 'head'. */
  readonly name: string;
  create(build: Build): CausalStage;
}

export interface BuildOptions {
  /** Element type of the parameters; f32 unless given. f16 is storage: activations and arithmetic are then f32, else of this type. */
  readonly dtype?: DType;
  /** Longest sequence of the run, tokens: 'dynamic' and 'longrope' frequencies depend on it. The model's own maximum unless given. */
  readonly maxLength?: number;
  /** Parameters begin without a byte of the device: a residency will bring them in. */
  readonly away?: boolean;
}

/** Hands out parameters while a model is built, and remembers what it handed out. */
export class Build {
  readonly device: Device;
  readonly dtype: DType;
  readonly maxLength: number | undefined;
  /** Names under which a checkpoint may repeat a parameter, and the parameter's own name. */
  readonly aliases = new Map<string, string>();
  private readonly made = new Map<string, { readonly parameter: Parameter; readonly role: Role }>();
  private readonly owned: Tensor[] = [];
  private readonly away: boolean;
  private rotaryTable: Rotary | null = null;

  constructor(device: Device, options: BuildOptions = {}) {
    this.device = device;
    this.dtype = options.dtype ?? 'f32';
    this.maxLength = options.maxLength;
    this.away = options.away ?? false;
  }

  /** The parameter of this checkpoint name; made at the first call. Another shape at a later call: LomoError 'ShapeError'. */
  parameter(path: string, shape: readonly number[], role: Role): Parameter {
    const known = this.made.get(path);
    if (known !== undefined) {
      if (!sameShape(known.parameter.shape, shape)) throw new LomoError('ShapeError', `${path} is used as [${known.parameter.shape.join(', ')}] and as [${shape.join(', ')}]`);
      return known.parameter;
    }
    const parameter = this.device.parameter(path, { shape, dtype: this.dtype, away: this.away });
    this.made.set(path, { parameter, role });
    return parameter;
  }

  /** The model's one rotary table; made from `frequencies` at the first call. */
  rotary(frequencies: () => InverseFrequencies): Rotary {
    if (this.rotaryTable !== null) return this.rotaryTable;
    const { values, scale } = frequencies();
    const inverseFrequencies = this.device.allocate({ shape: [values.length], dtype: 'f32' }, 'io');
    this.device.writeNumbers(inverseFrequencies, values);
    this.owned.push(inverseFrequencies);
    return (this.rotaryTable = { inverseFrequencies, scale });
  }

  /** Parameters with their roles, in the order they were made. */
  get parameters(): readonly { readonly parameter: Parameter; readonly role: Role }[] {
    return [...this.made.values()];
  }

  /** Gives every byte back. */
  dispose(): void {
    for (const { parameter } of this.made.values()) parameter.dispose();
    for (const tensor of this.owned) tensor.dispose();
  }
}

/** Every tensor the blueprints ask for, without a byte of memory: what a checkpoint must hold, on any rank. */
export function inventory(blueprints: readonly StageBlueprint[]): { readonly tensors: readonly WantedTensor[]; readonly aliases: ReadonlyMap<string, string> } {
  const device = new Device(new DryBackend(new ReferenceBackend({ ops: [] })), { bytes: Infinity });
  const build = new Build(device);
  for (const blueprint of blueprints) blueprint.create(build);
  return { tensors: build.parameters.map(({ parameter: p }) => ({ name: p.path, shape: p.shape })), aliases: build.aliases };
}
