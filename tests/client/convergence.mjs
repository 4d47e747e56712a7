// node convergence.mjs WS_URL SIMULATION_ID [AFTER]: print every event of the subscription as a line of JSON.
import { createClient } from "graphql-ws";
import WebSocket from "ws";

const [url, simulationId, after] = process.argv.slice(2);
const client = createClient({ url, webSocketImpl: WebSocket, retryAttempts: 0 });
const subscription = client.iterate({
  query: `subscription Curve($simulationId: ID!, $after: String) {
    convergence(simulationId: $simulationId, after: $after) {
      cursor attempt live state reason series { metric steps values elapsed supersedesFrom }
    }
  }`,
  variables: { simulationId, after: after ?? null },
});
for await (const result of subscription) {
  if (result.errors) {
    console.error(JSON.stringify(result.errors));
    process.exit(1);
  }
  console.log(JSON.stringify(result.data.convergence));
}
await client.dispose();
