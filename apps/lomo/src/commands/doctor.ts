// lomo doctor: what this machine has, what it measures, what is missing and what brings it.
import { cpus, totalmem } from 'node:os';
import { Device, isLomoError, matmul } from '@lomo/tensor';
import { freeMemory, openBackend } from '../backends.ts';
import { bytes, screen as openScreen, table } from '../screen.ts';

const size = 1024;
const repeats = 12;

/** Prints facts and a measured product rate; exits 1 where training would not run. */
export async function doctor(flags: { readonly threads?: number }): Promise<void> {
  const screen = openScreen();
  const rows = [
    ['node', process.version],
    ['processor', `${cpus()[0]?.model.trim() ?? 'unknown'}, ${cpus().length} logical cores`],
    ['memory', `${bytes(freeMemory())} free of ${bytes(totalmem())}${process.constrainedMemory() > 0 && process.constrainedMemory() < totalmem() ? ` (limited to ${bytes(process.constrainedMemory())})` : ''}`],
  ];
  try {
    const { backend, description } = await openBackend('cpu', { threads: flags.threads });
    rows.push(['backend', description]);
    rows.push(['f32 products', `${(await productRate(backend)).toFixed(0)} GFLOP/s (${size} x ${size} x ${size}, best of ${repeats})`]);
    screen.line(table(rows));
    screen.line('\n  all there: `lomo quickstart` runs');
  } catch (error) {
    if (!isLomoError(error)) throw error;
    screen.line(table(rows));
    screen.line(`\n  missing: ${error.message}`);
    process.exitCode = 1;
  }
}

async function productRate(backend: Awaited<ReturnType<typeof openBackend>>['backend']): Promise<number> {
  const device = new Device(backend, { bytes: 4 * 4 * size * size });
  const make = () => device.allocate({ shape: [size, size], dtype: 'f32' }, 'workspace');
  const [a, b, c] = [make(), make(), make()];
  let best = Infinity;
  for (let i = 0; i < repeats; i++) {
    const start = performance.now();
    matmul(a, b, { tb: true, into: c });
    await device.read(c.rows(0, 1));
    best = Math.min(best, performance.now() - start);
  }
  device.free();
  return (2 * size ** 3) / best / 1e6;
}
