// LLaMA-65B, a step of 16 x 1024 tokens, planned from its config.json: under 20 s of processor time and 1 GB of process, fitting or not.
import { expect, test } from 'vitest';
import { llama65bFolder, measured } from '../tiny/measured.ts';

const gibibyte = 2 ** 30;
const settings = ['--max-seq-length', '1024', '--dtype', 'bf16', '--optim', 'lomo'];

test.each(['24 GiB', '141 GiB', '200 GiB'])('against %s', async (device) => {
  const { out, seconds, processorSeconds, peakBytes } = await measured(['plan', llama65bFolder(), '--device', device, '--json', ...settings]);
  const { optimizers, nearest } = JSON.parse(out) as { optimizers: { name: string; extent: number; fits: boolean; parameters: number; atPeak: { weights: number } }[]; nearest: { extent: number }[] };
  const [own] = optimizers;
  process.stderr.write(`  65B against ${device}: ${(own!.extent / gibibyte).toFixed(1)} GiB, ${own!.fits ? 'fits' : `does not fit, ${nearest.length} that do`}; ${processorSeconds.toFixed(1)} s of processor, ${seconds.toFixed(1)} s, process ${(peakBytes / 2 ** 20).toFixed(0)} MiB\n`);
  expect(own!.parameters).toBe(65_285_660_672);
  for (const { extent } of nearest) expect(extent).toBeLessThanOrEqual(Number.parseFloat(device) * gibibyte);
  expect(own!.fits || nearest.length > 0).toBe(true);
  expect(optimizers.map(({ name }) => name)).toEqual(['lomo', 'adalomo', 'adamw', 'sgd']);
  expect(processorSeconds).toBeLessThan(20);
  expect(peakBytes).toBeLessThan(1e9);
});
