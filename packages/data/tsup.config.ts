import { defineConfig } from 'tsup';

export default defineConfig({
  // worker.js and engine.js stay files of their own next to index.js: they are opened by URL.
  entry: { index: 'src/index.ts', worker: 'src/tokenizer/worker.js', engine: 'src/tokenizer/engine.js' },
  format: ['esm'],
  target: 'node20',
  dts: { entry: { index: 'src/index.ts' }, compilerOptions: { ignoreDeprecations: '6.0' } },
  sourcemap: true,
  clean: true,
});
