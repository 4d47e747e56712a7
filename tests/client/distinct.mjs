// node distinct.mjs URL SIMULATION_ID: every event of the subscription as graphql-sse gets it, as a line of JSON.
import { createClient } from "graphql-sse";

const [url, simulationId] = process.argv.slice(2);
const client = createClient({ url, singleConnection: false, retryAttempts: 0 });
const subscription = client.iterate({
  query: `subscription Curve($simulationId: ID!) {
    convergence(simulationId: $simulationId) { cursor state series { metric steps } }
  }`,
  variables: { simulationId },
});
for await (const result of subscription) {
  console.log(JSON.stringify(result));
}
