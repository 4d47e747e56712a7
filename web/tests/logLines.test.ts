import { expect, test } from 'vitest';

import { runsOf } from '../src/simulation/ansi';
import { indexOf, type Match, matchesOf, piecesOf, step } from '../src/simulation/find';
import { type Chunk, type Line, Lines, PlainText } from '../src/simulation/lines';

function chunk(text: string, stream: Chunk['stream'] = 'STDOUT', attempt = 1): Pick<Chunk, 'attempt' | 'stream' | 'text'> {
  return { attempt, stream, text };
}

function linesOf(...texts: string[]): Line[] {
  const lines = new Lines();
  for (const text of texts) lines.add(chunk(text));
  return lines.shown;
}

test('colours become names of classes, and other sequences nothing', () => {
  expect(runsOf('\x1b[1;31mRED\x1b[0m \x1b]0;title\x07\x1b[2Kplain \x1b[92;4mgreen\x1b[39;24m, \x1b[3mslanted')).toEqual([
    { text: 'RED', look: 'red bold' }, { text: ' ', look: '' }, { text: 'plain ', look: '' },
    { text: 'green', look: 'green underlined' }, { text: ', ', look: '' }, { text: 'slanted', look: 'italic' },
  ]);
  expect(runsOf('<b style="color:red">\x1b[31"onclick=x()m<i>')).toEqual([{ text: '<b style="color:red">', look: '' }, { text: 'nclick=x()m<i>', look: '' }]);
});

test('of 256 and 16 million colours the nearest hue is taken, and none of what one theme could not show', () => {
  const hues = ['38;5;196', '38;5;9', '38;5;21', '38;5;240', '38;5;255', '38;2;0;255;0', '38;2;255;140;0', '38:2::200:0:200', '38;2;10;12;11', '30', '37', '41', '48;5;1', '90'];
  expect(hues.map((codes) => runsOf(`\x1b[${codes}mx`)[0]!.look)).toEqual([
    'red', 'red', 'blue', 'dim', '', 'green', 'yellow', 'magenta', '', '', '', '', '', 'dim',
  ]);
  expect(runsOf('\x1b[48;5;1;32mx')[0]!.look).toBe('green'); // a background's parameters are not its own
});

test('a look ends with its line', () => {
  const [first, second] = linesOf('\x1b[31mred\nplain');
  expect([first!.runs, first!.text]).toEqual([[{ text: 'red', look: 'red' }], 'red']);
  expect([second!.runs, second!.text]).toEqual([undefined, 'plain']);
});

test('a very long line is cut', () => {
  const [line] = linesOf(`\x1b[31m${'x'.repeat(5_000)}`);
  expect(line!.text).toMatch(/^x{4000} … 1,000 more characters$/);
});

test('matches are found without regard to case, in order, and stepped through round the ends', () => {
  const lines = linesOf('Error: an error\nnothing', 'ERROR');
  const matches = matchesOf(lines, 'error');
  expect(matches).toEqual([{ line: 1, start: 0 }, { line: 1, start: 10 }, { line: 3, start: 0 }]);
  expect(matchesOf(lines, '')).toEqual([]);
  expect(matchesOf(linesOf('İerror'), 'ERROR')).toEqual([{ line: 1, start: 1 }]);
  const places = (by: 1 | -1): number[] => {
    let at: Match | null = null;
    return [1, 2, 3, 4].map(() => indexOf(matches, (at = step(matches, at, by))));
  };
  expect(places(1)).toEqual([0, 1, 2, 0]);
  expect(places(-1)).toEqual([2, 1, 0, 2]);
  const gone = { line: 2, start: 5 }; // its line has left
  expect([step(matches, gone, 1), step(matches, gone, -1), step([], gone, 1)]).toEqual([matches[2], matches[1], null]);
});

test('a line is cut where its look changes and where matches start and end', () => {
  const [line] = linesOf('an \x1b[31merr\x1b[1mor\x1b[0m, error');
  expect(piecesOf(line!, 'ERROR')).toEqual([
    { text: 'an ', look: '', match: -1 }, { text: 'err', look: 'red', match: 3 }, { text: 'or', look: 'red bold', match: 3 },
    { text: ', ', look: '', match: -1 }, { text: 'error', look: '', match: 10 },
  ]);
  expect(piecesOf(linesOf('aaa')[0]!, 'a').map(({ match }) => match)).toEqual([0, 1, 2]);
  expect(piecesOf(linesOf('plain')[0]!, '')).toEqual([{ text: 'plain', look: '', match: -1 }]);
});

test('a log as text has each line in its last state, and attempts told apart', () => {
  const text = new PlainText();
  const chunks = [
    chunk('begin\nloading '), chunk('\rloading done\n10%\n\r20%'), chunk('\r30%'), chunk('oh', 'STDERR'), chunk('\r40%'),
    chunk(''), chunk('a\n'), chunk('\ragain', 'STDOUT', 2),
  ];
  expect(chunks.map((each) => text.add(each)).join('') + text.rest()).toBe(
    'begin\nloading done\n30%\noh\n40%\n\na\n\n--- attempt 2 ---\nagain\n',
  );
  expect(new PlainText().rest()).toBe('');
});
