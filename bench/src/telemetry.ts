// bench telemetry: what a measured step costs beside one that is not: the same run, steps of both kinds in turn, in processor time, which a busy
// machine stretches less than the clock's.
import { cpu } from '@lomo/cpu';
import type { StepTelemetry } from '@lomo/optim';
import { Optimizer } from '@lomo/optim';
import { initialise } from '@lomo/models';
import { makePlan } from '@lomo/parallel';
import { Device, Random } from '@lomo/tensor';
import type { Setup } from './assembly.ts';
import { assemble, batchesOf, ruleNamed } from './assembly.ts';
import type { Reporting } from './manners.ts';
import { deliver, dtypeOf, shapeOf, spread, table } from './manners.ts';
import { modelConfig } from './models.ts';

export interface TelemetryOptions extends Reporting {
  readonly models: readonly string[];
  readonly dtypes: readonly string[];
  readonly shapes: readonly string[];
  readonly optims: readonly string[];
  readonly threads: number;
  /** Pairs of steps, one of each kind. */
  readonly pairs: number;
}

/** Most that a measured step may take beyond one that is not, as a share. */
const bar = 0.02;
const warmup = 2;

/** Milliseconds of one step: of the clock, and of this process's threads together. */
interface Time {
  readonly wall: number;
  readonly cpu: number;
}

interface Cell {
  readonly name: string;
  /** Each step, in order. */
  readonly plain: readonly Time[];
  readonly measured: readonly Time[];
  readonly last: StepTelemetry;
}

/** Runs the bench; returns the exit code. */
export async function telemetry(options: TelemetryOptions): Promise<number> {
  await using backend = cpu({ threads: options.threads });
  const cells: Cell[] = [];
  for (const model of options.models) for (const dtype of options.dtypes.map(dtypeOf)) for (const shape of options.shapes) for (const optim of options.optims) {
    const setup: Setup = { json: modelConfig(model), dtype, ...shapeOf(shape), microBatches: 1, rule: ruleNamed(optim), keeps: true };
    cells.push({ name: `${model} ${dtype} ${shape} ${optim}`, ...(await steps(backend, setup, options.pairs)) });
  }
  const rows = cells.map((cell) => ({ ...cell, cost: costOf(cell, 'cpu'), wall: costOf(cell, 'wall') }));
  const missed = rows.filter(({ cost }) => cost > bar).map(({ name, cost }) => `${name}: a measured step costs ${share(cost)} more, the bar is ${share(bar)}`);
  const middle = (times: readonly Time[], of: keyof Time): string => spread(times.map((time) => time[of])).median.toFixed(1);
  const head = ['config', 'step ms', 'cpu ms', 'measured', 'cost', 'by the clock', 'changed', 'lost', 'noise', 'update/weight', 'norm'];
  const lines = [
    `${options.pairs} pairs of steps each, ${options.threads} threads; ms: the median, of the clock and of the threads together; cost: the median over the pairs of measured over plain`,
    table([head, ...rows.map(({ name, plain, measured, cost, wall, last: { all } }) => [
      name, middle(plain, 'wall'), middle(plain, 'cpu'), middle(measured, 'cpu'), share(cost), share(wall), share(all.changed), all.lost === null ? '-' : share(all.lost), all.noise?.toFixed(2) ?? '-', all.ratio.toExponential(1), all.gradNorm.toFixed(2),
    ])]),
  ];
  const most = rows.reduce((worst, row) => (row.cost > worst.cost ? row : worst));
  return deliver({ name: 'telemetry', lines, figure: `a measured step costs at most ${share(most.cost)} (${most.name})`, missed, data: { threads: options.threads, cells: rows } }, options);
}

const share = (x: number): string => `${(100 * x).toFixed(2)} %`;

/** Each pair met the same machine; half of them had the measured step first. */
function costOf({ plain, measured }: Pick<Cell, 'plain' | 'measured'>, of: keyof Time): number {
  return spread(measured.map((time, i) => time[of] / plain[i]![of])).median - 1;
}

async function steps(backend: ReturnType<typeof cpu>, setup: Setup, pairs: number): Promise<Omit<Cell, 'name'>> {
  const make = (device: Device) => {
    const { model, program } = assemble(device, setup);
    return { model, program, optimizer: new Optimizer(device, model.parameters, { rule: setup.rule, telemetry: true }) };
  };
  const random = new Random(1);
  const stream = Uint8Array.from(random.ints(4 * setup.seq * setup.batch, 256));
  const input = (step: number) => ({ step, seed: 0, lr: 1e-3, batches: batchesOf(setup, stream, step) });
  const plan = await makePlan(backend, function* (device) {
    let made: ReturnType<typeof make> | null = null;
    yield { name: 'setup', run: () => void (made = make(device)) };
    yield { name: 'step', run: () => made!.program.run({ ...input(1), passes: made!.optimizer.passes }).then(() => {}) };
  });
  const device = new Device(backend, { bytes: plan.extent });
  const { model, program, optimizer } = make(device);
  initialise(model, 0);
  let last: StepTelemetry | null = null;
  const timed = async (step: number, measures: boolean): Promise<Time> => {
    const [start, used] = [performance.now(), process.cpuUsage()];
    await program.run({ ...input(step), passes: measures ? optimizer.measuredPasses : optimizer.passes });
    if (measures) last = await optimizer.telemetry!.read();
    const { user, system } = process.cpuUsage(used);
    return { wall: performance.now() - start, cpu: (user + system) / 1000 };
  };
  const [plain, measured]: [Time[], Time[]] = [[], []];
  for (let i = 0; i < warmup + pairs; i++) {
    const [kept, first] = [i >= warmup, i % 2 === 0];
    for (const measures of [first, !first]) {
      const time = await timed(2 * i + (measures === first ? 1 : 2), measures);
      if (kept) (measures ? measured : plain).push(time);
    }
  }
  device.free();
  return { plain, measured, last: last! };
}
