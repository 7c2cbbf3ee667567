// A small LLaMA-like model straight from ops, tied or not, so that programs are tested without the models package.
import type { Batch, Device, DType, Parameter } from '@lomo/tensor';
import { add, attention, embedding, encode, linear, linearCrossEntropy, Module, Random, rmsNorm, rope, siluMul, Stage } from '@lomo/tensor';
import type { Tensor } from '@lomo/tensor';
import type { HostBatch } from '../src/index.ts';

export interface ToyOptions {
  readonly blocks?: number;
  readonly tied?: boolean;
  readonly vocabulary?: number;
  readonly hidden?: number;
  readonly seed?: number;
  /** Of the weights; f32 unless given. */
  readonly dtype?: DType;
  /** Who learns; everybody unless given. */
  readonly trainable?: (path: string) => boolean;
  /** Parameters begin without a byte of the device; `load` fills them. */
  readonly away?: boolean;
}

const heads = 4;
const groups = 2;

class ToyEmbedding extends Stage {
  readonly name = 'embedding';
  readonly weight: Parameter;

  constructor(weight: Parameter) {
    super();
    this.weight = weight;
  }

  forward(batch: Batch): Tensor {
    return embedding(batch.tokens, this.weight);
  }
}

class ToyBlock extends Stage {
  readonly name: string;
  readonly norm1: Parameter;
  readonly norm2: Parameter;
  readonly q: Parameter;
  readonly qBias: Parameter;
  readonly k: Parameter;
  readonly v: Parameter;
  readonly o: Parameter;
  readonly gate: Parameter;
  readonly up: Parameter;
  readonly down: Parameter;
  private readonly frequencies: Tensor;
  private readonly d: number;

  constructor(name: string, hidden: number, make: (name: string, shape: readonly number[]) => Parameter, frequencies: Tensor) {
    super();
    this.name = name;
    this.d = hidden / heads;
    this.frequencies = frequencies;
    const kv = groups * this.d;
    this.norm1 = make(`${name}.norm1`, [hidden]);
    this.norm2 = make(`${name}.norm2`, [hidden]);
    this.q = make(`${name}.q`, [hidden, hidden]);
    this.qBias = make(`${name}.q_bias`, [hidden]);
    this.k = make(`${name}.k`, [kv, hidden]);
    this.v = make(`${name}.v`, [kv, hidden]);
    this.o = make(`${name}.o`, [hidden, hidden]);
    this.gate = make(`${name}.gate`, [2 * hidden, hidden]);
    this.up = make(`${name}.up`, [2 * hidden, hidden]);
    this.down = make(`${name}.down`, [hidden, 2 * hidden]);
  }

  forward(batch: Batch, x: Tensor): Tensor {
    const tokens = x.shape[0]!;
    const split = (t: Tensor, h: number): Tensor => t.reshape([tokens, h, this.d]);
    const n = rmsNorm(x, this.norm1, 1e-5);
    const turn = (t: Tensor, h: number): Tensor => rope(split(t, h), batch.positions, { inverseFrequencies: this.frequencies });
    const q = turn(linear(n, this.q, this.qBias), heads);
    const k = turn(linear(n, this.k), groups);
    const v = split(linear(n, this.v), groups);
    const o = attention(q, { k, v }, { cuQ: batch.starts, cuK: batch.starts, maxQ: batch.maxLength, maxK: batch.maxLength });
    const y = add(x, linear(o.reshape([tokens, heads * this.d]), this.o));
    const m = rmsNorm(y, this.norm2, 1e-5);
    return add(y, linear(siluMul(linear(m, this.gate), linear(m, this.up)), this.down));
  }
}

class ToyHead extends Stage {
  readonly name = 'head';
  readonly norm: Parameter;
  readonly weight: Parameter;

  constructor(norm: Parameter, weight: Parameter) {
    super();
    this.norm = norm;
    this.weight = weight;
  }

  forward(batch: Batch, x: Tensor): null {
    const { step, tokenLoss, start, headForm: form, targets } = batch;
    linearCrossEntropy(rmsNorm(x, this.norm, 1e-5), this.weight, { targets, step, tokenLoss, start, form });
    return null;
  }
}

export class Toy extends Module {
  readonly stages: readonly Stage[];
  /** The seed's weights of parameters that are made away. */
  readonly initial = new Map<Parameter, ArrayBufferView>();

  constructor(device: Device, options: ToyOptions = {}) {
    super();
    const { away = false, blocks = 2, tied = false, vocabulary = 37, hidden = 16, seed = 1, dtype = 'f32', trainable = () => true } = options;
    const random = new Random(seed);
    const make = (name: string, shape: readonly number[]): Parameter => {
      const p = device.parameter(name, { shape, dtype, trainable: trainable(name), away });
      const size = shape.reduce((a, b) => a * b, 1);
      const values = encode(dtype, shape.length === 1 ? random.normal(size, 0.1, name.includes('norm') ? 1 : 0) : random.normal(size, 0.25));
      if (away) this.initial.set(p, values);
      else device.write(p, values);
      return p;
    };
    const frequencies = device.allocate({ shape: [hidden / heads / 2], dtype: 'f32' }, 'weights');
    device.writeNumbers(frequencies, Array.from({ length: hidden / heads / 2 }, (_, j) => 100 ** (-j / (hidden / heads / 2))));
    const table = make('embed', [vocabulary, hidden]);
    this.stages = [
      new ToyEmbedding(table),
      ...Array.from({ length: blocks }, (_, i) => new ToyBlock(`block ${i}`, hidden, make, frequencies)),
      new ToyHead(make('norm', [hidden]), tied ? table : make('head', [vocabulary, hidden])),
    ];
  }
}

/** Writes the seed's weights where the parameters are. */
export async function fillAway(toy: Toy): Promise<void> {
  for (const [p, values] of toy.initial) {
    if (p.away) await p.home!.write(new Uint8Array(values.buffer, values.byteOffset, values.byteLength), 0);
    else p.device.write(p, values);
  }
}

/** `count` micro-batches of `tokens` tokens in segments of `length`; every fifth label is masked. */
export function toyBatches(options: { readonly count: number; readonly tokens: number; readonly length: number; readonly vocabulary?: number; readonly seed?: number }): HostBatch[] {
  const { count, tokens, length, vocabulary = 37, seed = 5 } = options;
  const random = new Random(seed);
  return Array.from({ length: count }, () => {
    const ids = Int32Array.from(random.ints(tokens, vocabulary));
    const last = (t: number): boolean => t % length === length - 1;
    return {
      tokens: ids,
      targets: ids.map((_, t) => (last(t) || random.int(0, 4) === 0 ? -100 : ids[t + 1]!)),
      positions: ids.map((_, t) => t % length),
      starts: Int32Array.from({ length: tokens / length + 1 }, (_, s) => s * length),
    };
  });
}

/** The same stream of tokens cut into `count` micro-batches. */
export function cut(batches: readonly HostBatch[], count: number): HostBatch[] {
  const size = batches.length / count;
  return Array.from({ length: count }, (_, m) => joined(batches.slice(m * size, (m + 1) * size)));
}

/** `batches` of equal capacity joined into one. */
export function joined(batches: readonly HostBatch[]): HostBatch {
  const join = (name: 'tokens' | 'targets' | 'positions'): Int32Array => Int32Array.from(batches.flatMap((b) => [...b[name]]));
  const tokens = batches[0]!.tokens.length;
  return {
    tokens: join('tokens'),
    targets: join('targets'),
    positions: join('positions'),
    starts: Int32Array.from([0, ...batches.flatMap((b, m) => [...b.starts.subarray(1)].map((s) => s + m * tokens))]),
  };
}
