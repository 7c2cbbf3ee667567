// Telemetry: what a step did to the weights, per group of parameters, summed on the device beside the update and read once at the step's end.
import type { Device, Parameter, Range, StepTensor } from '@lomo/tensor';
import { fill, Grad, matrixOf, numel, sizeOf, Tensor } from '@lomo/tensor';
import { rowColumns, rowWidth } from './row_sums.ts';
import type { Rule } from './rule.ts';
import { tileOf } from './rule.ts';
import { updateSumsOp, updateTotalOp } from './telemetry_ops.ts';

/**
 * What one step did to a group. With p a weight before, d the movement its rule computed in f32 and a the movement of the stored weight:
 * f32 weights have a = d, of 16-bit ones a is a whole number of their units.
 */
export interface GroupTelemetry {
  readonly group: string;
  readonly elements: number;
  /** Share of elements with other bits than before. */
  readonly changed: number;
  /**
   * Share of the intended movement that rounding took: 1 - sum(a sign(d)) / sum|d|. 0: all of it arrived; 1: none did; below 0: more than
   * was meant. It is linear in a, so under stochastic rounding, where a is d in expectation (arXiv 2502.20566), it is 0 in expectation
   * and a sample of that at every step; to nearest it is what the run really loses. Null where nothing was meant to move, or where the
   * rule does not say what it meant.
   */
  readonly lost: number | null;
  /**
   * |a - d| / |d|, L2 norms: the error that rounding adds, its mean left in. 1 where to nearest everything is lost; above 1 under
   * stochastic rounding of movements below a unit, the price of losing nothing. Null as `lost` is.
   */
  readonly noise: number | null;
  /** |a| / |p|, L2 norms; Infinity where every p was 0 and one moved, 0 where none did. */
  readonly ratio: number;
  /** L2 norm of the gradients, unscaled, before any clip. */
  readonly gradNorm: number;
}

/** A measured step: everything together under the name 'all', and group by group. */
export interface StepTelemetry {
  readonly all: GroupTelemetry;
  readonly groups: readonly GroupTelemetry[];
}

/** Which group a parameter counts in. */
export type Grouping = (p: Parameter) => string;

/** embedding, attention, mlp, norms, head by the names of Hugging Face checkpoints; 'other' for what is none of them. */
export function groupByRole({ path }: Pick<Parameter, 'path'>): string {
  if (/norm/i.test(path)) return 'norms';
  if (/attn|attention/i.test(path)) return 'attention';
  if (/mlp|feed_forward|ffn|expert/i.test(path)) return 'mlp';
  if (/lm_head|^head\b/.test(path)) return 'head';
  if (/embed|wte\b/.test(path)) return 'embedding';
  return 'other';
}

/** Bytes of old weights that are kept beside a rule that does not measure itself, unless one row is longer. */
const sliceBytes = 2 ** 20;

interface Group {
  readonly name: string;
  elements: number;
}

/** The sums of one optimizer. Everything is allocated here: a measured step allocates what any other does. */
export class Telemetry {
  private readonly device: Device;
  private readonly rule: Rule;
  private readonly groups: Group[] = [];
  private readonly places = new Map<Parameter, number>();
  /** f32 [rows of the tallest parameter, 8]. */
  private readonly rows: Tensor;
  /** f32 [groups, 8, 2]: doubles as high and low part. */
  private readonly totals: Tensor;
  /** Old weights of one slice, u8; only where the rule does not measure itself. */
  private readonly before: Tensor | null;

  constructor(device: Device, parameters: readonly Parameter[], options: { readonly rule: Rule; readonly groupOf?: Grouping }) {
    this.device = device;
    this.rule = options.rule;
    const groupOf = options.groupOf ?? groupByRole;
    const trained = parameters.filter((p) => p.trainable);
    for (const p of trained) {
      const name = groupOf(p);
      let at = this.groups.findIndex((group) => group.name === name);
      if (at < 0) at = this.groups.push({ name, elements: 0 }) - 1;
      this.groups[at]!.elements += numel(p.shape);
      this.places.set(p, at);
    }
    const most = (of: (p: Parameter) => number): number => trained.reduce((largest, p) => Math.max(largest, of(p)), 1);
    this.rows = device.allocate({ shape: [most((p) => matrixOf(p.shape)[0]), rowWidth], dtype: 'f32' }, 'workspace');
    this.totals = device.allocate({ shape: [Math.max(1, this.groups.length), rowWidth, 2], dtype: 'f32' }, 'io');
    const slice = Math.max(Math.min(sliceBytes, most((p) => p.bytes)), most((p) => matrixOf(p.shape)[1] * sizeOf(p.dtype)));
    this.before = this.rule.measures === true ? null : device.allocate({ shape: [slice], dtype: 'u8' }, 'workspace');
  }

  /** Forgets the last measured step. */
  clear(): void {
    fill(this.totals, 0);
  }

  /** Lets `update` run with the sums of `p`'s rows to fill, and adds them to its group. */
  measure(p: Parameter, g: Grad, step: StepTensor, update: (g: Grad, sums: Tensor) => void): void {
    const sums = this.rows.rows(0, matrixOf(p.shape)[0]);
    const { before } = this;
    if (before === null) update(g, sums);
    else {
      // A foreign rule may leave a parameter alone without a look at its gradient: these are not the last parameter's sums then.
      fill(sums, 0);
      update(new WatchedGrad(g, { p, sums, before, step }), sums);
    }
    const total = this.totals.rows(this.places.get(p)!, this.places.get(p)! + 1).reshape([rowWidth, 2]);
    this.device.run(updateTotalOp, { ins: [sums], inouts: [total] }, {});
  }

  /** The measured step, once everything enqueued has run. */
  async read(): Promise<StepTelemetry> {
    const values = await this.device.readNumbers(this.totals);
    const whole = new Float64Array(rowWidth);
    const groups = this.groups.map(({ name, elements }, at) => {
      const sums = Float64Array.from(whole, (_, c) => values[2 * (at * rowWidth + c)]! + values[2 * (at * rowWidth + c) + 1]!);
      sums.forEach((sum, c) => (whole[c]! += sum));
      return describeSums(name, elements, sums);
    });
    return { all: describeSums('all', this.groups.reduce((n, { elements }) => n + elements, 0), whole), groups };
  }
}

/** Sums over a group as the shares and norms they stand for. */
function describeSums(group: string, elements: number, sums: Float64Array): GroupTelemetry {
  const at = (column: keyof typeof rowColumns): number => sums[rowColumns[column]]!;
  const meant = at('intended') > 0;
  const [moved, size] = [Math.sqrt(at('applied2')), Math.sqrt(at('weight2'))];
  return {
    group,
    elements,
    changed: elements === 0 ? 0 : at('changed') / elements,
    lost: meant ? 1 - at('applied') / at('intended') : null,
    noise: meant ? Math.sqrt(at('error2') / at('intended2')) : null,
    ratio: moved === 0 ? 0 : moved / size,
    gradNorm: Math.sqrt(at('gradient2')),
  };
}

interface Watch {
  readonly p: Parameter;
  readonly sums: Tensor;
  readonly before: Tensor;
  readonly step: StepTensor;
}

/**
 * A gradient that looks at what happened to the weights while a tile of it was visited: the old ones are copied, the new ones compared.
 * Tiles are cut so that the copy fits. A rule that sweeps several times is measured by its last sweep, the one that writes.
 */
class WatchedGrad extends Grad {
  private readonly inner: Grad;
  private readonly watch: Watch;

  constructor(inner: Grad, watch: Watch) {
    super(inner.device, inner.shape, inner.terms);
    this.inner = inner;
    this.watch = watch;
  }

  override get single(): boolean {
    return this.inner.single && this.slice() >= matrixOf(this.shape)[0];
  }

  override tiles(visit: (tile: Tensor, range: Range) => void): void {
    const { p, sums, before, step } = this.watch;
    const height = this.slice();
    this.inner.tiles((tile, { from, to }) => {
      for (let row = from; row < to; row += height) {
        const range = { from: row, to: Math.min(to, row + height) };
        const part = tile.rows(range.from - from, range.to - from);
        const now = tileOf(p, range);
        const old = new Tensor(p.device, before.block, { shape: now.shape, dtype: p.dtype });
        p.device.copy(old, now);
        visit(part, range);
        p.device.run(updateSumsOp, { ins: [old, now, part, step.scalars], outs: [sums.rows(range.from, range.to)] }, {});
      }
    });
  }

  override value(): Tensor {
    return this.inner.value();
  }

  override write(tile: Tensor, row: number): void {
    this.inner.write(tile, row);
  }

  override release(): void {
    this.inner.release();
  }

  private slice(): number {
    const { p, before } = this.watch;
    return Math.floor(before.bytes / (matrixOf(p.shape)[1] * sizeOf(p.dtype)));
  }
}
