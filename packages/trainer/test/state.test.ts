// trainer_state.json covers itself: no byte of it can change unseen.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { fit, listCheckpoints, parseState } from '../src/index.ts';
import { open } from './tiny.ts';

test('every byte of trainer_state.json is covered by its own checksum', async () => {
  const session = await open({ max_steps: 1 });
  for await (const _ of fit(session));
  const path = join((await listCheckpoints(session.root))[0]!.path, 'trainer_state.json');
  const text = readFileSync(path, 'utf8');
  expect(parseState(text, path).sizes).toMatchObject({ 'config.json': readFileSync(join(path, '../config.json')).byteLength });
  for (let at = 0; at < text.length; at++) {
    const changed = text.slice(0, at) + (text[at] === '7' ? '8' : '7') + text.slice(at + 1);
    expect(() => parseState(changed, path), `byte ${at}`).toThrow(/trainer_state\.json: .*resume from another checkpoint/);
  }
  expect(() => parseState(text.slice(0, -3), path)).toThrow(/SHA-256 is missing/);
  expect(() => parseState('{ "format": 1, "step": 3 }', path)).toThrow(/format: made by another version of lomo/);
  await session.close();
});
