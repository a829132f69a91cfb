"""Users and devices beside the routes of an aiohttp application: `python with_aiohttp.py`."""

from __future__ import annotations

from aiohttp import web

from wse import Attempt, Decision, WseConnection, WseServer

TOKENS = web.AppKey("TOKENS", dict[str, str])


def identify(attempt: Attempt) -> Decision:
    """Ask what the application has."""
    return attempt.accept(attempt.context.app[TOKENS].get(attempt.identity))


server = WseServer(identify, conn_per_user=3)


@server.register("where")
def where(conn: WseConnection, _: None) -> str:
    """The request of the connection is at hand everywhere."""
    return str(conn.context.rel_url)


async def paid(request: web.Request) -> web.Response:
    """Tell every device of a user."""
    server.send(request.match_info["who"], "paid", await request.json())
    return web.json_response({"online": request.match_info["who"] in server.clients})


def make_app() -> web.Application:
    app = web.Application()
    app[TOKENS] = {"key-of-alice": "alice", "key-of-bob": "bob"}
    app.router.add_get("/ws", server.aiohttp_handler())
    app.router.add_post("/users/{who}/paid", paid)
    app.on_shutdown.append(lambda _: server.close())
    return app


if __name__ == "__main__":
    web.run_app(make_app(), port=8000)
