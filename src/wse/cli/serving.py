"""What `wse serve` runs: a server of a module, its health and its figures."""

from __future__ import annotations

import errno
import importlib
import logging
import ssl
import sys
import traceback
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import click

from ..limits import Limits
from ..server import WseServer
from ..transports.base import Handshake, Page, Refusal, Transport
from ..transports.tcp import Listener, listen
from .terminal import os_error

__all__ = ["enter_listening", "in_url", "load", "serving", "tls_context"]

logger = logging.getLogger("wse.cli")


@asynccontextmanager
async def serving(
    server: WseServer[Any],
    host: str,
    port: int,
    *,
    unix: str | None = None,
    tls: ssl.SSLContext | None = None,
    compression: bool = False,
    drain: float = 0.0,
    metrics_port: int | None = None,
    metrics_host: str = "127.0.0.1",
) -> AsyncIterator[None]:
    """Listen, and say where.

    The health of a server is told where devices come in, so that it is theirs; its figures are
    told elsewhere, since they are nobody else's business.
    """
    pages = {"/healthz": partial(_health, server)}
    async with AsyncExitStack() as stack:
        if metrics_port is not None:
            figures = {**pages, "/metrics": partial(_metrics, server)}
            with _bound(metrics_host, metrics_port):
                metrics = await listen(_NoWebSockets(), metrics_host, metrics_port, pages=figures)
            stack.push_async_callback(metrics.wait_closed)
            stack.callback(metrics.stop)
            click.echo(f"Metrics on http://{in_url(metrics_host)}:{metrics.port}/metrics")
        listening = server.listen(
            host, port, unix=unix, ssl=tls, compression=compression, drain=drain, pages=pages
        )
        with _bound(host, port, unix):
            listener = await stack.enter_async_context(listening)
        if unix is not None:
            click.echo(f"Listening on {unix}")
        else:
            click.echo(f"Listening on {'wss' if tls else 'ws'}://{in_url(host)}:{listener.port}")
        yield


async def enter_listening(
    stack: AsyncExitStack, server: WseServer[Any], **options: Any
) -> Listener:
    """Listen; on a free port where the one that is wanted is taken.

    Raises:
        OSError: the address cannot be bound.
    """
    try:
        return await stack.enter_async_context(server.listen(**options))
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        return await stack.enter_async_context(server.listen(**{**options, "port": 0}))


@contextmanager
def _bound(host: str, port: int, unix: str | None = None) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        place = unix or f"{in_url(host)}:{port}"
        raise click.ClickException(f"cannot listen on {place}: {os_error(error)}") from error


def in_url(host: str) -> str:
    """A host as it stands in a URL."""
    return f"[{host}]" if ":" in host else host


def _health(server: WseServer[Any]) -> Page:
    if server.acceptor.is_shut:
        return Page(body="closing\n", status=503)
    return Page(body="ok\n")


def _metrics(server: WseServer[Any]) -> Page:
    kind = "text/plain; version=0.0.4; charset=utf-8"
    return Page(body=server.stats().prometheus(), content_type=kind)


class _NoWebSockets:
    """An `Acceptor` for pages alone."""

    limits = Limits()

    def vet(self, handshake: Handshake) -> Refusal:
        return Refusal(status=404, text="There is no WebSocket here.")

    def select(self, offered: Sequence[str]) -> None:
        return None

    def open(self, transport: Transport, handshake: Handshake, subprotocol: str | None) -> None:
        raise AssertionError("everything is refused")


def load(target: str) -> WseServer[Any]:
    """The server that `module:attribute` names."""
    module_name, _, path = target.partition(":")
    if not module_name or module_name.startswith("."):
        raise click.UsageError("name the module as Python does: package.module:server")
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        found: Any = importlib.import_module(module_name)
    except Exception as error:
        logger.debug("importing %s failed", module_name, exc_info=error)
        missing = getattr(error, "name", None) if isinstance(error, ModuleNotFoundError) else None
        if missing and f"{module_name}.".startswith(f"{missing}."):
            raise click.ClickException(f"no module named {missing!r}") from error
        raise click.ClickException(
            f"importing {module_name!r} failed: {_exception(error)}"
        ) from error
    name = module_name
    for part in (path or "server").split("."):
        try:
            found = getattr(found, part)
        except AttributeError as error:
            raise click.ClickException(f"{name!r} has no attribute {part!r}") from error
        name = f"{name}.{part}"
    if not isinstance(found, WseServer):
        raise click.ClickException(f"{name!r} is no WseServer, its type is {type(found).__name__}")
    return found


def _exception(error: Exception) -> str:
    """An exception in one line, with the place that raised it."""
    if isinstance(error, SyntaxError):
        file, line, message = error.filename, error.lineno, error.msg
    else:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        file, line, message = frame.filename, frame.lineno, str(error)
    return f"{type(error).__name__}: {' '.join(message.split())} ({file}, line {line})"


def tls_context(cert: str | None, key: str | None) -> ssl.SSLContext | None:
    """The context for a certificate and its key; None without one."""
    if cert is None:
        if key is not None:
            raise click.UsageError("--tls-key wants --tls-cert")
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(cert, key)
    except ssl.SSLError as error:
        what = error.reason or "it is no PEM file with a certificate and its key"
        raise click.ClickException(f"cannot use the certificate {cert!r}: {what}") from error
    except OSError as error:
        raise click.ClickException(
            f"cannot read the certificate {cert!r} or its key: {os_error(error)}"
        ) from error
    return context
