// A session of a model one of whose blocks falls ill at chosen steps: its activations, or the gradients that pass it, stop being numbers.
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { builtInFamilies, decoderStages, llama } from '@lomo/models';
import type { CausalStage, ModelFamily, StageBlueprint } from '@lomo/models';
import type { Tensor } from '@lomo/tensor';
import type { Session } from '../src/index.ts';
import { open, settings } from './tiny.ts';

export interface Illness {
  /** 'loss': activations turn into `value`; 'gradient': what comes back does. Default value: NaN for the loss, Infinity for gradients. */
  readonly kind: 'gradient' | 'loss';
  readonly value?: number;
  /** Which falls ill; default 'block 1'. */
  readonly stage?: 'block 0' | 'block 1';
  sick(step: number): boolean;
}

function poisoned(illness: Illness, clock: { step: number }): ModelFamily {
  return {
    ...llama,
    modelType: 'poisoned',
    parseConfig: (json) => llama.parseConfig({ ...json, model_type: 'llama' }),
    stages: (config) =>
      decoderStages(config as ReturnType<typeof llama.parseConfig>).map((blueprint): StageBlueprint => {
        if (blueprint.name !== (illness.stage ?? 'block 1')) return blueprint;
        return { ...blueprint, create: (build) => infect(blueprint.create(build), illness, () => illness.sick(clock.step)) };
      }),
  } as ModelFamily;
}

function infect(stage: CausalStage, { kind, value = kind === 'loss' ? NaN : Infinity }: Illness, sick: () => boolean): CausalStage {
  const forward = stage.forward.bind(stage);
  stage.forward = (batch, arriving) => {
    const out = forward(batch, arriving)!;
    if (kind === 'loss') {
      if (sick()) out.device.writeNumbers(out, Array.from({ length: out.shape[0]! * out.shape[1]! }, () => value));
      return out;
    }
    const { device } = out;
    const copy = device.allocate({ shape: out.shape, dtype: out.dtype }, device.category);
    device.copy(copy, out);
    const ruin = (dy: Tensor): Tensor => {
      const bad = device.allocate({ shape: dy.shape, dtype: dy.dtype }, 'workspace');
      if (sick()) device.writeNumbers(bad, Array.from({ length: dy.shape[0]! * dy.shape[1]! }, () => value));
      else device.copy(bad, dy);
      return bad;
    };
    device.recorder?.record({ op: { name: 'ruin', backward: (_, dys) => [ruin(dys[0]!)] }, ins: [out], outs: [copy], attributes: null });
    out.dispose();
    return copy;
  };
  return stage;
}

/** The session; the caller closes it. Two calls with one `model_name_or_path` train the same model. */
export async function openPoisoned(illness: Illness, changes: Parameters<typeof open>[0] = {}): Promise<Session> {
  const clock = { step: 0 };
  const model = changes.model_name_or_path ?? settings().model_name_or_path;
  const config = JSON.parse(readFileSync(join(model, 'config.json'), 'utf8')) as Record<string, unknown>;
  writeFileSync(join(model, 'config.json'), JSON.stringify({ ...config, model_type: 'poisoned' }));
  const session = await open({ model_name_or_path: model, gradient_checkpointing: true, ...changes }, { families: [poisoned(illness, clock), ...builtInFamilies] });
  const batches = session.batches.bind(session);
  session.batches = (step) => {
    clock.step = step;
    return batches(step);
  };
  return session;
}
