// How a prompt and a completion become one text, and which part of it is trained.
import { DataError } from './errors.ts';
import type { Example } from './formats.ts';

/** Text around the fields. `{prompt}`, `{completion}` and any other key of the row in braces are replaced; other braces stay as they are. */
export interface Template {
  /** Masked part; default `'{prompt}\n'`. */
  readonly prompt?: string;
  /** Trained part; default `'{completion}'`. */
  readonly completion?: string;
}

/** A stretch of text, and whether its tokens are trained. */
export interface Piece {
  readonly text: string;
  readonly trained: boolean;
}

/** The template used when none is given: the prompt, a line feed, the completion. */
export const defaultTemplate: Required<Template> = { prompt: '{prompt}\n', completion: '{completion}' };

/** The pieces of an example, in order. Throws DataError BadTemplate for a placeholder the row cannot fill; `place` is `path:line`. */
export function renderExample(example: Example, template: Template, place: string): readonly Piece[] {
  switch (example.kind) {
    case 'text': return [{ text: example.text, trained: true }];
    case 'segments': return example.segments;
    case 'pair': {
      const fields = { ...example.row, prompt: example.prompt, completion: example.completion };
      return [
        { text: fill(template.prompt ?? defaultTemplate.prompt, fields, place), trained: false },
        { text: fill(template.completion ?? defaultTemplate.completion, fields, place), trained: true },
      ];
    }
    default: return example satisfies never;
  }
}

/** The text to give a trained model for `prompt`: exactly what preceded a completion in training. Further keys of the row may be given in `row`. */
export function renderPrompt(prompt: string, template: Template = defaultTemplate, row: Readonly<Record<string, unknown>> = {}): string {
  return fill(template.prompt ?? defaultTemplate.prompt, { ...row, prompt }, 'template');
}

/** Refuses a template that would train on nothing of the row: DataError BadTemplate. */
export function checkTemplate(template: Template): void {
  const completion = template.completion ?? defaultTemplate.completion;
  if (!/\{[A-Za-z_]\w*\}/.test(completion)) {
    throw new DataError('BadTemplate', `template.completion is ${JSON.stringify(completion)}, expected a placeholder in it, such as {completion}`);
  }
}

/** Most characters that a template may make of one row: a placeholder may stand in it many times, and a field may be long. */
const renderedLimit = 64 * 2 ** 20;

function fill(text: string, fields: Readonly<Record<string, unknown>>, place: string): string {
  let characters = text.length;
  return text.replace(/\{([A-Za-z_]\w*)\}/g, (_, key: string) => {
    const value = Object.hasOwn(fields, key) ? fields[key] : undefined;
    if (typeof value === 'string') {
      characters += value.length;
      if (characters > renderedLimit) throw new DataError('BadTemplate', `${place}: the template makes over ${renderedLimit} characters of this row; use {${key}} less often, or shorten the field`, { limit: renderedLimit });
      return value;
    }
    throw new DataError('BadTemplate', `${place}: the template asks for {${key}}, but the row's '${key}' is ${value === undefined ? 'absent' : `a ${typeof value}`}; keys found: ${Object.keys(fields).slice(0, 20).join(', ')}`);
  });
}
