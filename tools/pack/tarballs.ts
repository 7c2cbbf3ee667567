// Packs every public package of the workspace as it would be published, and makes empty projects that install the tarballs.
import { execFile } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

/** Absolute path of the repository. */
export const root = dirname(dirname(dirname(fileURLToPath(import.meta.url))));

/** A packed package: its name, its folder in the workspace, its manifest as packed from, and the path of its .tgz. */
export interface Packed {
  readonly name: string;
  readonly folder: string;
  readonly manifest: Manifest;
  readonly tarball: string;
}

/** The fields of a package.json that the checks read. */
export interface Manifest {
  readonly name: string;
  readonly private?: boolean;
  readonly bin?: Readonly<Record<string, string>>;
  readonly dependencies?: Readonly<Record<string, string>>;
}

const execute = promisify(execFile);

/** Runs a program to its end; resolves to its output, rejects with command, status and output when the status is not 0. */
export async function run(program: string, args: readonly string[], cwd: string): Promise<string> {
  try {
    const { stdout } = await execute(program, args, { cwd, maxBuffer: 1 << 26, encoding: 'utf8' });
    return stdout;
  } catch (error) {
    const { stdout = '', stderr = '', code = '?' } = error as { stdout?: string; stderr?: string; code?: unknown };
    throw new Error(`${program} ${args.join(' ')} (in ${cwd}) ended with ${String(code)}\n${stdout}${stderr}`, { cause: error });
  }
}

/** Not published yet, but packed and checked as if it were. */
const unpublished: readonly string[] = ['@lomo/cuda'];

/** The public packages, and those that are to be, in the order of their folders. Throws when one has not been built. */
export async function publicPackages(): Promise<readonly Omit<Packed, 'tarball'>[]> {
  const folders = ['packages', 'apps'].flatMap((parent) => readdirSync(join(root, parent)).sort().map((name) => join(root, parent, name)));
  const found: Omit<Packed, 'tarball'>[] = [];
  for (const folder of folders.filter((one) => existsSync(join(one, 'package.json')))) {
    const manifest = JSON.parse(await readFile(join(folder, 'package.json'), 'utf8')) as Manifest;
    if (manifest.private === true && !unpublished.includes(manifest.name)) continue;
    if (!existsSync(join(folder, 'dist', 'index.js'))) throw new Error(`${manifest.name} is not built: run \`pnpm build\` first`);
    found.push({ name: manifest.name, folder, manifest });
  }
  return found;
}

/** Packs every public package into `into`, with the workspace protocol replaced by versions as in a release. */
export async function packAll(into: string): Promise<readonly Packed[]> {
  const packed: Packed[] = [];
  for (const one of await publicPackages()) {
    const output = await run('pnpm', ['pack', '--json', '--pack-destination', into], one.folder);
    const { filename } = JSON.parse(output) as { readonly filename: string };
    packed.push({ ...one, tarball: filename });
  }
  return packed;
}

/** Makes an empty project in `folder` that installs the packages called `names` from their tarballs, without running install scripts. */
export async function install(folder: string, packed: readonly Packed[], names: readonly string[]): Promise<void> {
  await mkdir(folder, { recursive: true });
  const files = Object.fromEntries(packed.map((one) => [one.name, `file:${one.tarball}`]));
  const chosen = Object.fromEntries(names.map((name) => [name, files[name] ?? '*']));
  await writeFile(join(folder, 'package.json'), JSON.stringify({ name: 'consumer', private: true, type: 'module', dependencies: chosen, overrides: files }, null, 2));
  await run('npm', ['install', '--ignore-scripts', '--no-audit', '--no-fund', '--prefer-offline', '--loglevel=error'], folder);
}

/** The names of all packages installed in a project, nested ones included, sorted. */
export async function installedIn(folder: string): Promise<readonly string[]> {
  const lock = JSON.parse(await readFile(join(folder, 'package-lock.json'), 'utf8')) as { readonly packages: Readonly<Record<string, unknown>> };
  return Object.keys(lock.packages).filter((path) => path !== '').map((path) => path.slice(path.lastIndexOf('node_modules/') + 'node_modules/'.length)).sort();
}
