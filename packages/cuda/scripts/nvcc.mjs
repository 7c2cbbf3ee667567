// Where nvcc is: CUDACXX, CUDA_HOME, PATH, the system's CUDA folder, or the virtual environment that `node scripts/nvcc.mjs install` makes.
import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import { homedir } from 'node:os';
import { delimiter, join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** nvcc 13.0 and what it needs, as PyPI packages. Newer compilers' PTX is refused by drivers of the 580 series. */
export const packages = [
  'nvidia-cuda-nvcc==13.0.88',
  'nvidia-cuda-crt==13.0.88',
  'nvidia-nvvm==13.0.88',
  'nvidia-cuda-runtime==13.0.96',
  'nvidia-cuda-cccl==13.0.85',
];

/** lomo's cache folder, outside any clone. */
export function cacheFolder(env = process.env) {
  return join(env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'lomo');
}

/** Every place that is searched, best first. */
export function places(env = process.env) {
  const list = [];
  if (env.CUDACXX) list.push(env.CUDACXX);
  for (const home of [env.CUDA_HOME, env.CUDA_PATH]) if (home) list.push(join(home, 'bin', 'nvcc'));
  for (const folder of (env.PATH ?? '').split(delimiter)) if (folder !== '') list.push(join(folder, 'nvcc'));
  list.push('/usr/local/cuda/bin/nvcc');
  const lib = join(cacheFolder(env), 'nvcc-13.0.88', 'lib');
  if (existsSync(lib)) for (const python of readdirSync(lib)) list.push(join(lib, python, 'site-packages', 'nvidia', 'cu13', 'bin', 'nvcc'));
  return list;
}

/** Path of the first nvcc that is there, or null. */
export function findNvcc(env = process.env) {
  return places(env).find((path) => existsSync(path)) ?? null;
}

/** Makes the virtual environment; about 300 MB. Returns nvcc's path. Throws where Python or the registry cannot be reached. */
export function installNvcc(env = process.env) {
  const venv = join(cacheFolder(env), 'nvcc-13.0.88');
  execFileSync('python3', ['-m', 'venv', venv], { stdio: 'inherit' });
  execFileSync(join(venv, 'bin', 'pip'), ['install', '--quiet', ...packages], { stdio: 'inherit' });
  const found = places({ ...env, CUDACXX: '', CUDA_HOME: '', CUDA_PATH: '', PATH: '' }).find((path) => existsSync(path) && path.startsWith(venv));
  if (found === undefined) throw new Error(`pip installed ${packages[0]} into ${venv}, but no nvcc is there`);
  return found;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  if (process.argv[2] === 'install') process.stdout.write(`${findNvcc() ?? installNvcc()}\n`);
  else {
    const found = findNvcc();
    process.stdout.write(found === null ? `no nvcc; \`node scripts/nvcc.mjs install\` brings it. Looked at:\n${places().map((p) => `  ${p}`).join('\n')}\n` : `${found}\n`);
    process.exitCode = found === null ? 1 : 0;
  }
}
