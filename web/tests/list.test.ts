/** The list's address, comparisons, sorts, bulk sentences and layout of small charts. */
import { print } from '@0no-co/graphql.web';
import { describe, expect, test } from 'vitest';

import { exact, isLong, jsonOrText, numberOf, straight, typedJson } from '../src/api/json';
import { forEach, nameFrom, sentenceOf } from '../src/now/bulk';
import { conditionOf, conditionsIn } from '../src/now/conditions';
import { belongs, createdFrom, createdTo, ignoredOf, isFiltered, nextSort, readView, sectionsOf, sortOf, writtenList, writtenSort } from '../src/now/filter';
import { list, mostRows, pulses, type Row, valueOfColumn, withColumns } from '../src/now/query';
import { groupsOf, isFound, linesOf, together } from '../src/simulation/charts';

describe('the address', () => {
  test('names every part of a view', () => {
    const view = readView(new URLSearchParams('text=vit&state=FAILED&tag=a%2Cb%252Cc&user=ada&since=7d&from=2026-11-01&where=lr%3C1e-3&sort=-last:val/loss&col=best:val/loss,param:lr'));
    expect(view.filter).toEqual({
      state: 'FAILED', project: null, machine: null, text: 'vit', tags: ['a', 'b,c'], user: 'ada', since: '7d', from: '2026-11-01', to: null, where: ['lr<1e-3'],
    }); // prettier-ignore
    expect(view.sort).toEqual({ field: 'LAST', name: 'val/loss', descending: true });
    expect(view.columns).toEqual([{ kind: 'best', name: 'val/loss' }, { kind: 'param', name: 'lr' }]);
    expect(isFiltered(view.filter)).toBe(true);
  });

  test('of nonsense nothing is taken', () => {
    const view = readView(new URLSearchParams('state=x&since=9y&from=2026-99-99&where=lr&sort=best&col=x:y,last:'));
    expect(view).toEqual(readView(new URLSearchParams()));
    expect(isFiltered(view.filter)).toBe(false);
    expect(sectionsOf(view).map(({ title }) => title)).toEqual(['On machines', 'Waiting', 'Ended']);
  });

  test('what is not understood is named', () => {
    const ignored = (address: string): string[] => ignoredOf(new URLSearchParams(address), readView(new URLSearchParams(address)));
    expect(ignored('state=x&since=9y&from=2026-99-99&where=lr,lr%3C1&sort=best&col=x:y,last:loss')).toEqual(['where=lr', 'col=x:y', 'state=x', 'since=9y', 'from=2026-99-99', 'sort=best']);
    expect(ignored(`col=${Array.from({ length: 14 }, (_, at) => `param:${at}`).join(',')}`)).toEqual(['col=param:12', 'col=param:13']);
    expect(ignored('text=vit&state=FAILED&tag=a%2Cb%252Cc&user=ada&since=7d&to=2026-11-01&where=lr%3C1e-3&sort=+name&col=,&page=3')).toEqual([]);
  });

  test('a name that was kept before is a text', () => expect(readView(new URLSearchParams('name=vit')).filter.text).toBe('vit'));

  test.each(['-cost', '+name', 'best:val/loss', '-last:a:b', '+param:optimizer.lr'])('%s is written as it is read', (text) => {
    expect(writtenSort(sortOf(text)!)).toBe(text);
  });

  test('lists with commas and percents come back', () => {
    const names = ['param:a,b', 'last:100%', 'best:%2C'];
    const address = new URLSearchParams({ col: writtenList(names) });
    expect(readView(address).columns.map(({ kind, name }) => `${kind}:${name}`)).toEqual(names);
  });
});

test('a click on a head turns the order round, and a third one ends it', () => {
  const cost = { field: 'COST' as const };
  const first = nextSort(null, cost, true);
  expect(first).toEqual({ field: 'COST', descending: true });
  const second = nextSort(first, cost, true);
  expect(second).toEqual({ field: 'COST', descending: false });
  expect(nextSort(second, cost, true)).toBeNull();
  const metric = { field: 'BEST' as const, name: 'loss' };
  const best = nextSort(second, metric, undefined);
  expect(best).toEqual(metric);
  const greatest = nextSort(best, metric, undefined);
  expect(greatest).toEqual({ ...metric, descending: true });
  expect(nextSort(nextSort(greatest, metric, undefined), metric, undefined)).toBeNull();
});

describe('comparisons', () => {
  test.each([
    ['lr<1e-3', { name: 'lr', comparison: 'LT', value: 0.001 }],
    [' optimizer.name = adam ', { name: 'optimizer.name', comparison: 'EQ', value: 'adam' }],
    ['flag==true', { name: 'flag', comparison: 'EQ', value: true }],
    ['x != "2"', { name: 'x', comparison: 'NE', value: '2' }],
    ['x>=[1]', { name: 'x', comparison: 'GE', value: '[1]' }],
    ['x=null', { name: 'x', comparison: 'EQ', value: 'null' }],
  ])('%s', (text, expected) => expect(conditionOf(text)).toEqual(expected));

  test('are divided by commas outside of quotes, and what is none is named', () => {
    expect(conditionsIn('lr<1e-3, opt=adam,')).toEqual({ conditions: ['lr<1e-3', 'opt=adam'], others: [] });
    expect(conditionsIn('data="a,b", lr, x!=2, =3')).toEqual({ conditions: ['data="a,b"', 'x!=2'], others: ['lr', '=3'] });
    expect(conditionsIn('lr<<3, lr=<3, lr===3, lr="<3"')).toEqual({ conditions: ['lr="<3"'], others: ['lr<<3', 'lr=<3', 'lr===3'] });
    expect(conditionsIn(' , ')).toEqual({ conditions: [], others: [] });
  });

  test.each(['lr', '<1', 'lr<', ''])('%j is none', (text) => expect(conditionOf(text)).toBeNull());
});

describe('a row', () => {
  const row = { name: 'ViT', state: 'FINISHED', tags: ['a'], createdBy: 'ada (unverified)', createdAt: '2026-11-05T12:00:00Z', project: { id: 'p' }, machine: null } as unknown as Row;
  const fits = (address: string): boolean | null => {
    const view = readView(new URLSearchParams(address));
    return belongs(row, sectionsOf(view).at(-1)!, view.filter, Date.parse('2026-11-06T00:00:00Z'));
  };
  test.each([
    ['', true], ['text=vi', true], ['text=train.py', null], ['where=lr%3C1', null], ['tag=a', true], ['tag=b', false], ['tag=b&where=lr%3C1', false],
    ['user=ada', true], ['user=bob', false], ['since=24h', true], ['since=1h', false], ['from=2026-11-04&to=2026-11-05', true], ['to=2026-11-03', false],
    ['state=FAILED', false], ['sort=name', true], ['project=q', false],
  ])('belongs by %j: %j', (address, expected) => expect(fits(address)).toBe(expected)); // prettier-ignore

  test('the last day counts in full', () => {
    const { filter } = readView(new URLSearchParams('from=2026-11-01&to=2026-11-01&since=30d'));
    expect(createdTo(filter)! - createdFrom(filter, Date.parse('2026-11-02T00:00:00Z'))!).toBe(86_400_000);
  });
});

test('columns are asked for by lists and pulses, whatever their names are', () => {
  const columns = [{ kind: 'best' as const, name: 'a"\\b' }, { kind: 'param' as const, name: 'lr' }];
  for (const document of [list, pulses]) {
    const text = print(withColumns(document, columns) as never);
    expect(text).toContain('c0: metric(name: "a\\"\\\\b")');
    expect(text.match(/c1: parameter\(name: "lr"\)/g)).toHaveLength(1);
  }
  expect(withColumns(list, [])).toBe(list);
  const answer = { c0: { lastValue: 2, bestValue: null }, c1: 0.1 };
  expect(columns.map((column, at) => valueOfColumn(answer, column, at))).toEqual([null, 0.1]);
  expect(mostRows(Array.from({ length: 12 }, () => columns[1]!))).toBeLessThan(80);
});

test('a sentence says how many were done, and why the others were not', async () => {
  const outcome = await forEach(['1', '2', '3', '4'], async (id) => {
    if (id === '4') throw new Error('No connection');
    return id === '3' ? 'It is FINISHED.' : '';
  });
  expect(sentenceOf('Cancelled', outcome)).toBe('Cancelled 2 of 4 simulations. 1 refused: It is FINISHED. 1 refused: No connection.');
  expect(sentenceOf('Deleted', await forEach(['1'], async () => ''))).toBe('Deleted 1 simulation.');
});

test.each(['a$$b', '$& costs', "$`$'", '{name}'])('%s is in the new name as it is', (name) => {
  expect(nameFrom('{name} again, after {name}', name)).toBe(`${name} again, after ${name}`);
});

describe('numbers beyond 2^53', () => {
  const sent = (value: unknown): unknown => JSON.parse(JSON.stringify(value));
  test.each(['{"seed":9007199254740993}', '[-12345678901234567890]', '{"s":"9007199254740993"}'])('%s may hold one', (text) => expect(isLong(text)).toBe(true));
  test.each(['{"lr":0.12345678901234568}', '[1.2345678901234567e-5,12345678901234567e3]', '{"n":900719925474099}'])('%s holds none', (text) => {
    expect(isLong(text)).toBe(false);
    expect(exact(text)).toEqual(JSON.parse(text));
  });
  // Chromium, which keeps the digits, is asked in tests/browser/test_list.py.
  test('of others nothing changes', () => expect(exact('{"even":9007199254740992,"s":"9007199254740993"}')).toEqual({ even: 2 ** 53, s: '9007199254740993' }));

  test('what has a point or an exponent is a double, however large', () => {
    expect(sent(typedJson('{"a":1e22,"b":[1e23,1e-9],"c":12345678901234567890.0}'))).toEqual({ a: 1e22, b: [1e23, 1e-9], c: 12345678901234567890 });
    expect(sent(['1.5e21', '+1e300', '1e30'].map(numberOf))).toEqual([1.5e21, 1e300, 1e30]);
    expect(sent(jsonOrText('1e30'))).toBe(1e30);
  });
  test.runIf('rawJSON' in JSON)('are sent as they were typed', () => {
    expect(JSON.stringify(typedJson('{"seed":9007199254740993}'))).toBe('{"seed":9007199254740993}');
    expect(JSON.stringify(numberOf('+009007199254740993'))).toBe('9007199254740993');
  });
  test.skipIf('rawJSON' in JSON)('are refused where they would be rounded, as in Node.js 20', () => {
    expect(() => typedJson('{"seed":9007199254740993}')).toThrow(RangeError);
    expect(() => numberOf('9007199254740993')).toThrow(RangeError);
  });
  test('what can’t be sent as it was typed is refused', () => {
    expect(() => jsonOrText('[1e999]')).toThrow(RangeError);
    expect(typedJson('["9007199254740993",9007199254740992]')).toEqual(['9007199254740993', 2 ** 53]);
  });
});

test('what changes the direction of text is left out, and marks of right-to-left text stay', () => {
  const turning = ['\u202a', '\u202b', '\u202c', '\u202d', '\u202e', '\u2066', '\u2067', '\u2068', '\u2069'];
  expect(straight(`a${turning.join('b')}c`)).toBe('abbbbbbbbc');
  expect(straight('\u05d0\u200f!')).toBe('\u05d0\u200f!');
});

describe('small charts', () => {
  const names = ['train/a', 'val/loss', 'lr', 'val/acc', 'perf/x'];
  test('are grouped by prefix, the objective first', () => {
    expect(groupsOf(names, new Set(), 'val/loss')).toEqual([
      { title: 'val/', items: ['val/loss', 'val/acc'] }, { title: 'Without a prefix', items: ['lr'] }, { title: 'train/', items: ['train/a'] }, { title: 'perf/', items: ['perf/x'] },
    ]); // prettier-ignore
    expect(groupsOf(names, new Set(['lr', 'gone']), undefined)[0]).toEqual({ title: 'Pinned', items: ['lr'] });
  });

  test('are found by all words of a search', () => {
    expect(isFound('val/top1_Accuracy', 'ACC val')).toBe(true);
    expect(isFound('val/top1_Accuracy', 'loss val')).toBe(false);
  });

  test('stand in rows of equal height', () => {
    const few = [{ title: 'a', items: [1] }, { title: 'b', items: [2, 3] }];
    expect([together(few, 3), together(few, 2)]).toEqual([[{ title: '', items: [1, 2, 3] }], few]);
    expect(together([{ title: 'Pinned', items: [1] }, { title: 'a', items: [1] }], 3)).toHaveLength(2);
    expect(linesOf(together(few, 3), 3, { head: 30, chart: 100 })).toEqual({ lines: [{ key: ' 0', top: 0, height: 100, items: [1, 2, 3] }], height: 100 });
    const { lines, height } = linesOf([{ title: 'a', items: [1, 2, 3] }], 2, { head: 30, chart: 100 });
    expect(lines.map(({ top, items }) => [top, items])).toEqual([[0, []], [30, [1, 2]], [130, [3]]]);
    expect(height).toBe(230);
  });
});
