// lomo: the reference trainer app. Programs that want its verbs in code use @lomo/trainer; this exports what the command line is made of.
export { openBackend } from './backends.ts';
export type { BackendName, BackendOptions, OpenedBackend, OpenedGpu } from './backends.ts';
export { loadPlugins } from './plugins.ts';
export type { Plugin } from './plugins.ts';
export { readRun } from './yaml.ts';
export { defineRun } from '@lomo/trainer';
