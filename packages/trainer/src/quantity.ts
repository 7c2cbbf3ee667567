// Numbers for people: a unit that keeps them short, three digits that matter, never an exponent where a unit will do.

/** `n` to `digits` significant digits, written out: '999', '1,024', '0.0123'. Below 1e-6 or from 1e15 on, with an exponent. */
export function significant(n: number, digits = 3): string {
  if (n === 0) return '0';
  const rounded = Number(n.toPrecision(digits));
  if (Math.abs(rounded) >= 1e15 || Math.abs(rounded) < 1e-6) return n.toPrecision(digits);
  const decimals = digits - 1 - Math.floor(Math.log10(Math.abs(rounded)));
  return decimals > 0 ? rounded.toFixed(decimals) : rounded.toLocaleString('en-US');
}

/** Bytes with the unit that leaves at most three digits before the point: '212 KiB', '1.21 GiB'. */
export function bytes(n: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let [value, at] = [n, 0];
  // 999.5 would be rounded to 1,000.
  while (value >= 999.5 && at < units.length - 1) {
    value /= 1024;
    at++;
  }
  return at === 0 ? `${n} B` : `${significant(value)} ${units[at]!}`;
}

/** A short time with two digits that matter, or a long one with three: '0.42 ms', '87 ms', '1.24 s'. */
export function shortTime(seconds: number): string {
  return seconds < 0.9995 ? `${significant(1000 * seconds, seconds < 0.0995 ? 2 : 3)} ms` : `${significant(seconds)} s`;
}
