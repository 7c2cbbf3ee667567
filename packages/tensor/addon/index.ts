// @lomo/tensor/addon: what the packages of native backends share, the TypeScript side of native/lomo.
export { AddonBackend, AddonMemory, HostMemory } from './backend.ts';
export { guarded, loadAddon, translate } from './native.ts';
export type { AddonPlace, Counters, Library, NativeVerbs } from './native.ts';
export { queueIndex } from './packet.ts';
export { AddonStopwatch } from './stopwatch.ts';
