"""Endpoints and protocols: GraphQL over HTTP, WebSocket and SSE, sessions, dashboard files, health, metrics."""
