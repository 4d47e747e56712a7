/** All points of a simulation as CSV (RFC 4180), one line per point: with NaN, Infinity and -Infinity. */
import type { Curves } from './series';

const HEAD = ['metric', 'step', 'value', 'elapsed_seconds', 'attempt'];
const LINES_PER_PIECE = 10_000;

/** A field; what a spreadsheet would run as a formula gets an apostrophe in front (OWASP, "CSV Injection"). */
export function fieldOf(text: string): string {
  const safe = /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
  return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}

/** The file in pieces: a million points in one string would be held twice. */
export function* csvOf(curves: Curves): Generator<string> {
  let lines = [HEAD.join(',')];
  for (const series of curves.byMetric.values()) {
    const name = fieldOf(series.metric);
    for (const [number, { attempt, index }] of series.beginnings.entries()) {
      const end = series.beginnings[number + 1]?.index ?? series.length;
      for (let at = index; at < end; at++) {
        lines.push(`${name},${series.steps[at]},${series.values[at]},${series.elapsed[at]},${attempt}`);
        if (lines.length < LINES_PER_PIECE) continue;
        yield lines.join('\r\n') + '\r\n';
        lines = [];
      }
    }
  }
  yield lines.length ? lines.join('\r\n') + '\r\n' : '';
}

/** A name for a file out of a name from outside. */
export function fileNameOf(name: string, ending: string): string {
  const plain = name.normalize('NFKD').replaceAll(/[^\w.-]+/g, '-').replaceAll(/^[-.]+|[-.]+$/g, '');
  return `${plain.slice(0, 80) || 'simulation'}.${ending}`;
}
