// Settings the golden models leave out (biases, windows by layer, RoPE scalings) against transformers' logits; weights by formula.
import { readFileSync } from 'node:fs';
import { numel } from '@lomo/tensor';
import { describe, expect, it } from 'vitest';
import { createModel, generate } from '../src/index.ts';
import type { JsonObject, LanguageModel } from '../src/index.ts';
import { batchOf, distance, logitsOf, referenceDevice } from './run.ts';

interface Variants {
  readonly ids: readonly number[];
  readonly cases: readonly { readonly name: string; readonly config: JsonObject; readonly logits: readonly (readonly number[])[] }[];
}

const { ids, cases } = JSON.parse(readFileSync(new URL('fixtures/variants.json', import.meta.url), 'utf8')) as Variants;

/** The weights of fixtures/variants.py. */
function fillByFormula(model: LanguageModel): void {
  const sorted = [...model.parameters].sort((a, b) => (a.path < b.path ? -1 : 1));
  sorted.forEach((p, n) => {
    const one = p.path.includes('norm') ? 1 : 0;
    p.device.writeNumbers(p, Float64Array.from({ length: numel(p.shape) }, (_, i) => 0.4 * Math.sin(1.7 * i + n) + one));
  });
}

describe('variants', () => {
  it.each(cases)('$name', async ({ config, logits }) => {
    const device = referenceDevice();
    using model = createModel(config, device, { maxLength: ids.length });
    fillByFormula(model);
    const found = await logitsOf(model, batchOf(device, [ids]));
    expect(distance(found, logits.flat())).toBeLessThan(2e-6);

    const picked: number[] = [];
    for await (const id of generate(model, ids.slice(0, 9), { maxNewTokens: 1, stop: [] })) picked.push(id);
    const last = logits[8]!;
    if (config['rope_scaling'] === undefined) expect(picked[0]).toBe(last.indexOf(Math.max(...last)));
  });

  it('see packed rows as if each were alone', async () => {
    for (const { config, logits } of cases) {
      const device = referenceDevice();
      using model = createModel(config, device, { maxLength: ids.length });
      fillByFormula(model);
      const found = await logitsOf(model, batchOf(device, [[1, 2, 3], ids, [4]]));
      expect(distance(found.subarray(3 * 13, 3 * 13 + logits.flat().length), logits.flat())).toBeLessThan(2e-6);
    }
  });

  it('rotate only part of a head when told', async () => {
    const device = referenceDevice();
    const config = cases[1]!.config;
    const run = async (changes: JsonObject) => {
      using model = createModel({ ...config, ...changes }, device);
      fillByFormula(model);
      return logitsOf(model, batchOf(device, [ids]));
    };
    expect(distance(await run({ partial_rotary_factor: 0.5 }), await run({}))).toBeGreaterThan(1e-3);
    expect(distance(await run({ partial_rotary_factor: 1 }), await run({}))).toBe(0);
  });
});
