// Draws live bytes by category over time as stacked areas, several runs beside each other on one scale. Plain SVG.
import type { Category } from '@lomo/tensor';
import { categories } from '@lomo/tensor';

export interface Timeline {
  /** Live bytes after every allocation and free. */
  readonly samples: readonly Readonly<Record<Category, number>>[];
  readonly peak: number;
}

const colours: Readonly<Record<Category, string>> = {
  weights: '#4c78a8', state: '#b279a2', gradient: '#e45756', factors: '#ff9da6', boundary: '#72b7b2', saved: '#54a24b',
  recomputed: '#88d27a', logits: '#eeca3b', workspace: '#bab0ac', io: '#9d755d',
};
/** What lies at the bottom of the stack comes first. */
const order: readonly Category[] = ['weights', 'state', 'gradient', 'factors', 'boundary', 'saved', 'recomputed', 'logits', 'workspace', 'io'];
const size = { width: 900, height: 380, left: 64, right: 16, top: 64, bottom: 92, gap: 40 };
/** Columns a panel is reduced to; each shows the moment with most bytes in its span. */
const columns = 240;

/** One panel a run, equal scales, a legend of the categories that hold bytes somewhere. */
export function drawTimeline(runs: readonly { readonly title: string; readonly timeline: Timeline }[], options: { readonly heading: string }): string {
  const largest = Math.max(...runs.map(({ timeline }) => timeline.peak));
  const step = niceStep(largest / 2 ** 20 / 4);
  const top = Math.ceil(largest / 2 ** 20 / step) * step;
  const plotHeight = size.height - size.top - size.bottom;
  const width = (size.width - size.left - size.right - size.gap * (runs.length - 1)) / runs.length;
  const y = (bytes: number): number => size.top + plotHeight * (1 - bytes / 2 ** 20 / top);
  const used = order.filter((c) => runs.some(({ timeline }) => timeline.samples.some((s) => s[c] > 0.004 * largest)));
  const parts = [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${size.width} ${size.height}" font-family="system-ui, sans-serif" font-size="13">`,
    `<rect width="${size.width}" height="${size.height}" fill="#ffffff"/>`,
    `<text x="${size.left}" y="24" font-size="15" fill="#222">${options.heading}</text>`,
  ];
  for (let mib = 0; mib <= top; mib += step) {
    const at = y(mib * 2 ** 20).toFixed(1);
    parts.push(`<line x1="${size.left}" x2="${size.width - size.right}" y1="${at}" y2="${at}" stroke="#e5e5e5"/>`);
    parts.push(`<text x="${size.left - 8}" y="${Number(at) + 4}" text-anchor="end" fill="#555">${mib}</text>`);
  }
  parts.push(`<text x="${size.left - 8}" y="${size.top - 14}" text-anchor="end" fill="#555">MiB</text>`);
  runs.forEach(({ title, timeline }, index) => {
    const left = size.left + index * (width + size.gap);
    const reduced = reduce(timeline.samples);
    const x = (i: number): number => left + (width * i) / (reduced.length - 1);
    const base = reduced.map(() => 0);
    for (const c of order) {
      const lower = base.map((b, i) => `${x(i).toFixed(1)},${y(b).toFixed(1)}`);
      reduced.forEach((s, i) => (base[i]! += s[c]));
      const upper = base.map((b, i) => `${x(i).toFixed(1)},${y(b).toFixed(1)}`);
      if (used.includes(c)) parts.push(`<polygon points="${[...upper, ...lower.toReversed()].join(' ')}" fill="${colours[c]}"/>`);
    }
    const peak = y(timeline.peak).toFixed(1);
    parts.push(`<line x1="${left}" x2="${left + width}" y1="${peak}" y2="${peak}" stroke="#222" stroke-dasharray="4 3"/>`);
    parts.push(`<text x="${left + width}" y="${Number(peak) - 6}" text-anchor="end" fill="#222">peak ${Math.round(timeline.peak / 2 ** 20)} MiB</text>`);
    parts.push(`<text x="${left}" y="${size.top - 14}" fill="#222" font-weight="600">${title}</text>`);
    parts.push(`<text x="${left}" y="${size.height - size.bottom + 18}" fill="#555">forward</text>`);
    parts.push(`<text x="${left + width}" y="${size.height - size.bottom + 18}" text-anchor="end" fill="#555">backward →</text>`);
  });
  let at = size.left;
  for (const c of used) {
    const row = size.height - 36;
    parts.push(`<rect x="${at}" y="${row}" width="13" height="13" rx="2" fill="${colours[c]}"/><text x="${at + 19}" y="${row + 11}" fill="#222">${c}</text>`);
    at += 34 + c.length * 8;
  }
  parts.push('</svg>\n');
  return parts.join('\n');
}

function reduce(samples: Timeline['samples']): Timeline['samples'] {
  const total = (s: Readonly<Record<Category, number>>): number => categories.reduce((sum, c) => sum + s[c], 0);
  const span = Math.max(1, samples.length / columns);
  return Array.from({ length: Math.min(columns, samples.length) }, (_, i) => {
    const part = samples.slice(Math.floor(i * span), Math.max(Math.floor(i * span) + 1, Math.floor((i + 1) * span)));
    return part.reduce((best, s) => (total(s) > total(best) ? s : best));
  });
}

/** 1, 2 or 5 times a power of ten, at least `least`. */
function niceStep(least: number): number {
  const power = 10 ** Math.floor(Math.log10(least));
  return [1, 2, 5, 10].map((n) => n * power).find((n) => n >= least) ?? 10 * power;
}
