// bench picture: draws docs/memory.svg from the program itself: live bytes by category over one step, LOMO beside AdamW on one scale.
import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { cpu } from '@lomo/cpu';
import { createModel } from '@lomo/models';
import { adamw, lomo, Optimizer } from '@lomo/optim';
import type { Rule } from '@lomo/optim';
import { Program } from '@lomo/parallel';
import type { Category } from '@lomo/tensor';
import { categories, Device, DryBackend } from '@lomo/tensor';
import { drawTimeline } from './timeline.ts';
import type { Timeline } from './timeline.ts';

const here = dirname(fileURLToPath(import.meta.url));

/** The model of the picture: 110 M parameters, LLaMA-like. */
const config = {
  model_type: 'llama', architectures: ['LlamaForCausalLM'], hidden_size: 768, intermediate_size: 2048, num_hidden_layers: 12, num_attention_heads: 12,
  num_key_value_heads: 12, vocab_size: 32000, max_position_embeddings: 2048, rms_norm_eps: 1e-5, rope_theta: 10000, hidden_act: 'silu', tie_word_embeddings: false,
};
const tokens = 1024;

/**
 * Live bytes of one step under `rule`. `unfused` also keeps every gradient until the end of the step, as frameworks do that update after
 * backward: the same program, its settle function putting gradients aside.
 */
export async function timelineOf(rule: Rule, options: { readonly unfused: boolean; readonly model?: Readonly<Record<string, unknown>> }): Promise<Timeline> {
  const device = new Device(new DryBackend(cpu({ threads: 1 })), { bytes: Infinity });
  const model = createModel({ ...config, ...options.model } as Parameters<typeof createModel>[0], device);
  const optimizer = new Optimizer(device, model.parameters, { rule });
  const program = new Program(device, model, { microBatches: 1, tokens, maxSegments: 1, maxLength: tokens, headForm: options.unfused ? 'chunks' : 'tiles' });
  const samples: Record<Category, number>[] = [];
  const sample = (): void => void samples.push(Object.fromEntries(categories.map((c) => [c, device.arena.usage[c].live])) as Record<Category, number>);
  device.arena.observer = { allocated: sample, freed: sample };
  const kept: Disposable[] = [];
  const update = optimizer.passes[0]!;
  const aside = { name: 'aside', settle: (_: unknown, g: { value(): Disposable }) => void kept.push(g.value()), finish: () => {} };
  const host = { tokens: new Int32Array(tokens), targets: new Int32Array(tokens), positions: new Int32Array(tokens), starts: Int32Array.from([0, tokens]) };
  await program.run({ step: 1, seed: 0, lr: 0, batches: [host], passes: [options.unfused ? aside : update] });
  for (const gradient of kept) gradient[Symbol.dispose]();
  return { samples, peak: device.arena.peak };
}

/** Writes docs/memory.svg and says the peaks. */
export async function picture(): Promise<void> {
  const sides = [
    { title: 'AdamW, update after backward', timeline: await timelineOf(adamw(), { unfused: true }) },
    { title: 'LOMO, update on settle', timeline: await timelineOf(lomo, { unfused: false }) },
  ];
  const path = join(here, '..', '..', 'docs', 'memory.svg');
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, drawTimeline(sides, { heading: 'Memory of one training step: a LLaMA of 134 M parameters, f32, 1024 tokens, activations recomputed' }));
  for (const { title, timeline } of sides) process.stdout.write(`${title}: peak ${(timeline.peak / 2 ** 20).toFixed(0)} MiB\n`);
  process.stdout.write(`${(sides[1]!.timeline.peak / sides[0]!.timeline.peak).toFixed(3)} of AdamW's memory; drawn to docs/memory.svg\n`);
}
