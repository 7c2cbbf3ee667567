// bench picture: draws docs/memory.svg: the arena's live bytes by category over one real training step, LOMO beside AdamW on one scale.
import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import type { CpuBackend } from '@lomo/cpu';
import { cpu } from '@lomo/cpu';
import type { JsonObject } from '@lomo/models';
import { initialise } from '@lomo/models';
import type { Optimizer, Rule } from '@lomo/optim';
import { adamw, lomo } from '@lomo/optim';
import type { ProgramPass } from '@lomo/parallel';
import type { Parameter } from '@lomo/tensor';
import { categories, Dense, Device, DryBackend, Grad } from '@lomo/tensor';
import type { Setup } from './assembly.ts';
import { assemble, batchesOf } from './assembly.ts';
import { percent } from './manners.ts';
import { modelConfig } from './models.ts';
import { drawTimeline } from './timeline.ts';
import type { Moment, Timeline } from './timeline.ts';

/** Four micro-batches of one row of 512 tokens. */
const shape = { seq: 512, batch: 1, microBatches: 4 } as const;
/** Arithmetic that takes as long as moving one byte; only the width of the picture's steps depends on it. */
const flopsPerByte = 16;

export interface Side {
  readonly rule: Rule;
  /** When parameters are updated: as each settles, or all together after backward, as frameworks do, which keeps every gradient until then. */
  readonly updates: 'on settle' | 'after backward';
}

/** The two sides of the picture. */
export const sides: Readonly<Record<'adamw' | 'lomo', Side>> = {
  adamw: { rule: adamw(), updates: 'after backward' },
  lomo: { rule: lomo, updates: 'on settle' },
};

/** Passes of the same program: with `after backward` gradients are put aside whole until the pass is finished. */
function passesOf(device: Device, optimizer: Optimizer, options: { readonly side: Side; readonly onUpdate: () => void }): readonly ProgramPass[] {
  if (options.side.updates === 'on settle') return optimizer.passes;
  const update = optimizer.passes[0]!;
  const aside: { readonly p: Parameter; readonly g: Grad; readonly order: number }[] = [];
  return [
    {
      name: 'after backward',
      settle: (p, g, { order }) => void aside.push({ p, g: new Grad(device, p.shape, [new Dense(g.value())]), order }),
      finish: async (step) => {
        options.onUpdate();
        for (const { p, g, order } of aside.splice(0)) {
          update.settle(p, g, { step, order });
          g.release();
        }
        await update.finish(step);
      },
    },
  ];
}

/** The arena's moments over one step of `side`: on `device` with data or without, the same program. */
export async function timelineOf(device: Device, setup: Setup): Promise<Timeline> {
  const side = Object.values(sides).find(({ rule }) => rule.name === setup.rule.name)!;
  const made = assemble(device, setup);
  initialise(made.model, 0);
  const { arena } = device;
  let [work, backward, update] = [0, NaN, NaN];
  const moments: Moment[] = [];
  const note = (): void => void moments.push({ work, live: Object.fromEntries(categories.map((c) => [c, arena.usage[c].live])) as Moment['live'] });
  note();
  arena.observer = {
    allocated: ({ category }) => {
      // The last stage is only walked back: its logits are where backward begins.
      if (category === 'logits' && Number.isNaN(backward)) backward = work;
      note();
    },
    freed: note,
  };
  device.observer = {
    launched: (op, { ins, inouts, outs }, attributes) => {
      const bytes = [...ins, ...inouts, ...inouts, ...outs].reduce((sum, t) => sum + t.bytes, 0);
      work += Math.max(bytes, op.flops(ins, attributes, inouts, outs) / flopsPerByte);
    },
  };
  arena.resetPeaks();
  const passes = passesOf(device, made.optimizer, { side, onUpdate: () => (update = work) });
  await made.program.run({ step: 1, seed: 0, lr: 1e-4, batches: batchesOf(setup, Uint8Array.from({ length: 4096 }, (_, i) => (i * 37) % 251), 0), passes });
  arena.observer = null;
  device.observer = null;
  return { moments, peak: arena.peak, extent: arena.extent, backward, update: Number.isNaN(update) ? null : update, work };
}

/** The setup of a side of the picture for a model. */
export function setupOf(side: Side, json: JsonObject): Setup {
  return { json, dtype: 'f32', ...shape, rule: side.rule, keeps: false, headForm: side.updates === 'on settle' ? 'tiles' : 'chunks' };
}

/** The step of `side` without data, then with it in a memory of the planned size. Throws where they differ in one byte at one moment. */
export async function provenTimeline(backend: CpuBackend, setup: Setup): Promise<Timeline> {
  const planned = await timelineOf(new Device(new DryBackend(backend), { bytes: Infinity }), setup);
  const device = new Device(backend, { bytes: planned.extent });
  const real = await timelineOf(device, setup);
  device.free();
  if (JSON.stringify(real) !== JSON.stringify(planned)) throw new Error(`${setup.rule.name}: the step's memory (peak ${real.peak}) is not the plan's (peak ${planned.peak})`);
  return real;
}

/** Draws the picture; says the peaks and, last, their ratio. Returns the exit code. */
export async function picture(options: { readonly model: string; readonly out: string }): Promise<number> {
  await using backend = cpu({ threads: 2 });
  const json = modelConfig(options.model);
  const [of, adam] = [await provenTimeline(backend, setupOf(sides.lomo, json)), await provenTimeline(backend, setupOf(sides.adamw, json))];
  const parameters = of.moments[0]!.live.weights / 4;
  const svg = drawTimeline(
    [
      { title: 'AdamW', subtitle: 'updates after backward', timeline: adam },
      { title: 'LOMO', subtitle: 'updates inside backward', timeline: of },
    ],
    {
      heading: 'Memory of one training step',
      caption: `A LLaMA of ${(parameters / 1e6).toFixed(0)} M parameters in f32; ${shape.microBatches} micro-batches of ${shape.seq * shape.batch} tokens, activations recomputed. Measured by lomo, both sides.`,
    },
  );
  mkdirSync(dirname(options.out), { recursive: true });
  writeFileSync(options.out, svg);
  for (const [name, { peak, extent }] of [['AdamW', adam], ['LOMO', of]] as const) process.stdout.write(`${name}: peak ${mib(peak)}, reserved ${mib(extent)}\n`);
  process.stdout.write(`drawn to ${options.out}\n${percent(of.peak / adam.peak)} of AdamW's memory\n`);
  return 0;
}

function mib(bytes: number): string {
  return `${(bytes / 2 ** 20).toFixed(0)} MiB`;
}
