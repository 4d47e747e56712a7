/** The tabs of a first visit: operations that work here as they are. */
export interface Example {
  query: string;
  variables?: string;
}

const LIST = `# What waits and runs. To run this: Ctrl-Enter.
# The next tabs submit a demo and watch it.
query Simulations {
  overview { queued starting running cost { amount currency perHour } }
  simulations(first: 10) {
    nodes {
      id
      name
      state
      waiting { reason detail }
      machine { name }
      cost { amount currency }
      metrics { name lastValue bestValue }
    }
  }
}
`;

const SUBMIT = `# A demo that converges within seconds. Put its
# id into the variables of the next tab.
mutation SubmitDemo($input: CreateSimulationInput!) {
  createSimulation(input: $input) {
    simulation { id name state }
    userErrors { code message field }
  }
}
`;

const WATCH = `# All points until now, then each as it comes,
# until the end. To go on after a lost connection:
# add \`after\` with the last cursor.
subscription Watch($id: ID!) {
  convergence(simulationId: $id) {
    cursor
    attempt
    live
    state
    reason
    cost
    series { metric steps values }
  }
}
`;

const NEWEST = '{ simulations(first: 1) { nodes { id } } }';
const PATIENCE_MS = 2_000;

/** The examples; the one that watches has the id of the newest simulation, if there is one that may be seen. */
export async function examples(): Promise<Example[]> {
  const id = (await newest()) ?? 'the id that SubmitDemo answered with';
  return [
    { query: LIST },
    { query: SUBMIT, variables: text({ input: { name: 'demo', entrypoint: ['python', '-m', 'runner.demo'] } }) },
    { query: WATCH, variables: text({ id }) },
  ];
}

async function newest(): Promise<string | undefined> {
  try {
    const response = await fetch('/graphql', {
      method: 'POST',
      headers: { 'content-type': 'application/json', accept: 'application/json' },
      body: JSON.stringify({ query: NEWEST }),
      signal: AbortSignal.timeout(PATIENCE_MS),
    });
    const result = (await response.json()) as { data?: { simulations: { nodes: { id: string }[] } } };
    return result.data?.simulations.nodes[0]?.id;
  } catch {
    return undefined; // GraphiQL itself will say that the server does not answer, or wants a token
  }
}

function text(variables: unknown): string {
  return JSON.stringify(variables, null, 2);
}
