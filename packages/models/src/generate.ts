// Generation with cached keys and values: the prompt in pieces, then one token a step, the same stages as in training.
import type { Device, Tensor } from '@lomo/tensor';
import { LomoError, attention, cacheWrite, sample, visitStages } from '@lomo/tensor';
import type { DecodeStep } from './build.ts';
import type { LanguageModel } from './languageModel.ts';

export interface GenerateOptions {
  readonly maxNewTokens: number;
  /** 0 (the default): always the likeliest token. */
  readonly temperature?: number;
  /** Only the k likeliest; 0 (the default): all. */
  readonly topK?: number;
  /** Only the smallest set of likeliest tokens with this mass; 1 (the default): all. */
  readonly topP?: number;
  /** The same seed gives the same tokens; 0 unless given. Below 2^53. */
  readonly seed?: number;
  /** Ids that end the text; they are not yielded. config.json's eos_token_id unless given. */
  readonly stop?: readonly number[];
  /** Ends the text before the next token. */
  readonly signal?: AbortSignal;
}

/** Tokens of the prompt taken at once: bounds the workspace, changes no result. */
const piece = 512;

/**
 * Yields the ids that follow `prompt`, one by one. Caches and buffers come from the device's arena and are given back when the iteration
 * ends, however it ends. Throws LomoError 'GenerateError' for bad options, 'OutOfMemory' where the arena is too small.
 */
export async function* generate(model: LanguageModel, prompt: readonly number[], options: GenerateOptions): AsyncGenerator<number, void, void> {
  check(model, prompt, options);
  const { temperature = 0, topK = 0, topP = 1, seed = 0, stop = model.config.eosIds, signal } = options;
  const { device } = model;
  const aborted = () => signal?.aborted === true;
  const session = new Session(model, prompt.length + options.maxNewTokens);
  try {
    device.writeNumbers(session.counters, [1, (seed >>> 0) | 0, (Math.floor(seed / 2 ** 32) >>> 0) | 0, 0, 0, 0, 0, 0]);
    let next: readonly number[] = prompt;
    for (let draw = 0; draw < options.maxNewTokens && !aborted(); draw++) {
      using logits = await session.feed(next);
      using drawn = device.own(() => {
        const result = sample(logits, session.counters, { temperature, topK, topP, draw });
        return { result, keep: [result] };
      });
      const id = (await device.readNumbers(drawn))[0]!;
      if (stop.includes(id) || aborted()) return;
      yield id;
      next = [id];
    }
  } finally {
    session.dispose();
  }
}

/** Caches of one sequence and the small tensors a step needs. */
class Session {
  readonly counters: Tensor;
  private readonly device: Device;
  private readonly model: LanguageModel;
  private readonly capacity: number;
  private readonly caches = new Map<number, { readonly k: Tensor; readonly v: Tensor }>();
  private readonly owned: Tensor[] = [];
  private readonly tokens: Tensor;
  private readonly positions: Tensor;
  private readonly at: Tensor;
  private readonly cuQ: Tensor;
  private readonly cuK: Tensor;
  private length = 0;

  constructor(model: LanguageModel, capacity: number) {
    this.model = model;
    this.device = model.device;
    this.capacity = capacity;
    const i32 = (n: number): Tensor => this.keep(this.device.allocate({ shape: [n], dtype: 'i32' }, 'io'));
    this.counters = i32(8);
    this.tokens = i32(Math.min(piece, capacity));
    this.positions = i32(Math.min(piece, capacity));
    this.at = i32(1);
    this.cuQ = i32(2);
    this.cuK = i32(2);
  }

  /** Appends `ids` to the sequence; logits f32 [1, vocabulary] after the last one, owned by the caller. */
  async feed(ids: readonly number[]): Promise<Tensor> {
    for (let from = 0; ; from += piece) {
      const part = ids.slice(from, from + piece);
      const last = from + piece >= ids.length;
      const logits = await this.step(part, last);
      if (last) return logits!;
    }
  }

  dispose(): void {
    for (const tensor of this.owned) tensor.dispose();
  }

  private async step(ids: readonly number[], last: boolean): Promise<Tensor | null> {
    const { device } = this;
    const count = ids.length;
    const tokens = this.tokens.rows(0, count);
    const positions = this.positions.rows(0, count);
    device.writeNumbers(tokens, ids);
    device.writeNumbers(positions, ids.map((_, i) => this.length + i));
    device.writeNumbers(this.at, [this.length]);
    device.writeNumbers(this.cuQ, [0, count]);
    device.writeNumbers(this.cuK, [0, this.length + count]);
    this.length += count;
    const step: DecodeStep = { tokens, reach: { positions, attend: (layer, qkv, window) => this.attend(layer, qkv, window) } };
    const { stages } = this.model;
    let arriving: Tensor | null = null;
    try {
      await visitStages(
        this.model,
        (at) => {
          const before: Tensor | null = arriving;
          arriving = device.under({ category: 'workspace', recorder: null }, () =>
            device.own(() => {
              const result = stages[at]!.decode(step, before);
              return { result, keep: [result] };
            }),
          );
          before?.dispose();
        },
        last ? stages.length : stages.length - 1,
      );
    } catch (error) {
      (arriving as Tensor | null)?.dispose();
      throw error;
    }
    const made = arriving as Tensor | null;
    if (last) return made;
    made?.dispose();
    return null;
  }

  private attend(layer: number, qkv: { readonly q: Tensor; readonly k: Tensor; readonly v: Tensor }, window: number): Tensor {
    let cache = this.caches.get(layer);
    if (cache === undefined) {
      const room = (like: Tensor): Tensor =>
        this.keep(this.device.allocate({ shape: [this.capacity, ...like.shape.slice(1)], dtype: like.dtype }, 'workspace'));
      this.caches.set(layer, (cache = { k: room(qkv.k), v: room(qkv.v) }));
    }
    cacheWrite(cache.k, qkv.k, this.at);
    cacheWrite(cache.v, qkv.v, this.at);
    return attention(qkv.q, cache, { cuQ: this.cuQ, cuK: this.cuK, maxQ: qkv.q.shape[0]!, maxK: this.capacity, window });
  }

  private keep(tensor: Tensor): Tensor {
    this.owned.push(tensor);
    return tensor;
  }
}

function check(model: LanguageModel, prompt: readonly number[], options: GenerateOptions): void {
  const { maxNewTokens, temperature = 0, topK = 0, topP = 1, seed = 0 } = options;
  const bad = (what: string, value: unknown, expected: string) => new LomoError('GenerateError', `generate: ${what} = ${String(value)}; expected ${expected}`);
  const count = (n: number) => Number.isSafeInteger(n) && n >= 0;
  if (model.stages.length !== model.stageNames.length) throw bad('stages', model.stages.length, `all ${model.stageNames.length} stages on this rank`);
  if (prompt.length === 0) throw bad('prompt', '[]', 'at least one token; begin with the BOS token');
  const stranger = prompt.find((id) => !count(id) || id >= model.config.vocabSize);
  if (stranger !== undefined) throw bad('prompt id', stranger, `an id below ${model.config.vocabSize}`);
  if (!count(maxNewTokens)) throw bad('maxNewTokens', maxNewTokens, 'a count');
  if (!(temperature >= 0 && Number.isFinite(temperature))) throw bad('temperature', temperature, 'a number from 0');
  if (!count(topK)) throw bad('topK', topK, 'a count');
  if (!(topP > 0 && topP <= 1)) throw bad('topP', topP, 'a number in (0, 1]');
  if (!count(seed)) throw bad('seed', seed, 'a whole number below 2^53');
}
