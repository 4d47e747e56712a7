"""Connections as bytes: subclasses and overrides of uvicorn and websockets. Imports nothing else of graph.

http        HTTP connections: requests that are never finished, answers that are never read
websocket   WebSocket connections: peers that read nothing, floods of frames, frames written past the layers above
unix_user   the Unix user at the other end of a loopback connection
proxies     the client's address and scheme, as a trusted proxy forwards them
"""
