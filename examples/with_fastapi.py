"""Users and devices beside the routes of a FastAPI application: `uvicorn with_fastapi:app`."""

from __future__ import annotations

from fastapi import FastAPI
from starlette.routing import Route, WebSocketRoute

from wse import Attempt, Decision, WseConnection, WseServer


async def identify(attempt: Attempt) -> Decision:
    """Ask what the application has: here a table of tokens in its state."""
    tokens = attempt.context["app"].state.tokens
    return attempt.accept(tokens.get(attempt.identity))


server = WseServer(identify, conn_per_user=3)
app = FastAPI(lifespan=server.lifespan)
live = server.asgi()
app.router.routes += [WebSocketRoute("/ws", live), Route("/ws", live)]
app.state.tokens = {"key-of-alice": "alice", "key-of-bob": "bob"}


@server.channel.on("typing")
def typing(conn: WseConnection, room: str) -> None:
    """Tell everybody but the device that types."""
    server.broadcast("typing", {"who": conn.cid, "room": room}, but=conn)


@app.post("/orders/{number}/paid")
def paid(number: int, who: str) -> dict[str, bool]:
    """Tell every device of a user; from a thread, as FastAPI runs plain functions."""
    server.send(who, "paid", {"order": number})
    return {"online": who in server.clients}


@app.get("/users/{who}/devices")
async def devices(who: str) -> list[str]:
    """List the devices of a user."""
    client = server.clients.get(who)
    return list(client.conns) if client else []


@app.delete("/users/{who}")
async def sign_out(who: str) -> None:
    """Send away all devices of a user."""
    server.drop_client(who, "signed out")
