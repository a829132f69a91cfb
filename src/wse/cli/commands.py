"""The commands: `wse demo`, `wse serve`, `wse connect`."""

from __future__ import annotations

import asyncio
import logging
import re
import sys
from collections.abc import Coroutine
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

import click

from .. import runner
from ..auth import hmac_solver
from ..errors import ConnectError, WseError
from .demo import play
from .meeting import meet
from .serving import load, serving, tls_context
from .story import StoryFailed
from .talk import TYPED, Talk, connect_error
from .terminal import Terminal, fall_back_to_ascii, os_error, parsed, shown

__all__ = ["main"]

T = TypeVar("T")

logger = logging.getLogger("wse.cli")

PORT = click.IntRange(0, 65535)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="wse")
def main() -> None:
    """Users and their devices over WebSocket."""
    fall_back_to_ascii()


def _run(work: Coroutine[Any, Any, T]) -> T | None:
    """Run until the work ends, or until SIGINT or SIGTERM cancels it: then None."""

    async def run() -> T | None:
        working = asyncio.create_task(work)
        signalled = asyncio.create_task(runner.signalled())
        signalled.add_done_callback(lambda _: working.cancel())
        with suppress(asyncio.CancelledError):
            return await working
        return None

    with suppress(KeyboardInterrupt):
        return runner.run(run())
    return None


# -- demo --------------------------------------------------------------------------------------


@main.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to bind.")
@click.option("--port", type=PORT, default=4200, show_default=True, help="A free one if taken.")
@click.option("--terminal", is_flag=True, help="Tell a story in the terminal instead.")
@click.option("--once", is_flag=True, envvar="ONCE", show_envvar=True, help="That, and then end.")
def demo(host: str, port: int, terminal: bool, once: bool) -> None:
    """Serve a page on which people with several devices meet, until Ctrl-C.

    With --terminal, tell the story of a server and its users, then stay up to talk to.
    """
    try:
        if terminal or once:
            _run(play(Terminal(), port=port, once=once))
        else:
            _run(meet(Terminal(), host, port))
    except (StoryFailed, WseError) as error:
        raise click.ClickException(f"The demo failed: {error}") from error
    except OSError as error:
        raise click.ClickException(f"cannot listen on port {port}: {os_error(error)}") from error


# -- serve -------------------------------------------------------------------------------------


@main.command()
@click.argument("target", metavar="MODULE[:SERVER]")
@click.option("--host", help="The address to bind.  [default: 127.0.0.1]")
@click.option("--port", type=PORT, help="0 takes a free one.  [default: 4200]")
@click.option("--unix", metavar="PATH", help="A Unix socket, instead of host and port.")
@click.option("--tls-cert", type=click.Path(), help="Serve TLS: the certificate chain, as PEM.")
@click.option("--tls-key", type=click.Path(), help="Its private key, unless it is in the chain.")
@click.option("--compression", is_flag=True, help="Agree to permessage-deflate.")
@click.option(
    "--drain",
    metavar="SECONDS",
    type=click.FloatRange(0),
    default=5.0,
    show_default=True,
    help="Time over which SIGTERM sends devices away.",
)
@click.option("--dev", is_flag=True, help="Let pages of localhost connect, whatever their port.")
@click.option("--metrics-port", type=PORT, help="Serve figures for Prometheus there, at /metrics.")
@click.option(
    "--metrics-host", default="127.0.0.1", show_default=True, help="The address to bind for that."
)
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"], case_sensitive=False),
    default="info",
    show_default=True,
)
def serve(
    *,
    target: str,
    host: str | None,
    port: int | None,
    unix: str | None,
    tls_cert: str | None,
    tls_key: str | None,
    compression: bool,
    drain: float,
    dev: bool,
    metrics_port: int | None,
    metrics_host: str,
    log_level: str,
) -> None:
    """Run the server that a module makes, until SIGINT or SIGTERM.

    MODULE is imported from the current directory or the Python path; SERVER is its attribute, with
    dots if need be, and "server" unless said. A plain GET of /healthz is answered with status 200.
    """
    logging.basicConfig(
        level=log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    if unix is not None and (host is not None or port is not None):
        raise click.UsageError("--unix stands instead of --host and --port")
    server = load(target)
    if dev:
        server.acceptor.origins.localhost = True
    context = serving(
        server,
        "127.0.0.1" if host is None else host,
        4200 if port is None else port,
        unix=unix,
        tls=tls_context(tls_cert, tls_key),
        compression=compression,
        drain=drain,
        metrics_port=metrics_port,
        metrics_host=metrics_host,
    )
    runner.run_until_signal(context, entered=lambda: None, hurry=server.close)


# -- connect -----------------------------------------------------------------------------------

_HEADER = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\r\n]*)")


def _json(_: click.Context, __: click.Parameter, value: str) -> Any:
    try:
        return parsed(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


def _headers(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    headers = {}
    for value in values:
        header = _HEADER.fullmatch(value)
        if header is None:
            raise click.BadParameter(f"no 'Name: value': {value!r}")
        headers[header[1]] = header[2]
    return headers


@main.command(epilog=f"\b\nTyped lines:\n{TYPED}")
@click.argument("url")
@click.option(
    "--identity", required=True, envvar="WSE_IDENTITY", show_envvar=True, help="Who you are: text."
)
@click.option("--json-identity", is_flag=True, help="The identity is JSON.")
@click.option(
    "--meta",
    metavar="JSON",
    default="{}",
    callback=_json,
    help="About the device.",
    show_default=True,
)
@click.option("--key", envvar="WSE_KEY", show_envvar=True, help="To answer an HMAC challenge with.")
@click.option("--reconnect", is_flag=True, help="Come back when the connection is lost.")
@click.option(
    "--header",
    "headers",
    metavar="'NAME: VALUE'",
    multiple=True,
    callback=_headers,
    help="Of the HTTP upgrade; may be repeated.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(0, min_open=True),
    default=30.0,
    show_default=True,
    help="Seconds to connect, and for each call.",
)
@click.option(
    "--unix", metavar="PATH", help="A Unix socket to connect to, whatever the URL's host."
)
def connect(
    *,
    url: str,
    identity: Any,
    json_identity: bool,
    meta: Any,
    key: str | None,
    reconnect: bool,
    headers: dict[str, str],
    timeout: float,
    unix: str | None,
) -> None:
    """Talk to a server of Python or JavaScript, line by line.

    Prints what arrives. A payload is JSON, and null when there is none; text wants quotes.

    Lines from a pipe are obeyed one after the other, each call once the one before it is answered;
    then the program ends. Its status is 1 when it cannot connect, when it is refused or sent away,
    and when a line from a pipe fails.
    """
    if json_identity:
        try:
            identity = parsed(identity)
        except ValueError as error:  # which quotes it, and it may come from the environment
            raise click.BadParameter("no JSON", param_hint="--identity") from error
    interactive = sys.stdin is not None and sys.stdin.isatty()
    try:
        talk = Talk(
            Terminal(),
            url,
            interactive=interactive,
            timeout=timeout,
            reconnect=reconnect,
            headers=headers,
            unix=unix,
        )
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="URL") from error
    if key is not None:
        talk.client.challenge(partial(_solve, key))
    try:
        succeeded = _run(talk.run(identity, meta))
    except ConnectError as error:
        raise click.ClickException(connect_error(error)) from error
    if succeeded is False:
        sys.exit(1)


def _solve(key: str, quest: Any) -> str:
    if not isinstance(quest, dict) or not isinstance(quest.get("nonce"), str):
        raise click.ClickException(f"this challenge is not one for --key: {shown(quest)}")
    return hmac_solver(key)(quest)
