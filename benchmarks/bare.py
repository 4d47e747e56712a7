"""The floor of fanout and memory: a Starlette application that only keeps sockets and sends them a text."""

from __future__ import annotations

import os
from contextlib import suppress

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

sockets: set[WebSocket] = set()
kept = {"text": ""}


async def socket(websocket: WebSocket) -> None:
    await websocket.accept(subprotocol=next(iter(websocket["subprotocols"]), None))
    sockets.add(websocket)
    try:
        with suppress(WebSocketDisconnect):
            while True:
                await websocket.receive_text()
    finally:
        sockets.discard(websocket)


async def text(request: Request) -> Response:
    kept["text"] = (await request.body()).decode()
    return PlainTextResponse("kept")


async def send(_request: Request) -> Response:
    for websocket in tuple(sockets):
        await websocket.send_text(kept["text"])
    return PlainTextResponse("sent")


async def healthz(_request: Request) -> Response:
    return PlainTextResponse("alive")


if __name__ == "__main__":
    uvicorn.run(
        Starlette(
            routes=[
                WebSocketRoute("/socket", socket),
                Route("/text", text, methods=["POST"]),
                Route("/send", send, methods=["POST"]),
                Route("/healthz", healthz),
            ]
        ),
        port=int(os.environ["PORT"]),
        loop="uvloop",
        http="httptools",
        ws="websockets-sansio",
        ws_per_message_deflate=False,
        access_log=False,
        log_config=None,
    )
