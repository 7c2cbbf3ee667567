// Where nvcc is: CUDACXX, CUDA_HOME, PATH, the system's CUDA folder, or the virtual environment that `node scripts/nvcc.mjs install` makes.
import { execFileSync, spawnSync } from 'node:child_process';
import { accessSync, constants, existsSync, mkdirSync, readdirSync, renameSync, rmSync, statSync } from 'node:fs';
import { homedir } from 'node:os';
import { delimiter, dirname, isAbsolute, join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** nvcc 13.0 and what it needs, as PyPI packages. Newer compilers' PTX is refused by drivers of the 580 series. */
export const packages = [
  'nvidia-cuda-nvcc==13.0.88',
  'nvidia-cuda-crt==13.0.88',
  'nvidia-nvvm==13.0.88',
  'nvidia-cuda-runtime==13.0.96',
  'nvidia-cuda-cccl==13.0.85',
];
const environment = 'nvcc-13.0.88';
const script = fileURLToPath(import.meta.url);

/** lomo's cache folder, outside any clone. */
export function cacheFolder(env = process.env) {
  return join(env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'lomo');
}

/** Where pip puts NVIDIA's programs in a virtual environment of the cache folder: one folder a Python version, none where it is not made. */
export function programFolders(name, env = process.env) {
  const lib = join(cacheFolder(env), name, 'lib');
  return existsSync(lib) ? readdirSync(lib).map((python) => join(lib, python, 'site-packages', 'nvidia', 'cu13', 'bin')) : [];
}

/**
 * Every place that is searched, best first: `{ path, from }`. What CUDACXX, CUDA_HOME or CUDA_PATH name is `named`: it is meant, so a wrong
 * one is an error and not passed over.
 */
export function places(env = process.env) {
  const list = [];
  const onPath = (name) => (env.PATH ?? '').split(delimiter).filter((folder) => folder !== '').map((folder) => join(folder, name));
  if (env.CUDACXX) list.push({ path: isAbsolute(env.CUDACXX) ? env.CUDACXX : (onPath(env.CUDACXX).find(isProgram) ?? env.CUDACXX), from: 'CUDACXX', named: true });
  for (const name of ['CUDA_HOME', 'CUDA_PATH']) if (env[name]) list.push({ path: join(env[name], 'bin', 'nvcc'), from: name, named: true });
  for (const path of onPath('nvcc')) list.push({ path, from: 'PATH', named: false });
  list.push({ path: '/usr/local/cuda/bin/nvcc', from: 'the system', named: false });
  for (const folder of programFolders(environment, env)) list.push({ path: join(folder, 'nvcc'), from: 'PyPI', named: false });
  return list;
}

function isProgram(path) {
  try {
    accessSync(path, constants.X_OK);
    return statSync(path).isFile();
  } catch {
    return false;
  }
}

/** Why the nvcc at `path` will not do, or null. It has to be of CUDA 13: 12 is not tried by any test here, and the kernels need C++20. */
function objection(path) {
  if (!existsSync(path)) return 'not there';
  if (!isProgram(path)) return 'not a program';
  const { status, stdout } = spawnSync(path, ['--version'], { encoding: 'utf8' });
  const version = /release (\d+)\.(\d+)/.exec(status === 0 ? stdout : '');
  if (version === null) return 'does not answer --version as nvcc does';
  return version[1] === '13' ? null : `is of CUDA ${version[1]}.${version[2]}`;
}

// The folders of PATH without an nvcc are one line.
function listed(looked) {
  const lines = looked.filter((one) => one.from !== 'PATH' || one.why !== 'not there').map((one) => `  ${one.path}, from ${one.from}: ${one.why}`);
  return [...lines, ...(lines.length < looked.length ? ['  PATH: no other nvcc'] : [])].join('\n');
}

/** What to do where there is none, and what was looked at. */
export class NoNvcc extends Error {
  constructor(why, looked) {
    super(`${why}. Next: node ${script} install brings 13.0 from PyPI (300 MB, into ${cacheFolder()}); or name one of CUDA 13 in CUDACXX or CUDA_HOME. Looked at:\n${listed(looked)}`);
    this.code = 'NoNvcc';
  }
}

/** Path of the first nvcc that will do. Throws NoNvcc, with every place tried, where there is none or a named one will not do. */
export function findNvcc(env = process.env) {
  const looked = [];
  for (const place of places(env)) {
    const why = objection(place.path);
    if (why === null) return place.path;
    looked.push({ ...place, why });
    if (place.named) throw new NoNvcc(`${place.from} names ${place.path}, which ${why === 'not there' ? 'is not there' : why === 'not a program' ? 'is not a program' : why}; @lomo/cuda needs nvcc of CUDA 13`, looked);
  }
  throw new NoNvcc('@lomo/cuda needs nvcc of CUDA 13 to compile its kernels, and none was found', looked);
}

/**
 * Installs PyPI packages into the virtual environment `name` of the cache folder, beside it first: an interrupt leaves nothing that looks
 * whole. Throws where Python, its venv or the registry cannot be had.
 */
export function installPackages(name, wanted, env = process.env) {
  const final = join(cacheFolder(env), name), partial = `${final}.partial-${process.pid}`;
  mkdirSync(dirname(final), { recursive: true });
  rmSync(partial, { recursive: true, force: true });
  const run = (program, args, advice) => {
    try {
      execFileSync(program, args, { stdio: ['ignore', 2, 2], env });
    } catch (error) {
      rmSync(partial, { recursive: true, force: true });
      throw new Error(`\`${program} ${args.join(' ')}\` failed (${error.code ?? `status ${error.status}`}). ${advice}`);
    }
  };
  run('python3', ['-m', 'venv', partial], 'It needs Python 3 with venv: on Debian, sudo apt-get install python3-venv');
  run(join(partial, 'bin', 'python3'), ['-m', 'pip', 'install', '--quiet', '--disable-pip-version-check', ...wanted], 'Is PyPI reachable from here? Behind a mirror, set PIP_INDEX_URL');
  try {
    renameSync(partial, final);
  } catch (error) {
    rmSync(partial, { recursive: true, force: true });
    if (!existsSync(final)) throw error; // else another process was faster
  }
}

/** Path of PyPI's nvcc, installed where it is not there yet; about 300 MB. Throws what installPackages does. */
export function installNvcc(env = process.env) {
  const found = () => programFolders(environment, env).map((folder) => join(folder, 'nvcc')).find((path) => objection(path) === null);
  if (found() !== undefined) return found();
  rmSync(join(cacheFolder(env), environment), { recursive: true, force: true });
  installPackages(environment, packages, env);
  const path = found();
  if (path === undefined) throw new Error(`pip installed ${packages[0]} into ${join(cacheFolder(env), environment)}, but no nvcc runs there`);
  return path;
}

/** The nvcc to build with: one that is there, else PyPI's, installed. Throws NoNvcc where a named one will not do. */
export function ensureNvcc(env = process.env) {
  try {
    return findNvcc(env);
  } catch (error) {
    if (error.code !== 'NoNvcc' || places(env).some((place) => place.named)) throw error;
    return installNvcc(env);
  }
}

if (process.argv[1] === script) {
  try {
    process.stdout.write(`${process.argv[2] === 'install' ? ensureNvcc() : findNvcc()}\n`);
  } catch (error) {
    process.stderr.write(`${error.message}\n`);
    process.exitCode = 1;
  }
}
