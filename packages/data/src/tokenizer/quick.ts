// Whether a tokenizer may run in the thread of the trainer: only where no text can make it slow or make much of it.

/** Models whose time and output grow with the text alone. WordPiece tries every end of every word. */
const quickModels: readonly unknown[] = ['BPE', 'WordLevel', 'Unigram'];
/** Most characters that one character may become. */
const mostGrowth = 16;
/** Most parts of a description that are looked at: a file of the size that loads in this thread has fewer. */
const mostParts = 200_000;

/**
 * True where encoding and decoding with the tokenizer.json `description` take time and room in proportion to the text: a known model, no
 * pattern of its own (one can take for ever on some text, and only a worker can be ended), no replacement that makes much of little.
 */
export function isQuick(description: Readonly<Record<string, unknown>>): boolean {
  const model = description['model'];
  if (typeof model !== 'object' || model === null || !quickModels.includes((model as { type?: unknown }).type)) return false;
  const { model: _model, added_tokens: _added, ...around } = description;
  let [growth, parts] = [1, 0];
  const waiting: unknown[] = [around];
  while (waiting.length > 0) {
    const value = waiting.pop();
    if (typeof value !== 'object' || value === null) continue;
    if (Object.hasOwn(value, 'Regex')) return false;
    for (const key of ['content', 'prepend', 'replacement'] as const) {
      const text = (value as Readonly<Record<string, unknown>>)[key];
      if (typeof text === 'string' && text.length > lengthOfPattern(value)) growth *= 1 + text.length;
    }
    for (const inner of Object.values(value)) waiting.push(inner);
    if (++parts > mostParts || growth > mostGrowth) return false;
  }
  return true;
}

/** Characters that a Replace takes away for each that it puts there. */
function lengthOfPattern(step: object): number {
  const pattern = 'pattern' in step ? step.pattern : null;
  const text = typeof pattern === 'object' && pattern !== null && 'String' in pattern ? pattern.String : null;
  return typeof text === 'string' ? text.length : 0;
}
