import { defineConfig } from 'tsup';

// Whole files and nothing removed first: a bench may run for minutes while somebody builds.
export default defineConfig({
  entry: { main: 'src/main.ts', ours: 'src/ours.ts', plan_process: 'src/plan_process.ts', curve: 'src/curve.ts', gpu: 'src/gpu/cli.ts', gpu_process: 'src/gpu/gpu_process.ts' },
  format: ['esm'],
  target: 'node20',
  sourcemap: true,
  splitting: false,
});
