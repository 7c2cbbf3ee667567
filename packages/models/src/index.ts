// @lomo/models: Hugging Face folders, strict configurations, and the models they describe as stages.
export * from './checkpoint.ts';
export * from './config/fields.ts';
export * from './config/frequencies.ts';
export * from './config/model.ts';
export * from './config/rope.ts';
export * from './family.ts';
export * from './files.ts';
export * from './json.ts';
export * from './llama.ts';
export * from './match.ts';
export * from './mistral.ts';
export * from './qwen2.ts';
export * from './qwen3.ts';
export * from './safetensors/diskType.ts';
export * from './safetensors/header.ts';
export * from './safetensors/read.ts';
export * from './safetensors/write.ts';
