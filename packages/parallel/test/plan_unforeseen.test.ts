// Wrong plans are impossible by construction: an op of a bizarre size with a hidden workspace, brought as a stranger would bring it, is planned
// to the byte without a line about it anywhere; and a run that is made to differ from its plan is caught by name.
import { lomo, optimOps } from '@lomo/optim';
import { defineOp, Device, erase, isLomoError, ReferenceBackend, Stage, tensorOps } from '@lomo/tensor';
import type { Attributes, Backend, Batch, Kernel, Op, Operands, Tensor } from '@lomo/tensor';
import { describe, expect, test } from 'vitest';
import type { MemoryPlan, MetAllocation } from '../src/index.ts';
import { blockWords, makePlan, placeWords, underPlan } from '../src/index.ts';
import type { TrialOptions } from './trial.ts';
import { Trial } from './trial.ts';

interface Salt extends Attributes {
  readonly salt: number;
}

/** An op whose second result has `elements` elements and 31 more a token; it learns nothing and changes nothing. */
function bizarre(elements: number): Op<Salt> {
  return defineOp<Salt>({
    name: 'bizarre',
    attributes: ['salt'],
    dtypes: ['f32'],
    infer: (ins, { salt }) => [ins[0]!, { shape: [elements + ins[0]!.shape[0]! * salt], dtype: 'f32' }],
    reference: ({ ins, outs }) => {
      ins[0]!.data.forEach((x, i) => (outs[0]!.data[i] = x));
      outs[1]!.data.fill(1);
    },
    backward: (_call, dys) => [dys[0]!.share()],
    flops: () => 12345,
    sample: () => ({ ins: [], attributes: { salt: 1 } }),
  });
}

/** The reference backend with a kernel that wants scratch nobody sees: a size of its own for every height. */
class ScratchBackend extends ReferenceBackend {
  override workspace(kernel?: Kernel, operands?: Operands): number {
    return kernel?.name === 'bizarre' ? 1009 + 7 * operands!.ins[0]!.shape[0]! ** 2 : 0;
  }
}

class BizarreStage extends Stage {
  readonly name = 'bizarre stage';
  private readonly op: Op<Salt>;

  constructor(op: Op<Salt>) {
    super();
    this.op = op;
  }

  forward(_: Batch, arriving: Tensor): Tensor {
    return arriving.device.apply(this.op, [arriving], { salt: 31 })[0]!;
  }
}

const [tokens, salt] = [32, 31];
const aligned = (bytes: number): number => Math.ceil(bytes / 256) * 256;

/** A toy with the op in a stage of its own, between the embedding and the blocks. */
function withOp(op: Op<Salt>, more: Partial<TrialOptions> = {}): TrialOptions {
  return { optimizer: { rule: lomo }, ops: [erase(op)], stages: ([embed, ...rest]) => [embed!, new BizarreStage(op), ...rest], ...more };
}

/** Plans on one machine. */
function planOf(options: TrialOptions, backend: Backend): Promise<MemoryPlan> {
  return makePlan(backend, function* (on) {
    let trial: Trial | null = null;
    yield { name: 'setup', run: () => void (trial = new Trial({ ...options, on })) };
    yield { name: 'step', run: async () => void (await trial!.step(1)) };
  });
}

class GreedierBackend extends ScratchBackend {
  override workspace(kernel?: Kernel, operands?: Operands): number {
    return 2 * super.workspace(kernel, operands);
  }
}

function backendOf(options: TrialOptions, Kind: typeof ReferenceBackend = ScratchBackend): ReferenceBackend {
  return new Kind({ ops: [...tensorOps, ...optimOps, ...options.ops!], precision: 'f64', chunk: 8 });
}

/** The error of a real step under `plan`, in an arena of `bytes`. */
async function mismatch(options: TrialOptions, { plan, backend, bytes = 1 << 21 }: { plan: MemoryPlan; backend: Backend; bytes?: number }): Promise<{ message: string; met: MetAllocation; planned: MetAllocation }> {
  const on = new Device(backend, { bytes });
  const trial = await underPlan(on, plan, { name: 'setup', body: () => new Trial({ ...options, on }) });
  const error = await underPlan(on, plan, { name: 'step', body: () => trial.step(1) }).then(() => null, (e: unknown) => e);
  if (!isLomoError(error, 'PlanMismatch')) throw error ?? new Error('the run went as planned');
  return { message: error.message, met: error.details['met'] as MetAllocation, planned: error.details['planned'] as MetAllocation };
}

describe('an op of a size nobody foresaw, with scratch nobody sees', () => {
  const cases: readonly (readonly [string, Partial<TrialOptions>])[] = [
    ['recomputed', {}],
    ['kept, two micro-batches', { keeps: true, count: 2 }],
    ['judged first', { count: 2, optimizer: { rule: lomo, clip: { norm: 1 } } }],
  ];
  test.each(cases)('%s: the plan is the run, to the byte', async (_, more) => {
    const options = withOp(bizarre(7919), more);
    const plan = await planOf(options, backendOf(options));
    const height = tokens / (more.count ?? 1);
    const blocks = Array.from({ length: plan.timeline.allocations }, (_, id) => plan.timeline.block(id)).filter(({ op }) => op === 'bizarre');
    const sizes = (name: string | null): Set<number> => new Set(blocks.filter((b) => b.name === name).map((b) => b.bytes));
    expect(sizes('scratch')).toEqual(new Set([aligned(1009 + 7 * height ** 2)]));
    expect(sizes(null)).toContain(aligned(4 * (7919 + height * salt)));
    expect(new Set(blocks.map(({ place }) => place.stage))).toEqual(new Set(['bizarre stage']));

    const backend = backendOf(options);
    const on = new Device(backend, { bytes: plan.extent });
    const trial = await underPlan(on, plan, { name: 'setup', body: () => new Trial({ ...options, on }) });
    for (let n = 1; n <= 3; n++) await underPlan(on, plan, { name: 'step', body: () => trial.step(n) });
    expect([on.arena.extent, on.arena.peak, backend.reserved()]).toEqual([plan.extent, plan.peak, on.memory.bytes]);
    for (const [category, { peak }] of Object.entries(on.arena.usage)) expect(peak, category).toBe(plan.byCategory[category as keyof typeof plan.byCategory]);
  });

  test('its operations are counted, every time it runs', async () => {
    const options = withOp(bizarre(7919), { keeps: true, count: 2 });
    const silent = withOp({ ...bizarre(7919), flops: () => 0 }, { keeps: true, count: 2 });
    const [loud, quiet] = [await planOf(options, backendOf(options)), await planOf(silent, backendOf(silent))];
    expect(loud.flops.get('step')! - quiet.flops.get('step')!).toBe(2 * 12345);
  });
});

describe('a run that differs from its plan is stopped where it first does, by name', () => {
  const options = withOp(bizarre(7919));
  const where = 'step, pass update, forward of bizarre stage, micro-batch 0';

  test('a kernel that wants more scratch than planned', async () => {
    const plan = await planOf(options, backendOf(options));
    const { message, met, planned } = await mismatch(options, { plan, backend: backendOf(options, GreedierBackend) });
    const scratch = 1009 + 7 * tokens ** 2;
    expect([met.bytes, planned.bytes]).toEqual([aligned(2 * scratch), aligned(scratch)]);
    for (const side of [met, planned]) expect([blockWords(side), placeWords(side.place)]).toEqual(['bizarre, scratch', where]);
    expect(message).toMatch(new RegExp(`^step, allocation \\d+: met ${met.bytes} bytes of workspace at \\d+ for bizarre, scratch, in ${where}; planned was ${planned.bytes} bytes of workspace at \\d+ for bizarre, scratch\\.`));
  });

  test('an op of another size', async () => {
    const [plan, grown] = [await planOf(options, backendOf(options)), withOp(bizarre(104729))];
    const { met, planned } = await mismatch(grown, { plan, backend: backendOf(grown) });
    expect([met.op, met.bytes, planned.bytes]).toEqual(['bizarre', aligned(4 * (104729 + tokens * salt)), aligned(4 * (7919 + tokens * salt))]);
  });

  test('a tensor that the planned memory has no room for', async () => {
    const [plan, grown] = [await planOf(options, backendOf(options)), withOp(bizarre(1 << 20))];
    const { met, message } = await mismatch(grown, { plan, backend: backendOf(grown), bytes: plan.extent });
    expect([met.op, met.offset]).toEqual(['bizarre', null]);
    expect(message).toContain(`bytes of workspace that do not fit, for bizarre, in ${where}; planned was`);
  });

  test('an op that the plan never saw', async () => {
    const plain: TrialOptions = { ...options, stages: (stages) => stages };
    const plan = await planOf(plain, backendOf(plain));
    const { met, planned } = await mismatch(options, { plan, backend: backendOf(options) });
    // The setups are equal: the stage has no parameters. Its first tensor is what the plan has not.
    expect([met.op, met.place.stage, planned.place.stage]).toEqual(['bizarre', 'bizarre stage', 'block 0']);
  });
});
