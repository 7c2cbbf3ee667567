// The set-up phases shared by `npm start` and `npm test`: from a bare clone to built packages, doing only what changed.
import { existsSync, readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { cache, mustRun, phase, root } from './phase.mjs';
import { hashOf, isFresh, remember } from './stamp.mjs';
import { checkNode, ensurePnpm, ensureSystemPackages } from './system.mjs';

/** The workspace's own packages: `{ folder, name, manifest }`, folder relative to the root, in a fixed order. */
export function workspace() {
  const folders = ['packages', 'apps', 'examples', 'tools', '.'].flatMap((parent) =>
    parent === '.' ? ['bench'] : existsSync(join(root, parent)) ? readdirSync(join(root, parent)).sort().map((name) => `${parent}/${name}`) : []);
  return folders.filter((folder) => existsSync(join(root, folder, 'package.json'))).map((folder) => {
    const manifest = JSON.parse(readFileSync(join(root, folder, 'package.json'), 'utf8'));
    return { folder, name: manifest.name, manifest };
  });
}

async function once(name, key, body) {
  const hash = hashOf(key.inputs, key.extra);
  const budget = key.budget;
  if (isFresh(name, hash, key.outputs)) return phase(name, async () => 'nothing changed', { budget });
  return phase(name, async (say) => {
    const note = await body(say);
    remember(name, hash);
    return note;
  }, { budget });
}

// nvcc and the disassembler, the kernels of @lomo/cuda for every architecture, its addon, and its double. Kernels compiled before are taken
// from the cache outside the clone (packages/cuda/scripts/fatbin.mjs).
async function prepareCuda() {
  const run = (name, script, args, say) => mustRun(name, [process.execPath, join(root, script), ...args], { progress: say });
  const said = (result) => result.text.trim().split('\n').at(-1) ?? '';
  let nvcc = '';
  await phase('nvcc', async (say) => {
    nvcc = said(await run('nvcc', 'packages/cuda/scripts/nvcc.mjs', ['install'], say));
    await run('cuobjdump', 'tools/cuda/sass.mjs', ['install'], say);
    return nvcc;
  }, { budget: 120 });
  const sources = ['packages/cuda/native', 'packages/cuda/scripts', 'packages/cuda/CMakeLists.txt', 'packages/cuda/package.json', 'packages/tensor/native'];
  const build = join(root, 'packages', 'cuda', 'build');
  await once('cuda build', { inputs: sources, extra: [process.arch, process.platform, nvcc], outputs: [join(build, 'Release', 'lomo_cuda.node'), join(build, 'fatbin')], budget: 240 }, async (say) => {
    await run('cuda build', 'packages/cuda/scripts/build.mjs', [], say);
    return `@lomo/cuda, ${readdirSync(join(build, 'fatbin')).length} files of kernels`;
  });
  const double = join(build, 'double', 'Release');
  await once('cuda double', { inputs: sources, extra: [process.arch, process.platform], outputs: [join(double, 'lomo_cuda.node'), join(double, 'liblomo_double.so')], budget: 120 }, async (say) => {
    await run('cuda double', 'packages/cuda/scripts/build.mjs', ['--double'], say);
    return 'the same kernels on fibers';
  });
}

/**
 * Checks the machine, installs, builds the native backend and the packages; with `cuda`, also everything of CUDA, which a machine without a
 * GPU needs for tests only. Each phase prints one line; throws at the first failure.
 */
export async function prepare({ cuda = false } = {}) {
  const members = workspace();
  await phase('node', async () => checkNode());
  await phase('system packages', (say) => ensureSystemPackages(say, { pip: cuda }), { budget: 120 });
  await phase('pnpm', async () => ensurePnpm(), { budget: 30 });
  await once('install', {
    inputs: ['pnpm-lock.yaml', 'pnpm-workspace.yaml', '.npmrc', 'package.json', ...members.map((one) => `${one.folder}/package.json`)],
    outputs: [join(root, 'node_modules', '.modules.yaml'), ...members.filter((one) => Object.keys(one.manifest.dependencies ?? {}).length > 0).map((one) => join(root, one.folder, 'node_modules'))],
    budget: 90,
  }, async (say) => {
    await mustRun('install', ['pnpm', 'install', '--frozen-lockfile', '--reporter=append-only'], { progress: say });
    return 'pnpm install --frozen-lockfile';
  });
  const native = join(root, 'packages', 'cpu', 'build', 'Release');
  const addon = existsSync(native) ? readdirSync(native).filter((file) => file.endsWith('.node')).map((file) => join(native, file)) : [];
  await once('native build', {
    inputs: ['packages/cpu/native', 'packages/cpu/CMakeLists.txt', 'packages/cpu/package.json', 'packages/tensor/native'],
    extra: [process.arch, process.platform],
    outputs: addon.length > 0 ? addon : [join(native, 'none.node')],
    budget: 240,
  }, async (say) => {
    await mustRun('native build', ['pnpm', '--filter', '@lomo/cpu', 'build:native'], { progress: say });
    return '@lomo/cpu';
  });
  if (cuda) await prepareCuda();
  const built = members.filter((one) => one.manifest.scripts?.build !== undefined);
  await once('typescript build', {
    inputs: ['pnpm-lock.yaml', 'tsconfig.base.json', ...built.flatMap((one) => ['src', 'conformance', 'package.json', 'tsup.config.ts'].map((part) => `${one.folder}/${part}`))],
    outputs: built.map((one) => join(root, one.folder, 'dist')),
    budget: 120,
  }, async (say) => {
    await mustRun('typescript build', ['pnpm', 'exec', 'turbo', 'run', 'build', '--concurrency=2', '--output-logs=new-only', '--ui=stream'], { progress: say });
    return `${built.length} packages`;
  });
  return { members, logs: join(cache, 'logs') };
}
