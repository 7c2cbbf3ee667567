// `pnpm bench VERB`: each verb measures one thing, prints a table and, last, its figure; with --check it exits 1 naming the bar missed.
import { parseArgs } from 'node:util';
import { picture } from './picture.ts';
import { train } from './train.ts';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    check: { type: 'boolean', default: false },
    json: { type: 'boolean', default: false },
    save: { type: 'boolean', default: false },
    python: { type: 'string' },
    models: { type: 'string', default: '15m,110m' },
    shapes: { type: 'string', default: '256x4,1024x1' },
    optims: { type: 'string', default: 'lomo' },
    rounds: { type: 'string', default: '3' },
    threads: { type: 'string', default: '2' },
    peers: { type: 'string' },
    recompute: { type: 'boolean', default: false },
  },
});

const usage = 'pnpm bench train [--check] [--json] [--save] [--python PATH] [--models 15m,110m] [--shapes 256x4,1024x1] [--optims lomo] [--rounds 3] [--threads 2] [--recompute] [--peers DIR]\npnpm bench picture';
const list = (text: string): string[] => text.split(',').filter((part) => part !== '');

switch (positionals[0]) {
  case 'train':
    process.exitCode = await train({
      ...values,
      python: values.python ?? process.env['PEER_PYTHON'] ?? null,
      models: list(values.models),
      shapes: list(values.shapes),
      optims: list(values.optims),
      rounds: Number(values.rounds),
      threads: Number(values.threads),
      peers: values.peers ?? null,
    });
    break;
  case 'picture':
    await picture();
    break;
  default:
    process.stderr.write(`${usage}\n`);
    process.exitCode = 2;
}
