import { expect, test } from 'vitest';

import { csvOf, fieldOf, fileNameOf } from '../src/curves/csv';
import { Curves } from '../src/curves/series';

test('fields with commas, quotes and line breaks are quoted', () => {
  expect(['loss', 'a,b', 'say "hi"', 'two\nlines', ''].map(fieldOf)).toEqual(['loss', '"a,b"', '"say ""hi"""', '"two\nlines"', '']);
});

test('what a spreadsheet would run gets an apostrophe', () => {
  expect(['=1+1', '+1', '-1', '@SUM(A1)', '\tx', '=HYPERLINK("x")'].map(fieldOf)).toEqual(["'=1+1", "'+1", "'-1", "'@SUM(A1)", "'\tx", `"'=HYPERLINK(""x"")"`]);
});

test('each point is a line, and what is not finite is named', () => {
  const curves = new Curves();
  curves.add({ attempt: 1, series: [{ metric: 'loss', steps: [0, 1, 2], values: [0.1, null, 1e-7], notFinite: ['-Infinity'], elapsed: [0.5, 1, 1.5], supersedesFrom: null }] });
  curves.add({ attempt: 2, series: [{ metric: 'loss', steps: [2, 3, 4, 5], values: [3, null, null, null], notFinite: ['Infinity', 'NaN', '-Infinity'], elapsed: [0.25, 1, 2, 3], supersedesFrom: 2 }] });
  expect([...csvOf(curves)].join('')).toBe(
    'metric,step,value,elapsed_seconds,attempt\r\nloss,0,0.1,0.5,1\r\nloss,1,-Infinity,1,1\r\nloss,2,3,0.25,2\r\nloss,3,Infinity,1,2\r\nloss,4,NaN,2,2\r\nloss,5,-Infinity,3,2\r\n',
  );
});

test('many points come in pieces', () => {
  const steps = Array.from({ length: 25_000 }, (_, at) => at);
  const curves = new Curves();
  curves.add({ attempt: 1, series: [{ metric: 'loss', steps, values: steps, elapsed: steps, supersedesFrom: null }] });
  const pieces = [...csvOf(curves)];
  expect(pieces.length).toBeGreaterThan(2);
  expect(pieces.join('').trimEnd().split('\r\n')).toHaveLength(25_001);
});

test('a file is named by what is harmless in a name', () => {
  expect([fileNameOf('../../etc/passwd', 'csv'), fileNameOf('<b>ré sumé</b>', 'csv'), fileNameOf('***', 'csv')]).toEqual([
    'etc-passwd.csv', 'b-re-sume-b.csv', 'simulation.csv',
  ]);
});
