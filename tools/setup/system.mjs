// What must be on the machine before anything is built: the Node version, the pinned pnpm, Debian packages for the native backend.
import { spawnSync } from 'node:child_process';
import { accessSync, chmodSync, constants, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { PhaseFailed, cache, childEnvironment, mustRun, root } from './phase.mjs';

const packages = [
  { debian: 'g++', has: () => onPath('g++') || onPath('c++') || onPath('clang++') },
  { debian: 'make', has: () => onPath('make') },
  { debian: 'cmake', has: () => onPath('cmake') },
  { debian: 'ninja-build', has: () => onPath('ninja') },
  { debian: 'libdnnl-dev', has: () => ['/usr/include', '/usr/local/include'].some((folder) => existsSync(join(folder, 'dnnl.hpp')) || existsSync(join(folder, 'oneapi/dnnl/dnnl.hpp'))) },
];

function onPath(program) {
  return (process.env.PATH ?? '').split(delimiter).some((folder) => {
    try {
      accessSync(join(folder, program), constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}

/** Throws when this Node is older than 20.19; returns its version. */
export function checkNode() {
  const [major = 0, minor = 0] = process.versions.node.split('.').map(Number);
  if (major < 20 || (major === 20 && minor < 19)) throw new PhaseFailed(`this is Node ${process.versions.node}; lomo needs 20.19 or newer: https://nodejs.org/en/download`);
  return process.versions.node;
}

/** For what pip brings: nvcc, a disassembler, another Node. */
const python = { debian: 'python3-venv', has: () => spawnSync('python3', ['-c', 'import venv, ensurepip'], { stdio: 'ignore' }).status === 0 };

/** Installs the missing Debian packages when root, Python's venv with them where `pip`; otherwise throws with the line to type. Returns what was done. */
export async function ensureSystemPackages(say, { pip = false } = {}) {
  const missing = [...packages, ...(pip ? [python] : [])].filter((one) => !one.has()).map((one) => one.debian);
  if (missing.length === 0) return 'all there';
  const line = `apt-get install -y --no-install-recommends ${missing.join(' ')}`;
  if (!onPath('apt-get')) throw new PhaseFailed(`missing: ${missing.join(', ')} (Debian names), and there is no apt-get here: install them by the means of this system, then run again`);
  if (process.getuid?.() !== 0) throw new PhaseFailed(`missing: ${missing.join(', ')}. Type this, then run again:\n\n  sudo apt-get update && sudo ${line}\n`);
  const env = { DEBIAN_FRONTEND: 'noninteractive' };
  await mustRun('apt-update', ['apt-get', 'update'], { env, progress: say });
  await mustRun('apt-install', line.split(' '), { env, progress: say });
  return `installed ${missing.join(', ')}`;
}

/**
 * Makes the pnpm version pinned in package.json callable as `pnpm` in this process and its children, without a global install:
 * a small script in the cache folder, first on PATH, that calls a matching pnpm, corepack, or npx. Returns which one.
 */
export function ensurePnpm() {
  const pin = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')).packageManager;
  const version = /^pnpm@([\d.]+)/.exec(pin)?.[1];
  if (version === undefined) throw new PhaseFailed(`package.json: packageManager is '${pin}', expected 'pnpm@<version>+sha512.<hash>'`);
  const bin = join(cache, 'bin');
  const shim = join(bin, 'pnpm');
  const outside = (process.env.PATH ?? '').split(delimiter).filter((folder) => folder !== bin).join(delimiter);
  const env = { ...childEnvironment(), PATH: outside };
  const answers = (command) => {
    const result = spawnSync(command[0], [...command.slice(1), '--version'], { cwd: root, env, encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
    return result.status === 0 && result.stdout.trim() === version;
  };
  const candidates = [['pnpm'], ['corepack', 'pnpm'], ['npx', '-y', `pnpm@${version}`]];
  const found = candidates.find(answers);
  if (found === undefined) throw new PhaseFailed(`pnpm ${version} cannot be had: neither pnpm on PATH, nor corepack, nor \`npx -y pnpm@${version}\` gives it; is the registry reachable?`);
  if (found.length === 1) return `${version}, on PATH`;
  mkdirSync(bin, { recursive: true });
  writeFileSync(shim, `#!/bin/sh\nexport COREPACK_ENABLE_DOWNLOAD_PROMPT=0\nexec ${found.join(' ')} "$@"\n`);
  chmodSync(shim, 0o755);
  process.env.PATH = `${bin}${delimiter}${outside}`;
  return `${version}, by ${found[0]}`;
}
