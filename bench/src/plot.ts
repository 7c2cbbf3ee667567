// Draws curves in panels side by side and below each other: lines with a name at their end, bands, linear and logarithmic axes. Plain SVG.

/** A point of a curve; y that is no number ends the line there. */
export type Point = readonly [x: number, y: number];

export interface Line {
  readonly points: readonly Point[];
  readonly colour: string;
  /** Drawn wide, its name bold. */
  readonly bold?: boolean;
  readonly dash?: string;
  /** Stands at the line's end. */
  readonly label?: string;
  /** A dot at every point. */
  readonly dots?: boolean;
}

/** What lies between two curves of the same x. */
export interface Band {
  readonly points: readonly (readonly [x: number, low: number, high: number])[];
  readonly colour: string;
}

export interface Axis {
  readonly label: string;
  readonly min: number;
  readonly max: number;
  readonly log?: boolean;
  readonly ticks: readonly number[];
}

export interface PlotPanel {
  readonly title: string;
  readonly subtitle?: string;
  readonly x: Axis;
  readonly y: Axis;
  readonly lines: readonly Line[];
  readonly bands?: readonly Band[];
}

export interface PlotOptions {
  readonly heading: string;
  /** Lines of text below the heading. */
  readonly captions: readonly string[];
  /** Names below the panels. */
  readonly legend?: readonly { readonly label: string; readonly colour: string; readonly dash?: string }[];
  readonly columns: number;
}

const grey = '#5f6368';
const ink = '#202124';
const layout = { width: 960, left: 58, right: 74, top: 46, bottom: 46, height: 330 } as const;

interface Frame {
  readonly left: number;
  readonly top: number;
  readonly width: number;
  readonly height: number;
}

/** The picture as SVG text, dark on white. */
export function drawPlot(panels: readonly PlotPanel[], { heading, captions, legend = [], columns }: PlotOptions): string {
  const rows = Math.ceil(panels.length / columns);
  const head = 40 + 18 * captions.length;
  const height = head + rows * layout.height + (legend.length > 0 ? 34 : 8);
  const cell = layout.width / columns;
  const parts = [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${layout.width} ${height}" width="${layout.width}" height="${height}" font-family="system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif" font-size="12" role="img">`,
    `<title>${escape(heading)}</title><desc>${escape(captions.join(' '))}</desc>`,
    `<rect width="${layout.width}" height="${height}" rx="6" fill="#ffffff"/>`,
    text(20, 28, heading, { 'font-size': 18, 'font-weight': 600 }),
    ...captions.map((caption, i) => text(20, 48 + 18 * i, caption, { fill: grey })),
  ];
  panels.forEach((panel, i) => {
    const frame: Frame = {
      left: (i % columns) * cell + layout.left,
      top: head + Math.floor(i / columns) * layout.height + layout.top,
      width: cell - layout.left - layout.right,
      height: layout.height - layout.top - layout.bottom,
    };
    parts.push(...drawPanel(panel, frame, `panel${i}`));
  });
  let at = 20;
  for (const { label, colour, dash } of legend) {
    parts.push(`<line x1="${at}" x2="${at + 26}" y1="${height - 20}" y2="${height - 20}" stroke="${colour}" stroke-width="3"${dash === undefined ? '' : ` stroke-dasharray="${dash}"`}/>`, text(at + 32, height - 16, label));
    at += 56 + label.length * 6.8;
  }
  return `${parts.join('\n')}\n</svg>\n`;
}

function drawPanel(panel: PlotPanel, frame: Frame, id: string): string[] {
  const { left, top, width, height } = frame;
  const [x, y] = [placing(panel.x, left, width), placing(panel.y, top + height, -height)];
  const parts = [`<text x="${round(left)}" y="${round(top - 14)}" fill="${ink}" font-size="14"><tspan font-weight="600">${escape(panel.title)}</tspan>${panel.subtitle === undefined ? '' : `<tspan fill="${grey}" font-size="12" dx="8">${escape(panel.subtitle)}</tspan>`}</text>`];
  for (const tick of panel.y.ticks) {
    const at = round(y(tick));
    parts.push(`<line x1="${round(left)}" x2="${round(left + width)}" y1="${at}" y2="${at}" stroke="#e8eaed"/>`, text(left - 6, at + 4, spell(tick), { fill: grey, 'text-anchor': 'end' }));
  }
  for (const tick of panel.x.ticks) {
    const at = round(x(tick));
    parts.push(`<line x1="${at}" x2="${at}" y1="${round(top + height)}" y2="${round(top + height + 4)}" stroke="${grey}"/>`, text(at, top + height + 17, spell(tick), { fill: grey, 'text-anchor': 'middle' }));
  }
  parts.push(
    `<line x1="${round(left)}" x2="${round(left + width)}" y1="${round(top + height)}" y2="${round(top + height)}" stroke="${grey}"/>`,
    text(left + width / 2, top + height + 34, panel.x.label, { fill: grey, 'text-anchor': 'middle' }),
    `<text transform="translate(${round(left - 42)} ${round(top + height / 2)}) rotate(-90)" text-anchor="middle" fill="${grey}">${escape(panel.y.label)}</text>`,
    `<clipPath id="${id}"><rect x="${round(left)}" y="${round(top)}" width="${round(width + 3)}" height="${round(height + 1)}"/></clipPath>`,
  );
  for (const { points, colour } of panel.bands ?? []) {
    const edge = (side: 1 | 2): string[] => points.map((point) => `${round(x(point[0]))},${round(y(point[side]))}`);
    parts.push(`<polygon clip-path="url(#${id})" points="${[...edge(2), ...edge(1).toReversed()].join(' ')}" fill="${colour}" fill-opacity="0.18"/>`);
  }
  const labels: { readonly line: Line; at: number }[] = [];
  for (const line of panel.lines.toSorted((a, b) => Number(a.bold ?? false) - Number(b.bold ?? false))) {
    const finite = line.points.filter(([, value]) => Number.isFinite(value));
    const last = finite.at(-1);
    if (last === undefined) continue;
    const path = finite.map(([px, py]) => `${round(x(px))},${round(y(py))}`);
    parts.push(`<polyline clip-path="url(#${id})" points="${path.join(' ')}" fill="none" stroke="${line.colour}" stroke-width="${line.bold === true ? 3 : 1.3}" stroke-linejoin="round"${line.dash === undefined ? '' : ` stroke-dasharray="${line.dash}"`}/>`);
    if (line.dots === true) parts.push(...finite.filter(([, py]) => py <= panel.y.max && py >= panel.y.min).map(([px, py]) => `<circle cx="${round(x(px))}" cy="${round(y(py))}" r="3.2" fill="${line.colour}"/>`));
    if (line.label !== undefined) labels.push({ line, at: Math.min(top + height, Math.max(top + 4, y(last[1]))) });
  }
  spreadOut(labels, { top: top + 4, bottom: top + height, apart: 13 });
  for (const { line, at } of labels) parts.push(text(left + width + 6, at + 4, line.label!, { fill: line.colour, ...(line.bold === true ? { 'font-weight': 700 } : {}) }));
  return parts;
}

/** Moves names that would cover each other apart, in their order. */
function spreadOut(labels: { at: number }[], room: { readonly top: number; readonly bottom: number; readonly apart: number }): void {
  labels.sort((a, b) => a.at - b.at);
  labels.forEach((label, i) => (label.at = Math.max(label.at, i === 0 ? room.top : labels[i - 1]!.at + room.apart)));
  for (let i = labels.length - 1; i >= 0; i--) labels[i]!.at = Math.min(labels[i]!.at, i === labels.length - 1 ? room.bottom : labels[i + 1]!.at - room.apart);
}

/** Data to picture: `from` is where the axis begins, `length` how far it goes (downwards below 0). */
function placing(axis: Axis, from: number, length: number): (value: number) => number {
  const scale = axis.log === true ? Math.log : (value: number): number => value;
  const [low, high] = [scale(axis.min), scale(axis.max)];
  const beyond = 3;
  return (value) => from + length * Math.max(-beyond, Math.min(beyond, (scale(Math.max(value, axis.log === true ? 1e-300 : -Infinity)) - low) / (high - low)));
}

/** Numbers as people write them: 2000, 0.03, 1e-4. */
export function spell(value: number): string {
  if (value === 0) return '0';
  const size = Math.abs(value);
  if (size >= 1e-3 && size < 1e5) return String(Number(value.toPrecision(4)));
  return value.toExponential().replace('+', '');
}

/** Ticks at 1, 2 or 5 times a power of ten, about `count` of them, within [min, max]. */
export function linearTicks(min: number, max: number, count = 6): number[] {
  const least = (max - min) / count;
  const power = 10 ** Math.floor(Math.log10(least));
  const step = [1, 2, 5, 10].map((n) => n * power).find((n) => n >= least * 0.999) ?? 10 * power;
  const first = Math.ceil(min / step - 1e-9);
  return Array.from({ length: Math.floor(max / step + 1e-9) - first + 1 }, (_, i) => Number(((first + i) * step).toPrecision(12)));
}

/** Powers of ten within [min, max]; with three or fewer, 2 and 5 times them too. */
export function logTicks(min: number, max: number): number[] {
  const powers = Array.from({ length: Math.ceil(Math.log10(max)) - Math.floor(Math.log10(min)) + 1 }, (_, i) => Math.floor(Math.log10(min)) + i);
  const whole = powers.map((p) => Number(`1e${p}`)).filter((t) => t >= min && t <= max);
  return whole.length > 3 ? whole : powers.flatMap((p) => [1, 2, 5].map((n) => Number(`${n}e${p}`))).filter((t) => t >= min && t <= max);
}

function text(x: number, y: number, content: string, attributes: Readonly<Record<string, string | number>> = {}): string {
  const all = Object.entries({ fill: ink, ...attributes }).map(([name, value]) => ` ${name}="${value}"`);
  return `<text x="${round(x)}" y="${round(y)}"${all.join('')}>${escape(content)}</text>`;
}

function escape(content: string): string {
  return content.replaceAll('&', '&amp;').replaceAll('<', '&lt;');
}

function round(value: number): number {
  return Math.round(value * 10) / 10;
}
