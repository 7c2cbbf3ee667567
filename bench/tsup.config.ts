import { defineConfig } from 'tsup';

// Whole files and nothing removed first: a bench may run for minutes while somebody builds.
export default defineConfig({ entry: ['src/main.ts', 'src/ours.ts', 'src/plan_process.ts', 'src/curve.ts'], format: ['esm'], target: 'node20', sourcemap: true, splitting: false });
