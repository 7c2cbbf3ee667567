// Builds build/Release/lomo_cuda.node with cmake-js and Ninja. `--double` builds, without nvcc, an addon that only the host double runs,
// and the double itself, into build/double; `--double=asan` the same under the address and undefined-behaviour sanitizers. `--ops=REGEX`
// builds only some files of native/ops; `--out=FOLDER` builds elsewhere; `--target=NAME` builds only that target.
import { spawnSync } from 'node:child_process';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { findNvcc } from './nvcc.mjs';

const folder = join(dirname(fileURLToPath(import.meta.url)), '..');
const given = process.argv.slice(2);
const option = (name) => given.find((one) => one.startsWith(`--${name}=`))?.slice(name.length + 3);
const wanted = given.find((one) => !/^--(ops|out|target)=/.test(one));
const script = join(dirname(createRequire(import.meta.url).resolve('cmake-js/package.json')), 'bin', 'cmake-js');

function fail(message, status) {
  process.stderr.write(`${message}\n`);
  process.exit(status);
}

function build(out, definitions) {
  for (const [program, name] of [['cmake', 'cmake'], ['ninja', 'ninja-build']]) {
    if (spawnSync(program, ['--version'], { stdio: 'ignore' }).status !== 0) fail(`@lomo/cuda needs ${program} to build its addon; on Debian: sudo apt-get install ${name}`, 1);
  }
  const flags = Object.entries({ ...definitions, LOMO_OPS: option('ops') ?? '' }).map(([name, value]) => `--CD${name}=${value}`);
  const { status } = spawnSync(process.execPath, [script, 'build', '-G', 'Ninja', '-O', option('out') ?? join(folder, out), ...(option('target') === undefined ? [] : ['-T', option('target')]), ...flags], { cwd: folder, stdio: 'inherit' });
  process.exit(status ?? 1);
}

if (wanted === '--double') build('build/double', { LOMO_DOUBLE: 'ON' });
if (wanted === '--double=asan') build('build/double-asan', { LOMO_DOUBLE: 'ON', LOMO_SANITIZE: 'ON' });
if (wanted !== undefined) fail(`${wanted}: not known; use --double, --double=asan or nothing`, 2);
try {
  build('build', { LOMO_NVCC: findNvcc() });
} catch (error) {
  if (error.code !== 'NoNvcc') throw error;
  fail(error.message, 1);
}
