/** What the page of what runs now asks for. */
import { parse } from '@0no-co/graphql.web';

import { graphql, type FragmentOf, type ResultOf } from '../api/graphql';
import type { Column } from './filter';

export const row = graphql(`
  fragment Row on Simulation @_unmask {
    id
    number
    name
    state
    reason
    reasonDetail
    tags
    createdBy
    createdAt
    startedAt
    finishedAt
    waiting { reason detail until }
    stopWanted { reason by detail }
    project { id name }
    machine { id name }
    cost { amount currency perHour }
    objective { metric mode value bestValue bestStep }
  }
`);

export type Row = FragmentOf<typeof row>;

export const list = graphql(
  `
    query Simulations($first: Int!, $after: String, $states: [SimulationState!], $project: ID, $machine: ID, $filter: SimulationFilter, $orderBy: SimulationOrder!) {
      simulations(first: $first, after: $after, states: $states, project: $project, machine: $machine, filter: $filter, orderBy: $orderBy) {
        nodes { ...Row }
        pageInfo { hasNextPage endCursor }
        totalCount
      }
    }
  `,
  [row],
);

export const changed = graphql(
  `
    subscription Changed($project: ID) {
      simulationChanged(project: $project) { ...Row }
    }
  `,
  [row],
);

export const glance = graphql(`
  query Glance {
    overview { queued starting running cost { amount currency perHour } }
  }
`);

export type Glance = ResultOf<typeof glance>['overview'];

export const choices = graphql(`
  query Choices {
    projects(first: 500) { nodes { id name } }
  }
`);

export const machineParts = graphql(`
  fragment MachineParts on Machine @_unmask {
    id
    name
    state
    pricePerHour
    currency
    resources { cpus memoryGib gpus gpuModel }
    free { cpus memoryGib gpus }
  }
`);

export type MachineParts = FragmentOf<typeof machineParts>;

export const machines = graphql(
  `
    query MachinesNow {
      machines(first: 100) {
        nodes { ...MachineParts }
        pageInfo { hasNextPage }
      }
    }
  `,
  [machineParts],
);

export const machineChanged = graphql(
  `
    subscription MachinesChanged {
      machineChanged { ...MachineParts }
    }
  `,
  [machineParts],
);

export const demo = graphql(`
  mutation Demo($input: CreateSimulationInput!) {
    createSimulation(input: $input) {
      simulation { id }
      userErrors { message }
    }
  }
`);

/** Of rows whose objective is the same: what has become of them since. */
export const pulses = graphql(`
  query Pulses($ids: [ID!]!, $metric: String!) {
    nodes(ids: $ids) {
      ... on Simulation {
        id
        objective { metric mode value bestValue bestStep }
        convergence(metric: $metric, maxPoints: 60) { steps values }
      }
    }
  }
`);

/** What a row costs in a list, in the server's units, and what a column adds (`metadata` of the fields in graph). */
const ROW_COST = 10;
const COLUMN_COSTS: Readonly<Record<Column['kind'], number>> = { last: 1, best: 1, param: 10 };
const MOST_COST = 9_000;
export const MOST_ROWS = 500; // what the server lets one page have

/** How many rows of these columns one answer may have. */
export function mostRows(columns: readonly Column[], rowCost = ROW_COST): number {
  const cost = columns.reduce((sum, { kind }) => sum + COLUMN_COSTS[kind], rowCost);
  return Math.min(MOST_ROWS, Math.floor(MOST_COST / cost));
}

/** A document whose simulations have the values of columns, too: of each `c` and its number. */
export function withColumns<Document>(document: Document, columns: readonly Column[]): Document {
  if (!columns.length) return document;
  const fields = columns.map(({ kind, name }, at) => `c${at}: ${kind === 'param' ? 'parameter' : 'metric'}(name: ${JSON.stringify(name)})${kind === 'param' ? '' : ' { lastValue bestValue }'}`);
  const added = selectionsOf(parse(`{ ${fields.join(' ')} }`, { noLocation: true }).definitions[0]);
  const { definitions, ...rest } = document as { definitions: readonly Selecting[] };
  return { ...rest, definitions: definitions.map((each) => (each.kind === 'OperationDefinition' ? extended(each, added) : each)) } as Document;
}

interface Selecting {
  kind: string;
  name?: { value: string };
  selectionSet?: { selections: readonly Selecting[] };
}

function selectionsOf(node: unknown): readonly Selecting[] {
  return (node as Selecting).selectionSet!.selections;
}

/** The same with `added` in the selection of `nodes`, within a fragment on Simulation where it has one. */
function extended(node: Selecting, added: readonly Selecting[], inside = false): Selecting {
  const { selectionSet } = node;
  if (!selectionSet) return node;
  const isHere = inside && (node.kind === 'InlineFragment' || !selectionSet.selections.some(({ kind }) => kind === 'InlineFragment'));
  if (isHere) return { ...node, selectionSet: { ...selectionSet, selections: [...selectionSet.selections, ...added] } };
  const selections = selectionSet.selections.map((each) => extended(each, added, inside || node.name?.value === 'nodes' || each.name?.value === 'nodes'));
  return { ...node, selectionSet: { ...selectionSet, selections } };
}

/** The value of a column in an answer to `withColumns`; undefined: it has none. */
export function valueOfColumn(answer: object, { kind }: Column, at: number): unknown {
  const value = (answer as Record<string, unknown>)[`c${at}`];
  if (value === null || value === undefined) return undefined;
  if (kind === 'param') return value;
  return (value as { lastValue: number | null; bestValue: number | null })[kind === 'best' ? 'bestValue' : 'lastValue'];
}
