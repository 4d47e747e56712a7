// node events.mjs ADDRESS: what an EventSource gets from there until it stays closed, each as a line of JSON.
import { EventSource } from "eventsource";

const source = new EventSource(process.argv[2]);
source.addEventListener("next", ({ data, lastEventId }) => {
  console.log(JSON.stringify({ next: JSON.parse(data), lastEventId }));
});
source.addEventListener("complete", ({ data, lastEventId }) => {
  console.log(JSON.stringify({ complete: data, lastEventId }));
});
source.addEventListener("open", () => console.log(JSON.stringify({ open: true })));
source.addEventListener("error", ({ code }) => {
  const isClosed = source.readyState === EventSource.CLOSED;
  console.log(JSON.stringify({ error: code ?? null, isClosed }));
});
