// Watches a fuzzing process from a thread of its own: a case that takes too much of the processor or of memory is named, and the process ended.
// Time is the processor's, not the clock's: a process that the system has stopped is not hanging.
import { writeSync } from 'node:fs';
import { workerData } from 'node:worker_threads';

const { state, words, limits } = workerData;
const view = new Float64Array(state);
let known = { index: -1, since: 0 };
const used = () => {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1e6;
};

setInterval(() => {
  const index = view[0];
  const name = words[view[1]];
  if (index !== known.index) known = { index, since: used() };
  const seconds = used() - known.since;
  const bytes = process.memoryUsage.rss();
  const why = view[1] >= 0 && seconds > limits.seconds ? `takes over ${limits.seconds} s of the processor` : bytes > limits.bytes ? `has the process at ${(bytes / 2 ** 20).toFixed(0)} MiB, over ${(limits.bytes / 2 ** 20).toFixed(0)}` : null;
  if (why === null) return;
  writeSync(2, `\nfuzz: ${name} case ${index} of seed ${view[2]} ${why}\n`);
  process.kill(process.pid, 'SIGABRT');
}, 100);
