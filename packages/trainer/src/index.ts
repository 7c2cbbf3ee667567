// @lomo/trainer: a run opened from its configuration, the loop, checkpoints, held-out quality.
export * from './assemble.ts';
export * from './checkpoint.ts';
export * from './choice.ts';
export * from './config.ts';
export * from './data.ts';
export * from './fit.ts';
export * from './inference.ts';
export * from './loop.ts';
export * from './loss_scale.ts';
export * from './open.ts';
export * from './quantity.ts';
export * from './session.ts';
export * from './spill_file.ts';
export * from './state.ts';
export * from './texts.ts';
export * from './traced.ts';
