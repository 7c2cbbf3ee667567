// Forward, logits, loss and gradients of a model over packed rows, with nothing but a tape and a ledger.
import { Device, Ledger, ReferenceBackend, StepTensor, Tape, numel, tensorOps } from '@lomo/tensor';
import type { Batch, HeadForm, Tensor } from '@lomo/tensor';
import { HeadStage, SafetensorsFile } from '../src/index.ts';
import type { LanguageModel } from '../src/index.ts';

export function referenceDevice(bytes = 2 ** 23): Device {
  return new Device(new ReferenceBackend({ ops: tensorOps }), { bytes });
}

/** Rows packed one after another; each token's label is the next one of its row. */
export function batchOf(device: Device, rows: readonly (readonly number[])[], options: { headForm?: HeadForm; labels?: readonly (readonly number[])[] } = {}): Batch & { readonly trained: number } {
  const tensor = (values: readonly number[]): Tensor => {
    const t = device.allocate({ shape: [values.length], dtype: 'i32' }, 'io');
    device.writeNumbers(t, values);
    return t;
  };
  const targets = (options.labels ?? rows).flatMap((row) => [...row.slice(1), -100]);
  const starts = [0];
  for (const row of rows) starts.push(starts.at(-1)! + row.length);
  const trained = targets.filter((t) => t >= 0).length;
  const step = new StepTensor(device);
  step.begin({ step: 1, seed: 0, lr: 0, trained });
  step.clearLoss();
  return {
    tokens: tensor(rows.flat()),
    targets: tensor(targets),
    positions: tensor(rows.flatMap((row) => row.map((_, i) => i))),
    starts: tensor(starts),
    maxLength: Math.max(...rows.map((row) => row.length)),
    tokenLoss: device.allocate({ shape: [targets.length], dtype: 'f32' }, 'io'),
    start: 0,
    step,
    headForm: options.headForm ?? 'chunks',
    trained,
  };
}

/** Logits [tokens, vocabulary] of every position. */
export async function logitsOf(model: LanguageModel, batch: Batch): Promise<Float64Array> {
  const { device } = model;
  const head = model.stages.at(-1);
  if (!(head instanceof HeadStage)) throw new Error('the last stage is not a head');
  let x: Tensor | null = null;
  for (const stage of model.stages.slice(0, -1)) {
    const before: Tensor | null = x;
    x = device.own(() => keepOf(stage.forward(batch, before)!));
    before?.dispose();
  }
  using logits = device.own(() => keepOf(head.logits(x!)));
  x?.dispose();
  return device.readNumbers(logits);
}

function keepOf(result: Tensor): { readonly result: Tensor; readonly keep: readonly Tensor[] } {
  return { result, keep: [result] };
}

/** Mean loss and d loss / d parameter by path. */
export async function gradientsOf(model: LanguageModel, batch: Batch & { readonly trained: number }): Promise<{ readonly loss: number; readonly gradients: ReadonlyMap<string, Float64Array> }> {
  const { device } = model;
  const values = new Map<string, Tensor>();
  const ledger = new Ledger(device, { microBatches: 1, accumulate: 'buffer', settle: (p, g) => void values.set(p.path, g.value()) });
  const tapes: { readonly tape: Tape; readonly result: Tensor | null }[] = [];
  let arriving: Tensor | null = null;
  for (const stage of model.stages) {
    const before: Tensor | null = arriving;
    const tape: Tape = new Tape(device, before, (p) => ledger.hold(p));
    arriving = device.under({ category: 'saved', recorder: tape }, () =>
      device.own(() => {
        const result = stage.forward(batch, before);
        return { result, keep: result === null ? [] : [result] };
      }),
    );
    tapes.push({ tape, result: arriving });
  }
  let dy: Tensor | null = null;
  for (let s = tapes.length - 1; s >= 0; s--) {
    const { tape, result } = tapes[s]!;
    const name = model.stages[s]!.name;
    dy = tape.walk(result, dy, { ledger, microBatch: 0, stage: name, stores: ledger.factorStores(name) });
    ledger.closeStores(name);
    result?.dispose();
  }
  dy?.dispose();
  ledger.finish();
  const gradients = new Map<string, Float64Array>();
  for (const [path, value] of values) {
    gradients.set(path, await device.readNumbers(value));
    value.dispose();
  }
  const { lossSum } = await batch.step.outcome();
  return { loss: lossSum / batch.trained, gradients };
}

/** A tensor of an f32 safetensors file as numbers. */
export async function goldenTensor(file: SafetensorsFile, name: string): Promise<Float32Array> {
  const values = new Float32Array(numel(file.entry(name).shape));
  await file.read(name, new Uint8Array(values.buffer));
  return values;
}

/** Largest |a - b| over the largest |b|. */
export function distance(a: ArrayLike<number>, b: ArrayLike<number>): number {
  let [difference, size] = [a.length === b.length ? 0 : Infinity, 0];
  for (let i = 0; i < b.length; i++) {
    difference = Math.max(difference, Math.abs(a[i]! - b[i]!));
    size = Math.max(size, Math.abs(b[i]!));
  }
  return difference / size;
}
