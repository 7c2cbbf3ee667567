// `pnpm bench VERB`: each verb measures one thing, prints a table and, last, its figure; with --check it exits 1 naming the bars missed.
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { benchFolder } from './manners.ts';
import { memory } from './memory.ts';
import { ops } from './ops.ts';
import { paper } from './paper.ts';
import { performance } from './performance.ts';
import { picture } from './picture.ts';
import { plan } from './plan.ts';
import { precision } from './precision.ts';
import { quickstart } from './quickstart.ts';
import { products } from './products.ts';
import { profile } from './profile.ts';
import { telemetry } from './telemetry.ts';
import { sweep } from './sweep.ts';
import type { Peer } from './train.ts';
import { train } from './train.ts';

const usage = `pnpm bench train     ours against PyTorch, in turn: tokens/s, memory, losses
           [--python PATH] [--against stock,tuned] [--models 15m,110m] [--dtypes f32,bf16] [--shapes 256x4,1024x1] [--optims lomo] [--recompute]
           [--rounds 3] [--steps N] [--threads 2] [--preload "A.so B.so"] [--peers FOLDER] [--check] [--json] [--save]
pnpm bench memory    the most a whole process ever holds, ours against PyTorch
           [--python PATH] [--models 110m] [--dtypes f32,bf16] [--shapes 256x4] [--steps 2] [--threads 2] [--preload "A.so B.so"] [--peers FOLDER] [--check] [--json] [--save]
pnpm bench plan      what a plan says of the whole process, against the most it really held
           [--models 110m,0.5b] [--dtypes f32,bf16] [--shapes 128x2,256x4,1024x1] [--optims lomo] [--recompute] [--steps 3] [--threads 2] [--check] [--json] [--save]
pnpm bench paper     plans table 1 of the paper and writes docs/paper.md; nothing is trained   [--out FILE]
pnpm bench products  our matrix products against the best product of the same run   [--models] [--dtypes] [--shapes] [--threads] [--json] [--save]
pnpm bench ops       every kernel of a step against its own limit                   [--models] [--dtypes] [--shapes] [--threads] [--json] [--save]
pnpm bench profile   where a step's time goes, launch by launch                     [--models] [--dtypes] [--shapes] [--threads] [--optims] [--recompute] [--trace FILE] [--json] [--save]
pnpm bench performance  measures ops and profile, keeps both, and writes docs/performance.md anew from the newest results  [--models] [--dtypes] [--shapes] [--threads] [--saved]
pnpm bench telemetry  what a step costs that says what it did to the weights          [--models 15m] [--dtypes] [--shapes] [--optims lomo,adalomo,adamw] [--threads] [--steps PAIRS] [--check] [--json] [--save]
pnpm bench picture   draws docs/memory.svg from a real step                         [--models 110m] [--out FILE]
pnpm bench sweep     stories260k on GSM8K: every rule at several learning rates       [--folder MODEL] [--data FOLDER] [--steps 2000] [--init random] [--jobs 2] [--keep FOLDER] [--out FILE] [--json] [--save]
pnpm bench precision  the same runs in f32, bf16 and f16, over seeds                [--folder MODEL] [--data FOLDER] [--steps 1000] [--rate LR] [--jobs 2] [--keep FOLDER] [--out FILE] [--json] [--save]
pnpm bench gpu       the five proofs that need a GPU, resumable; with --double a rehearsal without one: pnpm bench gpu --help
pnpm bench quickstart  the quickstart's fine-tuning over seeds, learning rates, and from random weights
A model is one of 1m, 15m, 42m, 110m, 0.5b, 7b; a shape is tokens x rows. The peer's interpreter may also be given as PEER_PYTHON.
`;

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    check: { type: 'boolean', default: false },
    json: { type: 'boolean', default: false },
    save: { type: 'boolean', default: false },
    help: { type: 'boolean', default: false },
    recompute: { type: 'boolean', default: false },
    python: { type: 'string' },
    peers: { type: 'string' },
    against: { type: 'string', default: 'stock,tuned' },
    preload: { type: 'string' },
    out: { type: 'string' },
    data: { type: 'string' },
    folder: { type: 'string' },
    init: { type: 'string' },
    jobs: { type: 'string', default: '2' },
    keep: { type: 'string' },
    rate: { type: 'string' },
    trace: { type: 'string' },
    saved: { type: 'boolean', default: false },
    models: { type: 'string' },
    dtypes: { type: 'string' },
    shapes: { type: 'string' },
    optims: { type: 'string' },
    rounds: { type: 'string', default: '3' },
    steps: { type: 'string' },
    threads: { type: 'string', default: '2' },
  },
});

// Before the addon loads libgomp: see ours.ts.
process.env['GOMP_SPINCOUNT'] ??= '1000';

const verb = positionals[0];
const list = (text: string): string[] => text.split(',').filter((part) => part !== '');
const count = (text: string, name: string): number => {
  const n = Number(text);
  if (!Number.isInteger(n) || n < 1) throw new Error(`--${name} ${text}: expected a whole number from 1`);
  return n;
};

function peerOf(name: string): Peer {
  if (name === 'stock' || name === 'tuned') return name;
  throw new Error(`--against ${name}: expected stock or tuned`);
}

async function main(): Promise<number> {
  const { json, save, check, recompute } = values;
  const [dtypes, optims, threads] = [list(values.dtypes ?? (verb === 'train' || verb === 'memory' || verb === 'plan' || verb === 'performance' || verb === 'telemetry' ? 'f32,bf16' : 'f32')), list(values.optims ?? (verb === 'telemetry' ? 'lomo,adalomo,adamw' : 'lomo')), count(values.threads, 'threads')];
  const models = (fallback: string): string[] => list(values.models ?? fallback);
  const shapes = (fallback: string): string[] => list(values.shapes ?? fallback);
  const shared = join(benchFolder, '..', '..', 'shared');
  const trained = { model: values.folder ?? join(shared, 'models', 'stories260k'), data: values.data ?? join(shared, 'data'), jobs: count(values.jobs, 'jobs'), keep: values.keep };
  const measured = { json, save, check, dtypes, threads, optims, recompute };
  if (check && verb !== 'train' && verb !== 'memory' && verb !== 'plan' && verb !== 'telemetry') throw new Error('--check: only train, memory, plan and telemetry have bars');
  switch (verb) {
    case 'train':
      return train({
        ...measured,
        models: models('15m,110m'),
        shapes: shapes('256x4,1024x1'),
        rounds: count(values.rounds, 'rounds'),
        steps: values.steps === undefined ? undefined : count(values.steps, 'steps'),
        python: values.python ?? process.env['PEER_PYTHON'],
        peers: values.peers ?? join(benchFolder, '..', '..', 'shared', 'peers'),
        against: list(values.against).map(peerOf),
        preload: values.preload,
      });
    case 'memory':
      return memory({
        ...measured,
        models: models('110m'),
        shapes: shapes('256x4'),
        steps: values.steps === undefined ? 2 : count(values.steps, 'steps'),
        python: values.python ?? process.env['PEER_PYTHON'],
        peers: values.peers ?? join(benchFolder, '..', '..', 'shared', 'peers'),
        preload: values.preload,
      });
    case 'plan':
      return plan({ ...measured, models: models('110m,0.5b'), shapes: shapes('128x2,256x4,1024x1'), steps: count(values.steps ?? '3', 'steps') });
    case 'paper':
      return paper({ out: values.out ?? join(benchFolder, '..', 'docs', 'paper.md') });
    case 'products':
      return products({ ...measured, models: models('15m,110m'), shapes: shapes('256x4') });
    case 'ops':
      return ops({ ...measured, models: models('110m'), shapes: shapes('256x4') });
    case 'profile':
      return profile({ ...measured, models: models('110m'), shapes: shapes('256x4'), trace: values.trace });
    case 'performance':
      return performance({ ...measured, models: models('110m'), shapes: shapes('256x4'), trace: undefined, saved: values.saved });
    case 'telemetry':
      return telemetry({ ...measured, models: models('15m'), shapes: shapes('256x4'), pairs: count(values.steps ?? '20', 'steps') });
    case 'picture':
      return picture({ model: models('110m')[0]!, out: values.out ?? join(benchFolder, '..', 'docs', 'memory.svg') });
    case 'sweep':
      return sweep({ json, save, check, ...trained, steps: count(values.steps ?? '2000', 'steps'), random: values.init === 'random', out: values.out ?? join(benchFolder, '..', 'docs', 'sweep.svg') });
    case 'precision':
      return precision({ json, save, check, ...trained, steps: count(values.steps ?? '1000', 'steps'), rate: Number(values.rate ?? '0.1'), out: values.out ?? join(benchFolder, '..', 'docs', 'precision.svg') });
    case 'quickstart':
      return quickstart();
    default:
      process.stderr.write(usage);
      return values.help ? 0 : 2;
  }
}

try {
  process.exitCode = values.help ? (process.stdout.write(usage), 0) : await main();
} catch (error) {
  process.stderr.write(`bench ${verb ?? ''}: ${error instanceof Error ? error.message : String(error)}\n`);
  process.exitCode = 2;
}
