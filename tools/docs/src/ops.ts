// docs/ops.md from the op definitions: every op, what it takes, its attributes, its dtypes, and for which of them a backend has kernels.
import { optimOps } from '@lomo/optim';
import type { Backend, DType, KernelSignature, Op, Sample, SampleTensor } from '@lomo/tensor';
import { activationOf, Random, tensorOps } from '@lomo/tensor';

/** Random cases that are looked at: enough to meet every form of an op's operands. */
const draws = 24;

type Form = { readonly [K in keyof KernelSignature]: readonly SampleTensor['dtype'][] };

const resolve = (dtype: SampleTensor['dtype'], real: DType): DType => (dtype === 'real' ? real : dtype === 'activation' ? activationOf(real) : dtype);

/** The operands of one sample, 'real' where the dtype under test stands, 'activation' where that of activations beside it does. */
function formOf(op: Op, sample: Sample<Record<string, number>>): Form {
  // Outputs follow the inputs' dtype, so an output is 'real' when it changes with it, 'activation' when it does not become f16.
  const infer = (real: DType): readonly DType[] => {
    const specs = (list: Sample<Record<string, number>>['ins']) => list.map(({ shape, dtype }) => ({ shape, dtype: resolve(dtype, real) }));
    return op.infer(specs(sample.ins), sample.attributes, specs(sample.inouts ?? [])).map((spec) => spec.dtype);
  };
  const [wide, narrow, stored] = [infer('f32'), infer('bf16'), infer('f16')];
  return {
    ins: sample.ins.map(({ dtype }) => dtype),
    inouts: (sample.inouts ?? []).map(({ dtype }) => dtype),
    outs: sample.outs ?? wide.map((dtype, i) => (dtype === narrow[i] ? dtype : stored[i] === 'f16' ? 'real' : 'activation')),
  };
}

const spell = ({ ins, inouts, outs }: Form): string =>
  [ins.join(', '), inouts.length > 0 ? `| ${inouts.join(', ')}` : '', outs.length > 0 ? `-> ${outs.join(', ')}` : ''].filter((part) => part !== '').join(' ');

const snake = (name: string): string => name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);

/** 'f32, bf16', 'f32, bf16 in part' where some of the op's forms have no kernel, '-' for none. */
function kernelsOf(op: Op, forms: readonly Form[], backend: Backend): string {
  const found = op.dtypes.flatMap((real) => {
    const filled = (list: Form['ins']): DType[] => list.map((dtype) => resolve(dtype, real));
    const has = forms.filter(({ ins, inouts, outs }) => backend.kernel(op.name, { ins: filled(ins), inouts: filled(inouts), outs: filled(outs) }) !== null).length;
    return has === 0 ? [] : [has === forms.length ? real : `${real} in part`];
  });
  return found.length === 0 ? '-' : found.join(', ');
}

function rowOf(op: Op, backend: Backend): string {
  const forms = new Map(Array.from({ length: draws }, (_, seed) => {
    const form = formOf(op, op.sample(new Random(seed)));
    return [spell(form), form] as const;
  }));
  const operands = [...forms.keys()].toSorted((a, b) => a.length - b.length || (a < b ? -1 : 1)).map((form) => `\`${form.replaceAll('|', '\\|')}\``);
  const cells = [`**${op.name}**`, operands.join('<br>'), op.attributes.map(snake).join(', '), op.dtypes.join(', '), op.backward === undefined ? '' : 'yes', kernelsOf(op, [...forms.values()], backend)];
  return `| ${cells.join(' | ')} |`;
}

/** The page as Markdown, the kernels those of `backend`. */
export function opsPage(backend: Backend): string {
  const table = (ops: readonly Op[]): string =>
    [`| op | operands | attributes | real is | gradient | ${backend.name} |`, '| --- | --- | --- | --- | --- | --- |', ...ops.map((op) => rowOf(op, backend))].join('\n');
  return `# Ops

<!-- Written by \`pnpm docs:ops\` from the op definitions; a test fails when this page is not what it writes. -->

Every op is one definition: what it means (the reference, in float64), its gradient, its cost, and random cases that tests and benchmarks draw.
Operands are spelled inputs \`|\` inputs that are changed \`->\` outputs; \`real\` stands for each of the dtypes in the fourth column,
\`activation\` for that of activations beside it: f32 beside f16, which is storage, else the same. *gradient*: the
op can be recorded on a tape by itself. The last column says for which of those dtypes the ${backend.name} backend has a kernel ("in part":
not for every form of the operands); without one, \`MissingKernel\` is thrown there. What kernels must do, operand by operand, is in [kernels.md](kernels.md); how to add an op in
[adding-an-op.md](adding-an-op.md).

## @lomo/tensor

${table(tensorOps)}

\`linear\` and \`linearCrossEntropy\` are compositions of these with gradients of their own: a product's weight gradient is kept as its factors
and multiplied out tile by tile when the weight settles.

## @lomo/optim

${table(optimOps)}
`;
}
