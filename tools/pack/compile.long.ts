// The long check of the packed backend: `npx @lomo/cpu build` in an empty project compiles the addon from what the tarballs carry, and it loads.
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import ts from 'typescript';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { examplesOf } from '../readme/examples.ts';
import { install, packAll, root, run } from './tarballs.ts';

let scratch = '';
beforeAll(async () => {
  scratch = await mkdtemp(join(tmpdir(), 'lomo-compile-'));
});
afterAll(() => rm(scratch, { recursive: true, force: true }));

test('an installed @lomo/cpu compiles its addon and runs its README example', async () => {
  const folder = join(scratch, 'project');
  await install(folder, await packAll(scratch), ['@lomo/cpu', '@lomo/tensor']);
  await run('npx', ['--no-install', 'lomo-cpu', 'build'], folder);
  const examples = examplesOf(await readFile(join(root, 'packages', 'cpu', 'README.md'), 'utf8'), '@lomo/cpu/README.md');
  expect(examples.length).toBeGreaterThan(0);
  for (const [index, { code }] of examples.entries()) {
    const { outputText } = ts.transpileModule(code, { compilerOptions: { module: ts.ModuleKind.ESNext, target: ts.ScriptTarget.ES2022 } });
    await writeFile(join(folder, `${index}.mjs`), outputText);
    await run(process.execPath, [`${index}.mjs`], folder);
  }
}, 900_000);
