// node audit.mjs URL: the audits of GraphQL over HTTP by graphql-http, each as a line of JSON.
import { auditServer } from "graphql-http";

for (const result of await auditServer({ url: process.argv[2] })) {
  const { id, name, status, reason } = result;
  console.log(JSON.stringify({ id, name, status, reason }));
}
