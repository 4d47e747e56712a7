"""Connections as bytes: subclasses and overrides of uvicorn and websockets."""
