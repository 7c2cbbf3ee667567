// Our side of `bench train`, a process of its own: trains a folder's model on fixed tokens and prints one line of JSON.
import { readFileSync } from 'node:fs';
import { cpu } from '@lomo/cpu';
import { createModel, loadWeights, readConfig } from '@lomo/models';
import { adalomo, adamw, lomo, Optimizer, sgd } from '@lomo/optim';
import type { HostBatch } from '@lomo/parallel';
import { makePlan, Program } from '@lomo/parallel';
import { Device } from '@lomo/tensor';

/** What to train, as the peer's flags say it. */
export interface OursOptions {
  readonly folder: string;
  readonly text: string;
  readonly optim: string;
  readonly dtype: 'f32' | 'bf16';
  readonly seq: number;
  readonly batch: number;
  readonly steps: number;
  readonly warmup: number;
  readonly lr: number;
  readonly threads: number;
  readonly keeps: boolean;
}

export interface OursResult {
  readonly tokens_per_s: number;
  readonly step_s: number;
  readonly losses: readonly number[];
  readonly peak_mib: number;
  readonly arena_mib: number;
  readonly launches: number;
  readonly libraries: string;
}

async function main(options: OursOptions): Promise<OursResult> {
  const { folder, seq, batch, steps, warmup, threads } = options;
  const backend = cpu({ threads });
  const json = await readConfig(folder);
  const size = seq * batch;
  const assemble = (device: Device) => {
    const model = createModel(json, device, { dtype: options.dtype, maxLength: seq });
    const rule = { lomo, adalomo: adalomo(), adamw: adamw(), sgd }[options.optim];
    if (rule === undefined) throw new Error(`no optimizer '${options.optim}'`);
    const optimizer = new Optimizer(device, model.parameters, { rule, rounding: 'nearest' });
    const last = model.stages.length - 1;
    const program = new Program(device, model, { microBatches: 1, tokens: size, maxSegments: batch, maxLength: seq, keeps: (s) => options.keeps && s !== last });
    return { model, optimizer, program };
  };
  const stream = readFileSync(options.text);
  const vocabSize = Number(json['vocab_size']);
  const batchOf = (step: number): HostBatch => {
    const at = (step * size) % (stream.length - size + 1);
    const tokens = Int32Array.from(stream.subarray(at, at + size), (byte) => byte % vocabSize);
    return {
      tokens,
      targets: tokens.map((_, t) => (t % seq === seq - 1 ? -100 : tokens[t + 1]!)),
      positions: tokens.map((_, t) => t % seq),
      starts: Int32Array.from({ length: batch + 1 }, (_, s) => s * seq),
    };
  };
  const plan = await makePlan(backend, function* (device) {
    yield {
      name: 'step',
      run: async () => {
        const { program, optimizer } = assemble(device);
        await program.run({ step: 1, seed: 0, lr: 0, batches: [batchOf(0)], passes: optimizer.passes });
      },
    };
  });
  const device = new Device(backend, { bytes: plan.extent });
  const { model, optimizer, program } = assemble(device);
  await loadWeights(model, folder);
  const [times, losses]: [number[], number[]] = [[], []];
  for (let i = 0; i < warmup + steps; i++) {
    const batches = [batchOf(i)];
    const start = performance.now();
    const { loss } = await program.run({ step: i + 1, seed: 0, lr: options.lr, batches, passes: optimizer.passes });
    times.push((performance.now() - start) / 1000);
    losses.push(loss);
  }
  const timed = times.slice(warmup).toSorted((a, b) => a - b);
  const median = timed[Math.floor(timed.length / 2)]!;
  const peak = Number(/VmHWM:\s+(\d+)/.exec(readFileSync('/proc/self/status', 'utf8'))?.[1] ?? 0) / 1024;
  return {
    tokens_per_s: size / median,
    step_s: median,
    losses,
    peak_mib: peak,
    arena_mib: plan.extent / 2 ** 20,
    launches: plan.launches.get('step') ?? 0,
    libraries: backend.libraries.map(({ name, version }) => `${name} ${version}`).join(', '),
  };
}

const result = await main(JSON.parse(process.argv[2] ?? '{}') as OursOptions);
process.stdout.write(`${JSON.stringify(result)}\n`);
process.exit(0);
