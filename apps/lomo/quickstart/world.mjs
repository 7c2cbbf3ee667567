// The small world that the quickstart's texts are about: its words, its facts, and two ways to speak about a fact,
// as a story (what the model is pretrained on) and as a question with an answer (what it is fine-tuned on).

/** 12 first names; the templates call people by name only. */
export const people = ['Anna', 'Ben', 'Clara', 'David', 'Emma', 'Felix', 'Grace', 'Henry', 'Iris', 'Jack', 'Kate', 'Leo'];
/** 12 single things that have a colour and lie somewhere. */
export const things = ['ball', 'lamp', 'book', 'cup', 'hat', 'kite', 'drum', 'spoon', 'box', 'key', 'doll', 'boat'];
/** 10 places. */
export const places = ['kitchen', 'garden', 'attic', 'cellar', 'garage', 'library', 'hall', 'barn', 'school', 'tower'];
/** 8 colours, none of which needs "an". */
export const colours = ['red', 'blue', 'green', 'yellow', 'black', 'white', 'brown', 'pink'];
/** The numbers that are counted in the texts. */
export const numbers = ['two', 'three', 'four', 'five', 'six', 'seven'];
/** 6 plurals that are counted. */
export const goods = ['apples', 'eggs', 'coins', 'shells', 'stones', 'cards'];

/** A stream of random numbers that depends on `seed` (an integer) alone: `below(n)`, `pick(list)`, `shuffle(list)`. The generator is mulberry32. */
export function randomStream(seed) {
  let state = seed >>> 0;
  const next = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let z = state;
    z = Math.imul(z ^ (z >>> 15), z | 1);
    z ^= z + Math.imul(z ^ (z >>> 7), z | 61);
    return ((z ^ (z >>> 14)) >>> 0) / 4294967296;
  };
  const below = (n) => Math.floor(next() * n);
  const pick = (list) => list[below(list.length)];
  const shuffle = (list) => {
    const out = [...list];
    for (let i = out.length - 1; i > 0; i--) {
      const j = below(i + 1);
      [out[i], out[j]] = [out[j], out[i]];
    }
    return out;
  };
  return { below, pick, shuffle };
}

/** The four kinds of fact. `put`: who put which thing of which colour where; `got`: who got it; `count`: who has how many; `went`: who is where. */
export const kinds = ['put', 'got', 'count', 'went'];

/** `n` facts about different people, things, places, colours and goods, so that every question about one of them has one answer. `verb` is which of three words tells it. `kindsOf[i]` is the kind of fact i. */
export function drawFacts(random, kindsOf) {
  const who = random.shuffle(people);
  const thing = random.shuffle(things);
  const place = random.shuffle(places);
  const colour = random.shuffle(colours);
  const number = random.shuffle(numbers);
  const good = random.shuffle(goods);
  return kindsOf.map((kind, i) => ({ kind, who: who[i], thing: thing[i], place: place[i], colour: colour[i], number: number[i], good: good[i], verb: random.below(3) }));
}

/** The sentence that states a fact, the same in stories and in prompts. */
export function state(f) {
  switch (f.kind) {
    case 'put': return `${f.who} ${['put', 'left', 'hid'][f.verb]} the ${f.colour} ${f.thing} in the ${f.place}.`;
    case 'got': return `${f.who} ${['found', 'bought', 'got'][f.verb]} a ${f.colour} ${f.thing}.`;
    case 'count': return `${f.who} had ${f.number} ${f.good}.`;
    case 'went': return `${f.who} ${['went', 'ran', 'walked'][f.verb]} to the ${f.place}.`;
    default: throw new Error(`world: unknown kind of fact '${f.kind}'; use one of ${kinds.join(', ')}`);
  }
}

/** A later sentence of a story from which a fact can be told again; `other` is a person of the story who did not do it. */
export function retell(random, f, other) {
  switch (f.kind) {
    case 'put': return random.pick([
      `${other} looked for the ${f.thing}. It was in the ${f.place}.`,
      `"Where is the ${f.thing}?" asked ${other}. "It is in the ${f.place}," said ${f.who}.`,
      `The colour of the ${f.thing} in the ${f.place} was ${f.colour}.`,
      `The ${f.thing} was ${f.colour}, and it was ${f.who} who had taken it to the ${f.place}.`,
      `In the ${f.place} ${other} saw the ${f.colour} ${f.thing}.`,
      `"Who took the ${f.thing}?" asked ${other}. "It was ${f.who}."`,
      `What ${f.who} had taken to the ${f.place} was the ${f.thing}.`,
    ]);
    case 'got': return random.pick([
      `The colour of the ${f.thing} was ${f.colour}.`,
      `The ${f.thing} of ${f.who} was ${f.colour}.`,
      `"What a nice ${f.thing}!" said ${other} to ${f.who}. It was ${f.colour}.`,
      `The ${f.colour} ${f.thing} was now with ${f.who}.`,
      `${other} asked for the ${f.thing}, and ${f.who} gave it away.`,
      `What ${f.who} liked best was the ${f.thing}.`,
    ]);
    case 'count': return random.pick([
      `${other} counted the ${f.good} of ${f.who}. There were ${f.number}.`,
      `"How many ${f.good} are there?" asked ${other}. "There are ${f.number}," said ${f.who}.`,
      `All ${f.number} ${f.good} were with ${f.who}.`,
      `What ${f.who} had counted were ${f.good}.`,
    ]);
    case 'went': return random.pick([
      `${other} looked for ${f.who} in the ${f.place}.`,
      `"Where is ${f.who}?" asked ${other}. "In the ${f.place}."`,
      `In the ${f.place} it was quiet, and ${f.who} sat down.`,
      `It was ${f.who} who was in the ${f.place}.`,
    ]);
    default: throw new Error(`world: unknown kind of fact '${f.kind}'; use one of ${kinds.join(', ')}`);
  }
}

/** The fact in the same words again. A model learns to copy from these first, and to look up from the other sentences after that. */
export function repeat(random, f, other) {
  return random.pick([`${other} said that ${state(f)}`, `Yes, ${state(f)}`, `"${state(f)}" said ${other}.`, `So ${state(f)}`]);
}

/** A sentence of a story that tells nothing about its facts. */
export function aside(random, who) {
  return random.pick([`"That is a good question," said ${who}.`, `${who} had no answer.`, `${who} was happy.`, `Then it was time for tea.`]);
}

/** The questions about a fact: `[question, answer, subject]`, where subject and answer are what a held-out pair is made of. */
export function questions(f) {
  switch (f.kind) {
    case 'put': return [
      [`Where is the ${f.thing}?`, f.place, f.thing],
      [`What colour is the ${f.thing}?`, f.colour, f.thing],
      [`Who took the ${f.thing}?`, f.who, f.thing],
    ];
    case 'got': return [
      [`What colour is the ${f.thing}?`, f.colour, f.thing],
      [`Who has the ${f.thing}?`, f.who, f.thing],
    ];
    case 'count': return [[`How many ${f.good} are there?`, f.number, f.good]];
    case 'went': return [[`Where is ${f.who}?`, f.place, f.who]];
    default: throw new Error(`world: unknown kind of fact '${f.kind}'; use one of ${kinds.join(', ')}`);
  }
}
