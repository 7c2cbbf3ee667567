// Plugins as a person installs them: a package in the folder in which lomo is started, a path, and what happens when one is not there.
import { mkdirSync, mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { loadPlugins, openBackend } from '../src/index.ts';

const code = "export const rules = [{ name: 'still', ops: [{ name: 'nudge', attributes: [] }], state: () => ({}), update: () => {} }];\nexport const families = [{ modelType: 'mine' }];\nexport const ops = [{ name: 'swirl', attributes: [] }];\n";
const before = process.cwd();
let folder = '';
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'lomo-plugins-'));
  process.chdir(folder);
});
afterEach(() => process.chdir(before));

test('a package is found from the working folder, a path relative to it; each brings what it exports', async () => {
  const at = join(folder, 'node_modules', 'lomo-still');
  mkdirSync(at, { recursive: true });
  writeFileSync(join(at, 'package.json'), JSON.stringify({ name: 'lomo-still', type: 'module', exports: { '.': { default: './main.js' } } }));
  writeFileSync(join(at, 'main.js'), code);
  writeFileSync(join(folder, 'mine.mjs'), "export const rules = [{ name: 'other', ops: [], state: () => ({}), update: () => {} }];\n");
  const { rules, families, ops } = await loadPlugins(['lomo-still', './mine.mjs']);
  expect(rules.map((rule) => rule.name)).toEqual(['still', 'other']);
  expect(families.map((family) => family.modelType)).toEqual(['mine']);
  expect(ops.map((op) => op.name)).toEqual(['swirl', 'nudge']);
  const { backend } = await openBackend('reference', { ops });
  const none = { ins: [], inouts: [], outs: [] };
  expect([backend.kernel('swirl', none)?.name, backend.kernel('nudge', none)?.name, backend.kernel('absent', none)]).toEqual(['swirl', 'nudge', null]);
});

test.each(['lomo-absent', './absent.mjs'])('%s: the error names the plugin', async (name) => {
  await expect(loadPlugins([name])).rejects.toMatchObject({ code: 'PluginError', message: expect.stringContaining(`plugin '${name}'`) as string });
});
