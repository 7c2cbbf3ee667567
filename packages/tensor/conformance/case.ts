// One case of one op on one backend: inputs rounded, everything else poisoned, run, compared with the float64 definition.
import { activationOf, decode, encode, isReal, numel, Random, sizeOf, snakeCase, typedArray } from '../src/index.ts';
import type { Backend, DType, Kernel, KernelSignature, Memory, Op, Region, Sample, Spec, TypedArray, View } from '../src/index.ts';
import { allowed, distance, lengthOf } from './tolerance.ts';

type Role = 'in' | 'inout' | 'out';

/** An operand of the case: where it lies, what it held before, and what the definition says it must hold after. */
interface Placed {
  readonly role: Role;
  readonly index: number;
  readonly spec: Spec;
  readonly before: TypedArray;
  readonly view: View;
}

/** What a case needs, before any backend is asked. */
export interface Case {
  readonly op: Op;
  readonly seed: number;
  readonly attributes: Sample<Record<string, number>>['attributes'];
  readonly operands: readonly Placed[];
  /** Largest magnitude of the terms that outputs sum, where the sample says so; else 0. */
  readonly terms: number;
  /** What the sample says of intermediate values rounded to 16 bits. */
  readonly rounded: number;
  readonly signature: KernelSignature;
}

/** How a case went. `error` and `bar` are those of the element with the largest error for its bar. */
export interface Verdict {
  readonly error: number;
  readonly bar: number;
  /** What went wrong, one sentence each; empty when the case passed. */
  readonly failures: readonly string[];
}

const gap = 256;
/** All ones: NaN in every real dtype. */
const poisonByte = 0xff;
/** Share of elements whose random word may lie within f32 rounding of its threshold; 2^-16 for bf16, 2^-13 for f16, and room. */
const mostFlipped = 0.005;
/** i32 outputs start as a number no kernel makes. */
const poisonInteger = 0x5ead_beef;

function poisonOf({ shape, dtype }: Spec): TypedArray {
  const bytes = new Uint8Array(numel(shape) * sizeOf(dtype)).fill(poisonByte);
  if (dtype === 'i32') return new Int32Array(numel(shape)).fill(poisonInteger);
  return typedArray(dtype, bytes.buffer);
}

function viewOf(spec: Spec, values: ArrayLike<number>): View {
  return { ...spec, data: spec.dtype === 'i32' ? Int32Array.from(values) : Float64Array.from(values) };
}

/** Draws the sample of `seed` for `dtype`, its values rounded to their dtypes, outputs poisoned. */
export function makeCase(op: Op, dtype: DType, seed: number): Case {
  const sample = op.sample(new Random(seed));
  const resolve = (d: Sample<never>['ins'][number]['dtype']): DType => (d === 'real' ? dtype : d === 'activation' ? activationOf(dtype) : d);
  const given = (role: Role) => (tensor: Sample<never>['ins'][number], index: number): Placed => {
    const spec = { shape: tensor.shape, dtype: resolve(tensor.dtype) };
    const before = encode(spec.dtype, tensor.values);
    return { role, index, spec, before, view: viewOf(spec, decode(spec.dtype, before)) };
  };
  const ins = sample.ins.map(given('in'));
  const inouts = (sample.inouts ?? []).map(given('inout'));
  const specs = (list: readonly Placed[]): Spec[] => list.map((p) => p.spec);
  const outs = op.infer(specs(ins), sample.attributes, specs(inouts)).map((inferred, index): Placed => {
    const chosen = sample.outs?.[index];
    const spec = chosen === undefined ? inferred : { shape: inferred.shape, dtype: resolve(chosen) };
    return { role: 'out', index, spec, before: poisonOf(spec), view: viewOf(spec, new Float64Array(numel(spec.shape)).fill(NaN)) };
  });
  const types = (list: readonly Placed[]): DType[] => list.map((p) => p.spec.dtype);
  return {
    op,
    seed,
    attributes: sample.attributes,
    operands: [...ins, ...inouts, ...outs],
    terms: sample.terms ?? 0,
    rounded: sample.rounded ?? 0,
    signature: { ins: types(ins), inouts: types(inouts), outs: types(outs) },
  };
}

interface Layout {
  readonly offsets: readonly number[];
  readonly scratch: number;
  readonly bytes: number;
}

/** Operands apart by gaps, half of the cases at offsets that are only aligned to their elements, as row tiles are. */
function layOut(one: Case, scratchBytes: number): Layout {
  const random = new Random(one.seed ^ 0x9e37);
  const ragged = random.int(0, 1) === 1;
  let at = gap;
  const offsets = one.operands.map(({ spec }) => {
    const offset = at + (ragged ? random.int(0, 15) * sizeOf(spec.dtype) : 0);
    at = Math.ceil((offset + numel(spec.shape) * sizeOf(spec.dtype) + gap) / gap) * gap;
    return offset;
  });
  return { offsets, scratch: at, bytes: at + Math.ceil(scratchBytes / gap) * gap + gap };
}

/** Runs the case and judges it. Throws what the backend throws. */
export async function runCase(backend: Backend, one: Case, kernel: Kernel): Promise<Verdict> {
  const reserved = backend.reserved();
  const verdict = await launchCase(backend, one, kernel);
  const left = backend.reserved() - reserved;
  return left === 0 ? verdict : { ...verdict, failures: [...verdict.failures, `${left} bytes are still reserved after the case gave its memory back`] };
}

async function launchCase(backend: Backend, one: Case, kernel: Kernel): Promise<Verdict> {
  const { op } = one;
  const names = op.attributes.map(snakeCase);
  if (kernel.attributes.join() !== names.join()) {
    return { error: 0, bar: 0, failures: [`takes the attributes (${kernel.attributes.join(', ')}), the op gives (${names.join(', ')})`] };
  }
  const values = op.attributes.map((name) => one.attributes[name] as number);
  const scratchBytes = workspaceOf(backend, one, { kernel, values });
  const { offsets, scratch, bytes } = layOut(one, scratchBytes);
  const memory = backend.memory('device', bytes);
  const whole: Region = { memory, offset: 0, shape: [bytes], dtype: 'u8' };
  try {
    backend.write(whole, new Uint8Array(bytes).fill(poisonByte));
    const regions = regionsOf(one, memory, offsets);
    const all = [...regions.ins, ...regions.inouts, ...regions.outs];
    one.operands.forEach(({ before }, i) => backend.write(all[i]!, before));
    const workspace: Region | null = scratchBytes > 0 ? { memory, offset: scratch, shape: [scratchBytes], dtype: 'u8' } : null;
    backend.launch(kernel, { ...regions, workspace }, values, 'compute');
    const after = await Promise.all(all.map(async (r) => typedArray(r.dtype, await backend.read(r))));
    const image = new Uint8Array(await backend.read(whole));
    const failures = [...strayWrites(one, image, { offsets, scratch, scratchBytes }), ...changedInputs(one, after)];
    return judge(one, after, { chunk: backend.traits.chunk, failures });
  } finally {
    memory.free();
  }
}

/** Shapes alone decide the workspace, so it is asked for in a memory that holds nothing yet. */
function workspaceOf(backend: Backend, one: Case, call: { readonly kernel: Kernel; readonly values: readonly number[] }): number {
  const { offsets, bytes } = layOut(one, 0);
  const memory = backend.memory('device', bytes);
  try {
    return backend.workspace(call.kernel, regionsOf(one, memory, offsets), call.values);
  } finally {
    memory.free();
  }
}

function regionsOf(one: Case, memory: Memory, offsets: readonly number[]) {
  const region = (role: Role): Region[] =>
    one.operands.flatMap((p, i) => (p.role === role ? [{ memory, offset: offsets[i]!, shape: p.spec.shape, dtype: p.spec.dtype }] : []));
  return { ins: region('in'), inouts: region('inout'), outs: region('out'), workspace: null };
}

/** Bytes outside operands and workspace must still be poison. */
function strayWrites(one: Case, image: Uint8Array, at: { readonly offsets: readonly number[]; readonly scratch: number; readonly scratchBytes: number }): string[] {
  const owned = new Uint8Array(image.length);
  one.operands.forEach(({ spec }, i) => owned.fill(1, at.offsets[i]!, at.offsets[i]! + numel(spec.shape) * sizeOf(spec.dtype)));
  owned.fill(1, at.scratch, at.scratch + at.scratchBytes);
  const stray = image.findIndex((byte, i) => owned[i] === 0 && byte !== poisonByte);
  if (stray < 0) return [];
  const nearest = one.operands.findLast((_, i) => at.offsets[i]! <= stray);
  const behind = stray >= at.scratch ? `the workspace of ${at.scratchBytes} bytes` : nearest === undefined ? 'the start of memory' : nameOf(nearest);
  return [`wrote byte ${stray}, outside every output (behind ${behind})`];
}

function changedInputs(one: Case, after: readonly TypedArray[]): string[] {
  return one.operands.flatMap((operand, i) => {
    if (operand.role !== 'in') return [];
    const [now, before] = [after[i]!, operand.before];
    // Compared as bits, so that NaN inputs count as unchanged.
    const changed = Buffer.compare(bytesOf(now), bytesOf(before)) !== 0;
    return changed ? [`changed its ${nameOf(operand)}`] : [];
  });
}

function bytesOf(array: TypedArray): Uint8Array {
  return new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
}

function nameOf({ role, index }: Placed): string {
  return `${role === 'in' ? 'input' : role === 'inout' ? 'in-out' : 'output'} ${index}`;
}

function judge(one: Case, after: readonly TypedArray[], options: { readonly chunk: number; readonly failures: readonly string[] }): Verdict {
  const { op, attributes, operands } = one;
  const views = (role: Role): View[] => operands.filter((p) => p.role === role).map((p) => p.view);
  op.reference({ ins: views('in'), inouts: views('inout'), outs: views('out') }, attributes, { chunk: options.chunk });
  const specs = (role: Role): Spec[] => operands.filter((p) => p.role === role).map((p) => p.spec);
  const length = lengthOf(op.flops(specs('in'), attributes, specs('inout'), specs('out')), [...specs('inout'), ...specs('out')]);
  const stochastic = attributes['rounding'] === 1;
  const failures = [...options.failures];
  const written = operands.filter((p) => p.role !== 'in' && isReal(p.spec.dtype)).map((p) => p.view.data);
  let [error, bar, worst] = [0, 0, -1];
  operands.forEach((operand, i) => {
    if (operand.role === 'in') return;
    const { dtype } = operand.spec;
    const got = decode(dtype, after[i]!);
    const want = operand.view.data;
    // A gradient that cancels to zero everywhere is measured against what it was made from.
    const magnitude = Math.max(one.terms, largest([want]) || largest(written) || largest(views('in').map((v) => v.data)));
    let [reported, flipped] = [false, 0];
    for (let e = 0; e < want.length; e++) {
      const limit = allowed(want[e]!, { dtype, magnitude, length, stochastic, rounded: one.rounded });
      const off = isReal(dtype) && overflowed(got[e]!, want[e]!, dtype) ? 0 : distance(got[e]!, want[e]!);
      if (off > 0) flipped++;
      const ratio = off === 0 ? 0 : off / limit;
      if (ratio > worst) [worst, error, bar] = [ratio, off, limit];
      // Where NaN is wanted the limit is NaN too, and equal is equal.
      if (off === 0 || off <= limit || reported) continue;
      reported = true;
      failures.push(`${nameOf(operand)}, element ${e} of [${operand.spec.shape.join(', ')}]: ${got[e]}, the definition says ${want[e]} (off by ${off.toExponential(2)}, allowed ${limit.toExponential(2)})`);
    }
    if (stochastic && isReal(dtype) && dtype !== 'f32' && flipped > Math.max(1, mostFlipped * want.length)) {
      failures.push(`${nameOf(operand)}: ${flipped} of ${want.length} elements went to the other neighbour than their random words say`);
    }
  });
  return { error, bar, failures };
}

/** Largest finite magnitude. */
function largest(tensors: readonly View['data'][]): number {
  let max = 0;
  for (const tensor of tensors) for (const x of tensor) if (Number.isFinite(x)) max = Math.max(max, Math.abs(x));
  return max;
}

/** A wanted value beyond the dtype's range is rightly an infinity. */
function overflowed(got: number, want: number, dtype: DType): boolean {
  const largest = dtype === 'f16' ? 65504 : 3.3895e38;
  return Number.isFinite(want) && Math.abs(want) > largest && got === Math.sign(want) * Infinity;
}
