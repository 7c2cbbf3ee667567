// Draws live bytes by category over a step as stacked areas, several runs beside each other on one scale. Plain SVG.
import type { Category } from '@lomo/tensor';
import { categories } from '@lomo/tensor';

/** The arena after an allocation or a free. */
export interface Moment {
  /** Work done by then: what places the moment along the step. */
  readonly work: number;
  readonly live: Readonly<Record<Category, number>>;
}

/** One step. Bytes; `backward`, `update` and `work` on the scale of `Moment.work`. */
export interface Timeline {
  readonly moments: readonly Moment[];
  readonly peak: number;
  /** Bytes of the memory that the step needs, gaps between blocks included. */
  readonly extent: number;
  /** Where backward begins. */
  readonly backward: number;
  /** Where the update after backward begins; null where there is none. */
  readonly update: number | null;
  readonly work: number;
}

export interface Panel {
  readonly title: string;
  readonly subtitle: string;
  readonly timeline: Timeline;
}

/** From the bottom of the stack to its top. */
const layers: readonly { readonly category: Category; readonly colour: string; readonly label: string }[] = [
  { category: 'weights', colour: '#4c78a8', label: 'weights' },
  { category: 'state', colour: '#8e6bb0', label: 'optimizer state' },
  { category: 'gradient', colour: '#e45756', label: 'gradients' },
  { category: 'factors', colour: '#f2a65a', label: 'factors of gradients' },
  { category: 'boundary', colour: '#2a9d8f', label: 'boundary activations' },
  { category: 'saved', colour: '#54a24b', label: 'saved activations' },
  { category: 'recomputed', colour: '#9bd18b', label: 'recomputed activations' },
  { category: 'logits', colour: '#eeca3b', label: 'logits' },
  { category: 'workspace', colour: '#a39e99', label: 'workspace' },
  { category: 'io', colour: '#6b5b4b', label: 'batch' },
];
const size = { width: 900, height: 450, left: 62, right: 18, top: 104, bottom: 98, gap: 34 };
/** Columns a panel is reduced to; each shows the moment with most bytes in its span. */
const columns = 300;
const mebibyte = 2 ** 20;
const grey = '#5f6368';
const ink = '#202124';

/** One panel a run, equal scales, a legend of the categories that can be seen somewhere. */
export function drawTimeline(panels: readonly Panel[], options: { readonly heading: string; readonly caption: string }): string {
  const largest = Math.max(...panels.map(({ timeline }) => timeline.peak)) / mebibyte;
  const step = niceStep(largest / 5);
  const scale: Scale = { top: Math.ceil((largest * 1.02) / step) * step, width: (size.width - size.left - size.right - size.gap * (panels.length - 1)) / panels.length };
  const visible = layers.filter(({ category }) => panels.some(({ timeline }) => timeline.moments.some((m) => m.live[category] > (scale.top * mebibyte) / 250)));
  const parts = [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${size.width} ${size.height}" width="${size.width}" height="${size.height}" font-family="system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif" font-size="13" role="img">`,
    `<title>${options.heading}</title><desc>${options.caption}</desc>`,
    `<rect width="${size.width}" height="${size.height}" rx="6" fill="#ffffff"/>`,
    text(size.left, 28, options.heading, { 'font-size': 18, 'font-weight': 600 }),
    text(size.left, 48, options.caption, { fill: grey, 'font-size': 12 }),
  ];
  for (let mib = 0; mib <= scale.top; mib += step) {
    const at = heightOf(mib * mebibyte, scale);
    parts.push(`<line x1="${size.left}" x2="${size.width - size.right}" y1="${at}" y2="${at}" stroke="#e8eaed"/>`, text(size.left - 8, at + 4, mib === 0 ? '0' : `${mib}`, { fill: grey, 'text-anchor': 'end' }));
  }
  parts.push(text(size.left - 8, size.top - 16, 'MiB', { fill: grey, 'text-anchor': 'end' }));
  const reference = panels.reduce((a, b) => (a.timeline.peak >= b.timeline.peak ? a : b));
  panels.forEach((panel, index) => parts.push(...drawPanel(panel, { scale, left: size.left + index * (scale.width + size.gap), reference, visible })));
  parts.push(...drawLegend(visible), text(size.left, size.height - 16, 'Bytes live after every allocation and release; from left to right: work done, as arithmetic and bytes moved.', { fill: grey, 'font-size': 12 }), '</svg>\n');
  return parts.join('\n');
}

interface Scale {
  /** MiB at the top of the plot. */
  readonly top: number;
  /** Of one panel. */
  readonly width: number;
}

function heightOf(bytes: number, scale: Scale): number {
  return round(size.top + (size.height - size.top - size.bottom) * (1 - bytes / mebibyte / scale.top));
}

interface Placing {
  readonly scale: Scale;
  readonly left: number;
  /** The panel with the largest peak: what the others are said to be a share of. */
  readonly reference: Panel;
  readonly visible: typeof layers;
}

function drawPanel({ title, subtitle, timeline }: Panel, { scale, left, reference, visible }: Placing): string[] {
  const reduced = reduce(timeline);
  const bottom = size.height - size.bottom;
  const x = (work: number): number => round(left + (scale.width * work) / timeline.work);
  const parts: string[] = [`<text x="${left}" y="${size.top - 16}" fill="${ink}" font-size="15"><tspan font-weight="600">${title}</tspan><tspan fill="${grey}" font-size="13" dx="8">${subtitle}</tspan></text>`];
  const base = reduced.map(() => 0);
  for (const layer of layers) {
    const { category, colour, label } = layer;
    const lower = outline(reduced, base, { x, scale });
    reduced.forEach((moment, i) => (base[i]! += moment.live[category]));
    const upper = outline(reduced, base, { x, scale });
    if (visible.includes(layer)) parts.push(`<polygon points="${[...upper, ...lower.toReversed()].join(' ')}" fill="${colour}"/>`);
    const least = Math.min(...reduced.map((moment) => moment.live[category]));
    if (least > 0.1 * scale.top * mebibyte) parts.push(text(left + 12, heightOf(base[0]! - least / 2, scale) + 5, `${label}, ${Math.round(least / mebibyte)} MiB`, { fill: '#ffffff', 'font-weight': 600 }));
  }
  const peak = heightOf(timeline.peak, scale);
  const share = title === reference.title ? '' : `, ${Math.round((100 * timeline.peak) / reference.timeline.peak)} % of ${reference.title}'s`;
  parts.push(
    `<line x1="${left}" x2="${left + scale.width}" y1="${peak}" y2="${peak}" stroke="${ink}" stroke-dasharray="4 3"/>`,
    text(left + 4, peak - 7, `peak ${Math.round(timeline.peak / mebibyte)} MiB${share}`, { 'font-weight': 600 }),
  );
  const phases = [
    { name: 'forward', from: 0, to: timeline.backward },
    { name: timeline.update === null ? 'backward and update' : 'backward', from: timeline.backward, to: timeline.update ?? timeline.work },
    ...(timeline.update === null ? [] : [{ name: 'update', from: timeline.update, to: timeline.work }]),
  ];
  for (const { name, from, to } of phases) {
    const [begin, end] = [x(from), x(to)];
    if (from > 0) parts.push(`<line x1="${begin}" x2="${begin}" y1="${size.top}" y2="${bottom + 8}" stroke="${ink}" stroke-opacity="0.35" stroke-dasharray="1 3"/>`);
    // A phase narrower than its name is named from the panel's end.
    const narrow = end - begin < 50;
    parts.push(text(narrow ? left + scale.width : (begin + end) / 2, bottom + 19, name, { fill: grey, 'text-anchor': narrow ? 'end' : 'middle' }));
  }
  return parts;
}

/** The upper edge of a layer as points. */
function outline(moments: readonly Moment[], heights: readonly number[], { x, scale }: { readonly x: (work: number) => number; readonly scale: Scale }): string[] {
  return moments.map(({ work }, i) => `${x(work)},${heightOf(heights[i]!, scale)}`);
}

function drawLegend(visible: typeof layers): string[] {
  const parts: string[] = [];
  let [at, row] = [size.left, size.height - 58];
  for (const { label, colour } of visible) {
    const width = 32 + label.length * 6.6;
    if (at + width > size.width - size.right) [at, row] = [size.left, row + 24];
    parts.push(`<rect x="${at}" y="${row}" width="13" height="13" rx="2" fill="${colour}"/>`, text(at + 18, row + 11, label, { 'font-size': 12 }));
    at = round(at + width);
  }
  return parts;
}

function text(x: number, y: number, content: string, attributes: Readonly<Record<string, string | number>> = {}): string {
  const all = Object.entries({ fill: ink, ...attributes }).map(([name, value]) => ` ${name}="${value}"`);
  return `<text x="${round(x)}" y="${round(y)}"${all.join('')}>${content}</text>`;
}

/** The fullest moment of every column that has one. */
function reduce({ moments, work }: Timeline): readonly Moment[] {
  const total = ({ live }: Moment): number => categories.reduce((sum, c) => sum + live[c], 0);
  const fullest = new Map<number, Moment>();
  for (const moment of moments) {
    const column = Math.floor((columns * moment.work) / work);
    const known = fullest.get(column);
    if (known === undefined || total(moment) > total(known)) fullest.set(column, moment);
  }
  const [first, last] = [moments[0], moments.at(-1)];
  return first === undefined || last === undefined ? [] : [{ ...first, work: 0 }, ...fullest.values(), { ...last, work }];
}

function round(value: number): number {
  return Math.round(value * 10) / 10;
}

/** 1, 2 or 5 times a power of ten, at least `least`. */
function niceStep(least: number): number {
  const power = 10 ** Math.floor(Math.log10(least));
  return [1, 2, 5, 10].map((n) => n * power).find((n) => n >= least) ?? 10 * power;
}
