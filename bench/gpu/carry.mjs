// Makes bench/gpu/carry: everything that `pnpm bench gpu` needs on a machine without internet, Node included, in one folder under 48 MiB.
//   node bench/gpu/carry.mjs [--python PATH] [--shared FOLDER] [--no-build]      then, there: bash bench/gpu/carry/run.sh [the bench's arguments]
import { execFileSync, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { chmodSync, copyFileSync, cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { homedir, tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { build } from 'tsup';

const here = dirname(fileURLToPath(import.meta.url));
const bench = dirname(here);
const root = dirname(bench);
const cuda = join(root, 'packages', 'cuda');
/** Its tokenizers run in processes of their own, whose programs lie beside the bundle. */
const tokenizer = join(root, 'packages', 'data', 'src', 'tokenizer');
const mebibyte = 2 ** 20;
const most = 48 * mebibyte;
/** First bytes of a fatbin: an addon without any was built for the double. */
const fatbin = Buffer.from('50ed55ba', 'hex');

const { values } = parseArgs({ options: { python: { type: 'string' }, shared: { type: 'string' }, build: { type: 'boolean', default: true } }, allowNegative: true });

function stop(why) {
  process.stderr.write(`carry: ${why}\n`);
  process.exit(2);
}

/** Runs a program whose output matters only where it fails. */
function run(file, args, options = {}) {
  const { status, stdout, stderr, error } = spawnSync(file, args, { encoding: 'utf8', maxBuffer: 2 ** 28, ...options });
  if (status !== 0) stop(`${file} ${args.join(' ')}\n${error?.message ?? ''}${stdout ?? ''}${stderr ?? ''}`);
  return stdout;
}

const git = (...args) => run('git', args, { cwd: root }).trim();
const commit = `${git('rev-parse', '--short=12', 'HEAD')}${git('status', '--porcelain', '--', ':/', ':(top,exclude)bench/results') === '' ? '' : '+'}`;

if (values.build) for (const more of [[], ['--double']]) run(process.execPath, [join(cuda, 'scripts', 'build.mjs'), ...more]);
const addon = join(cuda, 'build', 'Release', 'lomo_cuda.node');
const double = join(cuda, 'build', 'double', 'Release');
for (const file of [addon, join(double, 'lomo_cuda.node'), join(double, 'liblomo_double.so')]) if (!existsSync(file)) stop(`${file} is not built; leave out --no-build`);
if (!readFileSync(addon).includes(fatbin)) stop(`${addon} has no device code: build it with nvcc (node packages/cuda/scripts/nvcc.mjs install)`);

const work = mkdtempSync(join(tmpdir(), 'lomo-carry-'));
try {
  await build({
    config: false, silent: true, entry: { gpu: join(bench, 'src', 'gpu', 'cli.ts'), gpu_process: join(bench, 'src', 'gpu', 'gpu_process.ts'), engine: join(tokenizer, 'engine.js'), worker: join(tokenizer, 'worker.js') }, outDir: work, format: ['esm'], outExtension: () => ({ js: '.js' }), target: 'node20',
    splitting: false, noExternal: [/.*/], esbuildOptions: (options) => void (options.conditions = ['@lomo/source', 'module', 'node']),
  });
  writeFileSync(join(work, 'package.json'), '{ "type": "module" }\n');
  writeFileSync(join(work, 'about.json'), `${JSON.stringify({ commit, made: new Date().toISOString(), node: process.version })}\n`);
  copyFileSync(addon, join(work, 'lomo_cuda.node'));
  mkdirSync(join(work, 'double'));
  for (const file of ['lomo_cuda.node', 'liblomo_double.so']) copyFileSync(join(double, file), join(work, 'double', file));
  for (const file of ['torch_train.py', 'torch_kernels.py']) copyFileSync(join(here, file), join(work, file));
  const shared = values.shared ?? join(root, '..', 'shared');
  for (const part of ['golden', 'models', 'tokenizers']) if (existsSync(join(shared, part))) cpSync(join(shared, part), join(work, 'shared', part), { recursive: true, dereference: true });
  // The authors' optimizer, where this interpreter has it; else the peer writes it out from the paper and says so.
  const site = values.python === undefined ? '' : run(values.python, ['-c', 'import importlib.util as u; s = u.find_spec("lomo_optim"); print(s.submodule_search_locations[0] if s else "")']).trim();
  if (site !== '') cpSync(site, join(work, 'site', 'lomo_optim'), { recursive: true, filter: (file) => !file.endsWith('__pycache__') });
  const results = existsSync(join(bench, 'results')) ? readdirSync(join(bench, 'results')).filter((file) => file.endsWith('-gpu-conformance-double.json')).toSorted() : [];
  if (results.length > 0) cpSync(join(bench, 'results', results.at(-1)), join(work, 'results', results.at(-1)));

  const out = join(here, 'carry');
  rmSync(out, { recursive: true, force: true });
  mkdirSync(out);
  copyFileSync(packedNode(), join(out, 'node.xz'));
  // What a copied checkout may have made read-only must still be replaced by the next one.
  run('tar', ['--mode=u+w', '-C', work, '-cf', join(work, 'payload.tar'), ...readdirSync(work).filter((file) => file !== 'payload.tar')]);
  const payload = join(out, 'payload.tar.xz');
  writeFileSync(payload, execFileSync('xz', ['-6', '-c', join(work, 'payload.tar')], { maxBuffer: 2 ** 28 }));
  const mark = createHash('sha256').update(readFileSync(payload)).digest('hex').slice(0, 12);
  writeFileSync(join(out, 'run.sh'), readFileSync(join(here, 'run.sh'), 'utf8').replace('@MARK@', mark));
  chmodSync(join(out, 'run.sh'), 0o755);
  const sizes = readdirSync(out).map((file) => ({ file, bytes: statSync(join(out, file)).size }));
  const total = sizes.reduce((sum, { bytes }) => sum + bytes, 0);
  process.stdout.write(`${sizes.map(({ file, bytes }) => `${(bytes / mebibyte).toFixed(1).padStart(6)} MiB  ${file}`).join('\n')}\n${(total / mebibyte).toFixed(1).padStart(6)} MiB  ${out}, commit ${commit}${site === '' ? ", without the authors' optimizer" : ''}${results.length === 0 ? ", without the double's golden rows" : ''}\n`);
  if (total > most) stop(`larger than ${most / mebibyte} MiB`);
} finally {
  rmSync(work, { recursive: true, force: true });
}

/** This Node, compressed; kept in ~/.cache/lomo, for it takes a minute. */
function packedNode() {
  const kept = join(homedir(), '.cache', 'lomo', `node-${process.version}-${process.arch}.xz`);
  if (existsSync(kept)) return kept;
  mkdirSync(dirname(kept), { recursive: true });
  writeFileSync(`${kept}.part`, execFileSync('xz', ['-9', '-c', process.execPath], { maxBuffer: 2 ** 28 }));
  renameSync(`${kept}.part`, kept);
  return kept;
}
