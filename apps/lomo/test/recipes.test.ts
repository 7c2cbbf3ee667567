// Every recipe in the folder is a run that can be read today, without a renamed key and without a warning; the batch arithmetic comes out.
import { readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { clipOf, learningRateOf, microBatchesOf } from '@lomo/trainer';
import { expect, test } from 'vitest';
import { readRun } from '../src/yaml.ts';

const folder = fileURLToPath(new URL('../recipes/', import.meta.url));
const recipes = readdirSync(folder);

test('there are recipes, and nothing else', () => {
  expect(recipes.length).toBeGreaterThan(0);
  expect(recipes.filter((name) => !name.endsWith('.yaml'))).toEqual([]);
});

test.each(recipes)('%s', async (name) => {
  const { config, renamed, warnings } = await readRun(`${folder}${name}`);
  expect({ renamed, warnings }).toEqual({ renamed: [], warnings: [] });
  expect(microBatchesOf(config)).toBeGreaterThan(0);
  expect(learningRateOf(config)).toBeGreaterThan(0);
  expect(() => clipOf(config)).not.toThrow();
  // The commands in the heading name the file itself.
  for (const [, named] of readFileSync(`${folder}${name}`, 'utf8').matchAll(/lomo \w+(?: check)? (\S+\.yaml)/g)) expect(named).toBe(name);
});

test('a recipe with a misspelt key would not pass', async () => {
  await expect(readRun(`${folder}${recipes[0]!}`, { lerning_rate: 1 })).rejects.toThrow(/unknown key 'lerning_rate'/);
});
