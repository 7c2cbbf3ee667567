// Writes the quickstart's texts from a seed: stories to pretrain on (pretrain.jsonl, made on demand) and the instruction
// set (train.jsonl and test.jsonl, committed). Run: node corpus.mjs [--out DIR] [--documents N] [--only-instructions]
import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { aside, drawFacts, kinds, questions, randomStream, repeat, retell, state } from './world.mjs';

/** The kinds of fact as often as they are drawn. */
const often = ['put', 'put', 'put', 'got', 'got', 'count', 'went'];

/** Story number `index`: two or three facts, then each told again once or more in another order, here and there an aside. Plain prose: no instructions, no "Question:", no "Answer:". */
export function story(index) {
  const random = randomStream(0x10000000 + index);
  const n = 2 + random.below(2);
  // Most stories are about one kind of fact: only there is the wrong fact of the same kind a temptation. 'put' says most, and is told most.
  const one = random.below(4) > 0 ? random.pick(often) : undefined;
  const facts = drawFacts(random, Array.from({ length: n }, () => one ?? random.pick(kinds)));
  const told = facts.map(state);
  const again = random.shuffle([...facts, ...facts, random.pick(facts)]).map((f) => {
    const other = random.pick(facts.filter((g) => g !== f)).who;
    return random.below(5) === 0 ? repeat(random, f, other) : retell(random, f, other);
  });
  if (random.below(4) === 0) again.splice(random.below(again.length + 1), 0, aside(random, random.pick(facts).who));
  return [...told, ...again].join(' ');
}

/** Whether a (subject, answer) pair, such as (ball, kitchen), is kept for the test set: one pair in eight, by a hash of the words. */
export function heldOut(subject, answer) {
  let h = 0x811c9dc5;
  for (const ch of `${subject} ${answer}`) h = Math.imul(h ^ ch.codePointAt(0), 0x01000193) >>> 0;
  h = Math.imul(h ^ (h >>> 15), 0x2c1b3c6d) >>> 0;
  return (h >>> 16) % 8 === 0;
}

/** The prompt of the instruction set: a passage, a question, and the word after which the answer is due. */
export function prompt(passage, question) {
  return `${passage}\nQuestion: ${question}\nAnswer:`;
}

/** How questions begin; each opening gets the same share of the examples. */
const openings = ['Where', 'What colour', 'Who', 'How many'];

/** How many facts of a passage offer an answer of the sort that `f` and `answer` are: people, places, colours or numbers. */
function rivals(facts, f, answer) {
  const sort = answer === f.who ? (g) => g.who !== f.who || g === f
    : answer === f.place ? (g) => g.kind === 'put' || g.kind === 'went'
    : answer === f.colour ? (g) => g.kind === 'put' || g.kind === 'got'
    : (g) => g.kind === 'count';
  return facts.filter(sort).length;
}

/**
 * `count` examples { prompt, completion }. A passage has two or three facts of different kinds. A place, a colour or a number is asked for only
 * where the passage has one, a person only where one person does everything (in half of the passages). In the training set no fact of a passage has a held-out pair; in the test
 * set the pair asked about is always a held-out one.
 */
export function instructions(seed, count, test) {
  const random = randomStream(seed);
  const seen = new Set();
  const out = [];
  while (out.length < count) {
    const drawn = drawFacts(random, random.shuffle(kinds).slice(0, 2 + random.below(2)));
    const facts = random.below(2) === 0 ? drawn : drawn.map((f) => ({ ...f, who: drawn[0].who }));
    const passage = facts.map(state).join(' ');
    const asked = random.pick(facts);
    const [question, answer, subject] = random.pick(questions(asked));
    if (!question.startsWith(openings[out.length % openings.length]) || rivals(facts, asked, answer) > 1) continue;
    const kept = facts.flatMap(questions).some(([, a, s]) => heldOut(s, a));
    if (test ? !heldOut(subject, answer) : kept) continue;
    const text = prompt(passage, question);
    if (seen.has(text)) continue;
    seen.add(text);
    out.push({ prompt: text, completion: ` ${answer}` });
  }
  return out;
}

/** Training set of the quickstart: 2,000 examples. */
export const trainSet = () => instructions(1, 2000, false);
/** Test set of the quickstart: 200 examples that ask about pairs which the training set never shows. */
export const testSet = () => instructions(2, 200, true);

/** JSON lines with a newline at the end. */
const lines = (rows) => rows.map((row) => `${JSON.stringify(row)}\n`).join('');

function main() {
  const here = dirname(fileURLToPath(import.meta.url));
  const { values } = parseArgs({ options: { out: { type: 'string', default: here }, documents: { type: 'string', default: '60000' }, 'only-instructions': { type: 'boolean', default: false } } });
  mkdirSync(values.out, { recursive: true });
  writeFileSync(join(values.out, 'train.jsonl'), lines(trainSet()));
  writeFileSync(join(values.out, 'test.jsonl'), lines(testSet()));
  if (values['only-instructions']) return;
  const documents = Number(values.documents);
  if (!Number.isInteger(documents) || documents < 1) throw new Error(`corpus: --documents must be a whole number above 0, found '${values.documents}'`);
  writeFileSync(join(values.out, 'pretrain.jsonl'), lines(Array.from({ length: documents }, (_, i) => ({ text: story(i) }))));
}

if (process.argv[1] === fileURLToPath(import.meta.url)) main();
