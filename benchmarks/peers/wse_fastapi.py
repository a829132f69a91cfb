"""wse inside FastAPI on uvicorn."""

from __future__ import annotations

from fastapi import FastAPI
from starlette.routing import WebSocketRoute

from .common import serve_asgi
from .wse import make_server

if __name__ == "__main__":
    server = make_server()
    app = FastAPI(lifespan=server.lifespan)
    app.router.routes.append(WebSocketRoute("/", server.asgi()))
    serve_asgi(app)
