import { test } from 'vitest';
import { readFileSync } from 'node:fs';
import { Device, ReferenceBackend, tensorOps } from '@lomo/tensor';
import { optimOps, Optimizer, lomo, adalomo, adamw } from '@lomo/optim';
import { Program, makePlan } from '@lomo/parallel';
import { loadModel, openCheckpoint, convert } from '@lomo/models';
const G = '/work/shared/golden/stories260k';
test('probe', async () => {
  const batches = JSON.parse(readFileSync(`${G}/batches.json`, 'utf8'));
  const tr = JSON.parse(readFileSync(`${G}/trajectories.json`, 'utf8'));
  const host = (ids: number[][], labels: number[][]) => ({
    tokens: Int32Array.from(ids.flat()), targets: Int32Array.from(labels.flatMap((r) => [...r.slice(1), -100])),
    positions: Int32Array.from(ids.flatMap((r) => r.map((_, i) => i))), starts: Int32Array.from([0, 64, 128]) });
  const which = process.env['B'] ?? 'reference';
  const backend = which === 'cpu' ? (await import('@lomo/cpu')).cpu({ threads: Number(process.env['T'] ?? 2) }) : new ReferenceBackend({ ops: [...tensorOps, ...optimOps] });
  for (const [rule, lr, run] of [[lomo, 0.01, 'lomo'], [adalomo(), 1e-3, 'adalomo'], [adamw(), 1e-3, 'adamw']] as const) {
    const device = new Device(backend, { bytes: 64 << 20 });
    const model = await loadModel('/work/shared/models/stories260k', device);
    const optimizer = new Optimizer(device, model.parameters, { rule, weightDecay: run === 'adamw' ? 0.01 : 0, decays: () => true });
    const program = new Program(device, model, { microBatches: 1, tokens: 128, maxSegments: 2, maxLength: 64 });
    const n = Number(process.env['N'] ?? 1);
    let worst = 0; const t = performance.now();
    for (let i = 0; i < n; i++) {
      const r = await program.run({ batches: [host(batches.train[i % 4], batches.train_labels[i % 4])], step: i + 1, seed: 1, lr, passes: optimizer.passes });
      worst = Math.max(worst, Math.abs(r.loss - tr.runs[run].loss[i]));
    }
    console.log(run, 'ms/step', (performance.now() - t) / n, 'worst loss', worst, 'extent', device.arena.extent, program.device.launchCount);
    if (n === 1 || n === 20) {
      const ck = await openCheckpoint(`${G}/weights`).catch(() => null); void ck;
      const { SafetensorsFile } = await import('@lomo/models');
      const f = await SafetensorsFile.open(`${G}/weights/${run}.step${n}.safetensors`, {}).catch(() => null);
      if (f) { let w = 0; for (const p of model.parameters) { const parts: Uint8Array[] = []; for await (const s of f.slices(p.path, 1 << 26)) parts.push(Uint8Array.from(s)); const g = new Float32Array(Uint8Array.from(Buffer.concat(parts)).buffer); const x = await device.readNumbers(p); let d = 0, m = 0; x.forEach((v, i) => { d = Math.max(d, Math.abs(v - g[i]!)); m = Math.max(m, Math.abs(g[i]!)); }); if (d / m > w) { w = d / m; } } console.log('max_rel', w); }
    }
    device.free();
  }
});
