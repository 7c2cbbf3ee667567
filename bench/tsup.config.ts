import { defineConfig } from 'tsup';

// What @lomo/data, bundled for the golden folder, looks for beside the bundle: its tokenizers run in processes of their own.
const tokenizer = { engine: '../packages/data/src/tokenizer/engine.js', worker: '../packages/data/src/tokenizer/worker.js' };

// Whole files and nothing removed first: a bench may run for minutes while somebody builds.
export default defineConfig({
  entry: { main: 'src/main.ts', ours: 'src/ours.ts', plan_process: 'src/plan_process.ts', curve: 'src/curve.ts', gpu: 'src/gpu/cli.ts', gpu_process: 'src/gpu/gpu_process.ts', ...tokenizer },
  format: ['esm'],
  target: 'node20',
  sourcemap: true,
  splitting: false,
});
