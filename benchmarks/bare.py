"""Floor server of fanout, memory and latency: Starlette and asyncpg without GraphQL or other layers.

    /socket            keeps a WebSocket open; POST /text sets a text, POST /send sends it to each, one by one
    /follow/ID         a WebSocket that gets every batch of a simulation as JSON
    POST /report       a batch as JSON: the guarded update of the attempt's row and the columnar rows in one
                       transaction, then the followers in this process are woken

The settings of uvicorn are the service's own (graph/server.py).
"""

from __future__ import annotations

import asyncio
import os
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import asyncpg
import orjson
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from benchmarks.floor import STORE

POOL_SIZE = 10  # the service's own
ACCEPT = """
    UPDATE members SET next_batch = members.next_batch + 1, heartbeat_at = now() FROM attempts
    WHERE attempts.id = $1 AND attempt_id = attempts.id AND members.ended_at IS NULL AND members.next_batch = $2
    RETURNING simulation_id, number
"""

sockets: set[WebSocket] = set()
kept = {"text": ""}
followers: defaultdict[int, set[asyncio.Queue[str]]] = defaultdict(set)


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


async def follow(websocket: WebSocket) -> None:
    await websocket.accept()
    news: asyncio.Queue[str] = asyncio.Queue()
    simulation_id = int(websocket.path_params["id"])
    followers[simulation_id].add(news)
    try:
        with suppress(WebSocketDisconnect, asyncio.CancelledError):  # at shutdown the disconnect is not awaited
            while True:
                await websocket.send_text(await news.get())
    finally:
        followers[simulation_id].discard(news)


async def report(request: Request) -> Response:
    given = orjson.loads(await request.body())
    batch, points = given["batch"], given["points"]
    async with request.state.pool.acquire() as connection, connection.transaction():
        row = await connection.fetchrow(ACCEPT, given["attempt"], batch)
        if row is None:
            return PlainTextResponse("not the next batch", 409)
        await connection.executemany(
            STORE,
            [
                (row["simulation_id"], row["number"], batch, metric, each["steps"], each["values"], each["elapsed"])
                for metric, each in points.items()
            ],
        )
    event = {
        "cursor": f"{row['number']}-{batch}",
        "attempt": row["number"],
        "series": [{"metric": metric, **each} for metric, each in points.items()],
    }
    encoded = orjson.dumps(event).decode()
    for news in followers[row["simulation_id"]]:
        news.put_nowait(encoded)
    return PlainTextResponse("stored")


async def healthz(_request: Request) -> Response:
    return PlainTextResponse("alive")


@asynccontextmanager
async def lifespan(_app: Starlette) -> AsyncIterator[dict[str, object]]:
    url = os.environ.get("DATABASE_URL")
    if url is None:
        yield {}
        return
    async with asyncpg.create_pool(url, min_size=POOL_SIZE, max_size=POOL_SIZE) as pool:
        yield {"pool": pool}


if __name__ == "__main__":
    uvicorn.run(
        Starlette(
            lifespan=lifespan,
            routes=[
                WebSocketRoute("/socket", socket),
                WebSocketRoute("/follow/{id}", follow),
                Route("/text", text, methods=["POST"]),
                Route("/send", send, methods=["POST"]),
                Route("/report", report, methods=["POST"]),
                Route("/healthz", healthz),
            ],
        ),
        port=int(os.environ["PORT"]),
        loop="uvloop",
        http="httptools",
        ws="websockets-sansio",
        ws_per_message_deflate=False,
        ws_max_size=1_048_576,
        ws_ping_interval=None,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=3,
        access_log=False,
        log_config=None,
        server_header=False,
    )
