// The rules on bf16 weights against PyTorch, on both backends: fixtures that this repository made itself, so that nothing is skipped.
import { cp, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { edit, fixtures, misses, run, temporary } from './command.ts';

test.each(['cpu', 'reference'] as const)('%s: all rules in bf16, to nearest bit for bit but for a few ties, and their distance from f32', async (backend) => {
  const ran = await run([fixtures, '--backend', backend]);
  expect(misses(ran)).toEqual([]);
  expect(ran.status).toBe(0);
  expect(ran.lines.at(-1)).toMatch(/: \d+ held, 0 missed, 0 skipped in /);
  for (const rule of ['lomo', 'lomo_all', 'sgd', 'adalomo', 'adalomo_all', 'adamw', 'adamw_all']) {
    for (const what of ['weights after 1', 'weights after 20', 'to nearest, against f32', 'stochastic, against f32']) {
      expect(ran.lines.some((line) => line.startsWith('ok') && line.includes(`rules_bf16/${rule}/${what}`)), `${rule} ${what}`).toBe(true);
    }
  }
  process.stdout.write(`${ran.lines.filter((line) => line.includes('against f32') || (line.includes('after 20') && !line.includes('distance'))).join('\n')}\n`);
});

test('a weight two units off is missed by name', async () => {
  const folder = join(await temporary(), 'fixtures');
  await cp(fixtures, folder, { recursive: true });
  const path = join(folder, 'rules_bf16', 'rules.safetensors');
  const bytes = await readFile(path);
  const length = Number(bytes.readBigUInt64LE(0));
  const header = JSON.parse(bytes.toString('utf8', 8, 8 + length)) as Record<string, { data_offsets: [number, number] }>;
  const at = 8 + length + header['sgd/20/vector']!.data_offsets[0];
  bytes.writeUInt16LE(bytes.readUInt16LE(at) + 2, at);
  await writeFile(path, bytes);
  await edit(join(folder, 'rules_bf16', 'rules.json'), (json: { runs: Record<string, unknown> }) => {
    json.runs = { sgd: json.runs['sgd'] };
  });
  const ran = await run([folder]);
  expect(ran.status).toBe(1);
  expect(misses(ran)).toHaveLength(1);
  expect(misses(ran)[0]).toMatch(/rules_bf16\/sgd\/weights after 20, distance +2 of 1 +units +vector, element 0/);
});
