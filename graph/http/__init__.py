"""Endpoints and protocols: everything that answers an HTTP request or speaks on a WebSocket.

endpoint            /graphql: queries and mutations over HTTP, and dispatch to the other transports
protocol            GraphQL over HTTP to the letter: bodies, media types, refusals
decoding            JSON of clients: parsed at once, unless that would hold the event loop
sse                 subscriptions as server-sent events
websocket           subscriptions over graphql-transport-ws: limits, pings, close codes
admission           limit on open WebSockets per client
session             /session: sign in with a token, sign out
dashboard_files     the dashboard's pages and GraphiQL, as `web/` built them
health              /healthz and /readyz
attempt_files       /files/... for supervisors: checkpoints and outputs into the store, and out of it
file_download       /files/SIMULATION/KIND/RANK/PATH: one stored file
packages            /packages: uploads of packages of code; /files/SIMULATION/package: their download
metrics_endpoint    /metrics, for Prometheus
origin_check        allowed Host and Origin headers
headers             security headers of every response
request_id          X-Request-ID, and the duration of each request
shutdown            ends open streams before the process ends
"""
