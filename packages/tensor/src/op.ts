// What an op is: one file says everything about it. Ops with a `backward` can be recorded on a tape.
import type { Device } from './device.ts';
import type { DType } from './dtype.ts';
import type { Grad } from './grad.ts';
import type { Random } from './random.ts';
import type { Spec } from './shape.ts';
import type { Tensor } from './tensor.ts';

/** Static for a plan: what changes from step to step lives in the step tensor. */
export type Attributes = Readonly<Record<string, number>>;

/** An operand as the reference sees it: values in row-major order. Writing to it writes the tensor. */
export interface View extends Spec {
  readonly data: Float64Array | Float32Array | Int32Array;
}

/** One operand of a sample: its spec and its values. */
export interface SampleTensor {
  readonly shape: readonly number[];
  /** 'real' stands for the dtype under test (f32, bf16, ...), 'activation' for what activations are beside weights of it (f32 beside f16). */
  readonly dtype: DType | 'real' | 'activation';
  readonly values: ArrayLike<number>;
}

/** A random case of an op, for conformance, gradient checks, leak tests and benchmarks. */
export interface Sample<A extends Attributes> {
  readonly ins: readonly SampleTensor[];
  readonly inouts?: readonly SampleTensor[];
  /** dtypes of the outputs, where a caller may choose others than `infer` says. */
  readonly outs?: readonly (DType | 'real' | 'activation')[];
  /** Largest magnitude of the terms an output element sums, for ops whose terms may cancel to far less: errors are judged against it. */
  readonly terms?: number;
  /**
   * Magnitude that intermediate values rounded to a 16-bit case's dtype may bring into an output, for ops whose kernels multiply them on
   * units that take 16-bit operands only (attention's weights); half a unit of it is allowed besides. Default 0.
   */
  readonly rounded?: number;
  readonly attributes: A;
}

/** A recorded application, as `backward` sees it. Only what `saves` named still has its bytes. */
export interface Call<A> {
  readonly device: Device;
  readonly ins: readonly Tensor[];
  readonly outs: readonly Tensor[];
  readonly attributes: A;
  /** The gradient collected so far for input `i`, if `backward` may add to it in place and return it; else null. */
  partial(i: number): Tensor | null;
  /**
   * The running sum over tokens for parameter input `i`, f32 [2, columns] as `token_sum` keeps it, and the global index of this call's
   * first of `rows` rows. Adding to it is contributing: `backward` returns null for that input.
   */
  sums(i: number, rows: number): { readonly sums: Tensor; readonly start: number };
  /** The f32 accumulator of parameter input `i`; adding to it is contributing. `fresh`: it holds nothing yet and must be stored into. */
  accumulator(i: number): { readonly tensor: Tensor; readonly fresh: boolean };
  /** True when nothing but this call still holds parameter input `i`, and its gradient is complete with this call's part. */
  last(i: number): boolean;
  /** Settles parameter input `i` now, with `grad` as its last part, so that one sweep can serve both it and the input gradient. */
  settle(i: number, grad: Grad): void;
}

/** What a tape needs to know to walk a call back. Ops are, and so are compositions that bring their own `backward`. */
export interface Differentiable<A> {
  readonly name: string;
  /** Inputs and outputs whose bytes `backward` reads; parameters need not be named. */
  saves?(ins: readonly Tensor[], outs: readonly Tensor[]): readonly Tensor[];
  /** `needs[i]` says whether anybody wants the gradient of input i. Input gradients are launched before parameters settle. */
  backward?(call: Call<A>, dy: readonly (Tensor | null)[], needs: readonly boolean[]): Gradients;
}

/** One application of a differentiable op, as recorders hear of it. An application without outputs is walked always: it makes the loss. */
export interface Application<A> {
  readonly op: Differentiable<A>;
  readonly ins: readonly Tensor[];
  readonly outs: readonly Tensor[];
  readonly attributes: A;
}

/** Gradients of a call's inputs, in order: a tensor for an activation, a Grad for a parameter, null for none. */
export type Gradients = readonly (Tensor | Grad | null)[];

/** `name` is one word in TypeScript, C++, CUDA, errors and traces: 'rms_norm'. */
export interface Op<A extends Attributes = Attributes> extends Differentiable<A> {
  /** Attribute names in the order kernels receive them. */
  readonly attributes: readonly (keyof A & string)[];
  /** Specs of the outputs; throws ShapeError. */
  infer(ins: readonly Spec[], attributes: A, inouts: readonly Spec[]): readonly Spec[];
  /** The definition: slow, obvious, in float64. */
  reference(operands: { ins: readonly View[]; inouts: readonly View[]; outs: readonly View[] }, attributes: A, traits: { chunk: number }): void;
  /** Floating-point operations of one launch. `outs` as they are: a caller may have given less than `infer` says, such as a tile of rows. */
  flops(ins: readonly Spec[], attributes: A, inouts: readonly Spec[], outs: readonly Spec[]): number;
  /** dtypes 'real' stands for. */
  readonly dtypes: readonly DType[];
  /** A random case; shapes, values and attributes all come from `random`. */
  sample(random: Random): Sample<A>;
}

/** Declares an op; the attribute type is inferred from the definition. */
export function defineOp<A extends Attributes>(op: Op<A>): Op<A> {
  return op;
}
