// What is published is finite: a checkpoint of weights with a NaN or an infinity in them is refused, in every type that they are kept in.
import { readdirSync } from 'node:fs';
import { numel } from '@lomo/tensor';
import { expect, test } from 'vitest';
import { fit } from '../src/index.ts';
import { open } from './tiny.ts';

test.each(['f32', 'bf16', 'f16'] as const)('%s: a weight that is no number is never published, and the checkpoints before stand', async (dtype) => {
  const session = await open({ dtype, max_steps: 2, save_steps: 1 });
  for await (const _ of fit(session));
  const { device, model } = session.assembly;
  const weight = model.parameters[1]!;
  for (const value of [NaN, Infinity, -Infinity]) {
    device.writeNumbers(weight.reshape([numel(weight.shape)]).rows(3, 4), [value]);
    session.done = 3;
    await expect(session.save()).rejects.toMatchObject({ code: 'NonFiniteWeight', details: { tensor: weight.path } });
    await expect((await session.saveCopy())!.saved).rejects.toMatchObject({ code: 'NonFiniteWeight' });
  }
  expect(readdirSync(session.root)).toEqual(['step-000001', 'step-000002']);
  await session.close();
});
