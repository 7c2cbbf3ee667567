// What a stranger gets: every package packed as for a release, checked, installed into an empty project, typed and run there.
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { publint } from 'publint';
import { formatMessage } from 'publint/utils';
import ts from 'typescript';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { examplesOf } from '../readme/examples.ts';
import { type Packed, install, installedIn, packAll, publicPackages, root, run } from './tarballs.ts';

const members = await publicPackages();
const names = members.map((one) => one.name);
let scratch = '';
let packed: readonly Packed[] = [];
const tarballOf = (name: string): string => packed.find((one) => one.name === name)?.tarball ?? '';

beforeAll(async () => {
  scratch = await mkdtemp(join(tmpdir(), 'lomo-pack-'));
  packed = await packAll(scratch);
});
afterAll(() => rm(scratch, { recursive: true, force: true }));

describe('as a tarball', () => {
  test.each(names)('%s: publint finds nothing', async (name) => {
    const bytes = await readFile(tarballOf(name));
    const { messages, pkg } = await publint({ pack: { tarball: bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength) as ArrayBuffer }, level: 'warning', strict: true });
    expect(messages.map((one) => formatMessage(one, pkg, { color: false }))).toEqual([]);
  });

  test.each(names)('%s: attw finds nothing under the esm-only profile', async (name) => {
    await run(process.execPath, [join(root, 'node_modules', '@arethetypeswrong', 'cli', 'dist', 'index.js'), tarballOf(name), '--profile', 'esm-only', '--no-color'], scratch);
  });

  test.each(names)('%s: carries its licence and README, no tests and no local paths', async (name) => {
    const files = (await run('tar', ['-tzf', tarballOf(name)], scratch)).trim().split('\n');
    expect(files).toEqual(expect.arrayContaining(['package/package.json', 'package/LICENSE', 'package/README.md', 'package/dist/index.js', 'package/dist/index.d.ts']));
    expect(files.filter((file) => /\/(test|node_modules)\//.test(file))).toEqual([]);
    const manifest = await run('tar', ['-xzOf', tarballOf(name), 'package/package.json'], scratch);
    expect(manifest).not.toMatch(/workspace:|catalog:/);
    expect(JSON.parse(manifest)).not.toHaveProperty('scripts.postinstall');
  });
});

test('@lomo/cuda carries all that its build reads, and nothing that only tests do', async () => {
  const folder = join(scratch, 'cuda');
  await mkdir(folder);
  await run('tar', ['-xzf', tarballOf('@lomo/cuda'), '-C', folder], scratch);
  const files = (await run('tar', ['-tzf', tarballOf('@lomo/cuda')], scratch)).trim().split('\n').map((file) => file.slice('package/'.length));
  expect(files.filter((file) => /^native\/(test|fiber|double)\//.test(file))).toEqual([]);
  expect(files).toEqual(expect.arrayContaining(['CMakeLists.txt', 'scripts/build.mjs', 'scripts/fatbin.mjs', 'scripts/nvcc.mjs', 'scripts/cli.mjs']));
  const missing: string[] = [];
  for (const file of files.filter((one) => one.startsWith('native/'))) {
    for (const [, header = ''] of (await readFile(join(folder, 'package', file), 'utf8')).matchAll(/^#include "((?!lomo\/|fiber\/)[^"]+)"/gm)) if (!files.includes(`native/${header}`)) missing.push(`${file}: ${header}`);
  }
  expect(missing).toEqual([]);
});

test('installing @lomo/optim brings no compiler and no native code', async () => {
  const folder = join(scratch, 'only-optim');
  await install(folder, packed, ['@lomo/optim']);
  expect(await installedIn(folder)).toEqual(['@lomo/optim', '@lomo/tensor']);
  await run(process.execPath, ['--input-type=module', '-e', "await import('@lomo/optim')"], folder);
});

describe('in an empty project with everything installed', () => {
  const folder = (): string => join(scratch, 'everything');
  beforeAll(async () => {
    await install(folder(), packed, [...names, '@types/node']);
    await mkdir(join(folder(), 'out'));
  });

  test.each(names)('%s can be imported by plain Node', async (name) => {
    const count = await run(process.execPath, ['--input-type=module', '-e', `console.log(Object.keys(await import('${name}')).length)`], folder());
    expect(Number(count), `${name} exports nothing`).toBeGreaterThan(0);
  });

  test('the declarations satisfy a strict consumer that checks libraries too', async () => {
    const imports = names.map((name, index) => `import * as p${index} from '${name}';\nexport const n${index}: number = Object.keys(p${index}).length;\n`);
    await writeFile(join(folder(), 'everything.ts'), imports.join(''));
    await typecheck('everything.ts');
  });

  // The cpu backend's example needs its addon, which is compiled on the user's machine; its own tests run it.
  test.each(members.filter((one) => one.name !== '@lomo/cpu'))('the README examples of $name type-check and run against the tarballs', async ({ name, folder: at }) => {
    const examples = examplesOf(await readFile(join(at, 'README.md'), 'utf8'), `${name}/README.md`);
    for (const [index, { code }] of examples.entries()) {
      const file = `example-${name.replaceAll(/\W+/g, '-')}-${index + 1}`;
      await writeFile(join(folder(), `${file}.ts`), code);
      await typecheck(`${file}.ts`);
      const { outputText } = ts.transpileModule(code, { compilerOptions: { module: ts.ModuleKind.ESNext, target: ts.ScriptTarget.ES2022 } });
      await writeFile(join(folder(), `${file}.mjs`), outputText);
      await run(process.execPath, [`${file}.mjs`], folder());
    }
  });

  test.each(members.flatMap(({ manifest }) => Object.keys(manifest.bin ?? {})))('the command %s answers --help', async (command) => {
    const program = join(folder(), 'node_modules', '.bin', command);
    expect(existsSync(program)).toBe(true);
    expect(await run('sh', ['-c', `'${program}' --help 2>&1`], folder())).toMatch(/usage/i);
  });

  async function typecheck(file: string): Promise<void> {
    const options = {
      compilerOptions: { strict: true, skipLibCheck: false, noEmit: true, target: 'ES2022', lib: ['ES2023', 'ESNext.Disposable'], module: 'NodeNext', moduleResolution: 'NodeNext', noUncheckedIndexedAccess: true, exactOptionalPropertyTypes: true, types: ['node'] },
      files: [file],
    };
    await writeFile(join(folder(), 'tsconfig.json'), JSON.stringify(options));
    await run(process.execPath, [join(root, 'node_modules', 'typescript', 'lib', 'tsc.js'), '-p', 'tsconfig.json'], folder());
  }
});

test('every package with a README runs its examples in its own tests', async () => {
  const without: string[] = [];
  for (const { folder, name } of members) {
    const file = join(folder, 'test', 'readme.test.ts');
    if (!existsSync(file) || !/runReadme\(/.test(await readFile(file, 'utf8'))) without.push(name);
  }
  expect(without).toEqual([]);
});
