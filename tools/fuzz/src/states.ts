// trainer_state.json: damaged ones, and forged ones whose own checksum is right.
import { createHash } from 'node:crypto';
import { parseState } from '@lomo/trainer';
import type { Target } from './target.ts';
import { outcomeOf, promise } from './target.ts';
import { anything, damage, Fields, oddNames, oddNumbers, print, Raw } from './texts.ts';
import type { Printable } from './texts.ts';

const zeros = '0'.repeat(64);

/** Everything a state of the present format says. */
const fields: readonly (readonly [string, Printable])[] = [
  ['format', 2], ['step', 7], ['skipped', [3]], ['steps', 20], ['seed', 42], ['dataSeed', 42], ['trainedTokens', 1000], ['bestEvalLoss', 1.5], ['bestStep', 5], ['evalLoss', null], ['lossScale', null],
  ['fingerprint', 'f'.repeat(64)], ['settings', null], ['data', null], ['machine', new Fields([['isa', 'avx512']])],
  ['files', new Fields([['config.json', 'a'.repeat(64)], ['model.safetensors', 'b'.repeat(64)]])], ['sizes', new Fields([['config.json', 400], ['model.safetensors', 20_000]])],
];

/** The text of these fields with the checksum of itself at its end, as the trainer writes it. */
function signed(list: readonly (readonly [string, Printable])[]): string {
  const text = `{\n${list.map(([key, value]) => `  ${JSON.stringify(key)}: ${print(value)},\n`).join('')}  "sha256": "${zeros}"\n}\n`;
  return text.replace(zeros, createHash('sha256').update(text).digest('hex'));
}

/** Reading a state from its text. */
export const states: Target = {
  name: 'state',
  make: (dice) => {
    const list = fields.map(([key, value]): [string, Printable] => [key, value]);
    const isForged = dice.oneIn(2);
    let isValid = true;
    if (isForged) {
      for (let n = 1 + dice.below(2); n > 0; n--) {
        const slot = dice.pick(list);
        isValid = false;
        switch (dice.below(5)) {
          case 0: slot[1] = new Raw(dice.pick(oddNumbers)); break;
          case 1: slot[1] = anything(dice, 3); break;
          case 2: list.push([dice.pick(oddNames), anything(dice, 3)]); break;
          case 3: list.splice(dice.below(list.length), 1); break;
          default: list.find(([key]) => key === 'files')?.splice(1, 1, new Fields([[dice.pick(['../x', '/etc/passwd', '..', '.', 'a/b', 'a\\b', 'x\u0000', '', '__proto__', 'ok.json']), 'c'.repeat(64)]]));
        }
      }
    }
    const good = new TextEncoder().encode(signed(list));
    let bytes: Uint8Array = good;
    if (!isForged && !dice.oneIn(4)) bytes = damage(Uint8Array.from(good), dice);
    const isDamaged = Buffer.compare(bytes, good) !== 0;
    return {
      bytes,
      run: () => {
        const outcome = outcomeOf(() => {
          let text: string;
          try {
            text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
          } catch {
            throw Object.assign(new Error('not UTF-8'), { code: 'CorruptState' });
          }
          const { step, files, sizes } = parseState(text, 'trainer_state.json');
          promise(Number.isInteger(step) && step >= 0, () => `step ${step}`);
          for (const name of [...Object.keys(files), ...Object.keys(sizes)]) promise(name !== '' && name !== '.' && name !== '..' && !/[/\\\0]/.test(name), () => `a file called ${JSON.stringify(name)}`);
        }, ['CorruptState']);
        promise(!isDamaged || outcome === 'refused', () => 'a damaged state was accepted');
        promise(!isValid || isDamaged || outcome === 'accepted', () => 'a valid state was refused');
        return outcome;
      },
    };
  },
};
