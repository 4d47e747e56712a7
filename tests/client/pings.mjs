// node pings.mjs WS_URL SIMULATION_ID: watch a curve; print a line of JSON for each ping, pong and event, and for the
// end of the socket its code and whether graphql-ws takes it for fatal, which means that it would not come back.
import { createClient } from "graphql-ws";
import WebSocket from "ws";

const [url, simulationId] = process.argv.slice(2);
const print = (line) => console.log(JSON.stringify(line));
let closed;
let again = false;
const client = createClient({
  url,
  webSocketImpl: WebSocket,
  retryAttempts: 1,
  shouldRetry: () => {
    again = true; // asked only if the code is not fatal
    return false;
  },
  on: {
    ping: (received) => received && print({ saw: "ping" }),
    pong: (received) => received || print({ saw: "pong" }),
    closed: (event) => (closed = event.code),
  },
});
client.subscribe(
  {
    query: "subscription ($id: ID!) { convergence(simulationId: $id) { cursor } }",
    variables: { id: simulationId },
  },
  {
    next: () => print({ saw: "next" }),
    error: () => print({ closed, fatal: !again }),
    complete: () => print({ closed: null, fatal: false }),
  },
);
