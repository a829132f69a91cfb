"""What is alive, and who holds it: a test of what is left behind counts here."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

from wse import WseClient, WseConnection, WseIdentity, WseServer
from wse.hub import Hub
from wse.link import Link
from wse.transports.memory import MemoryTransport

KINDS = (WseConnection, WseIdentity, Link, MemoryTransport)


@contextmanager
def counted() -> Iterator[None]:
    """For a test that counts. Logs are off: their records keep alive what they name."""
    logging.disable()
    try:
        yield
    finally:
        gc.unfreeze()
        logging.disable(logging.NOTSET)


def count_from_here() -> None:
    """Count nothing that is there already; it also makes counting fast."""
    gc.collect()
    gc.freeze()


def alive() -> Counter[type]:
    """How many connections, users, links and transports are in memory, whoever holds them."""
    gc.collect()
    return Counter(type(one) for one in gc.get_objects() if type(one) in KINDS)


def timers(
    loop: asyncio.AbstractEventLoop, server: WseServer[Any], clients: Collection[WseClient]
) -> int:
    """How many timers wait to be due, but for the one that each connection has for its calls."""
    waiting = sum(not handle.cancelled() for handle in loop._scheduled)  # type: ignore[attr-defined]
    calls = [end._calls for end in (*_ends(server), *_links(clients))]
    assert all(one._timer is not None for one in calls if len(one))
    return waiting - sum(one._timer is not None for one in calls)


def _ends(server: WseServer[Any]) -> list[WseConnection[Any]]:
    return [*server.acceptor.strangers, *server.clients.conns.values()]


def _links(clients: Collection[WseClient]) -> list[Link]:
    return [client._link for client in clients if client._link is not None]


def held(server: WseServer[Any], clients: Collection[WseClient]) -> Counter[str]:
    """How much a server and its clients remember, of each kind."""
    hubs: list[Hub] = [server._hub, *(client._hub for client in clients)]
    emitters = [server._emitter, *(client._emitter for client in clients)]
    ends, links = _ends(server), _links(clients)
    return +Counter(
        {
            "users": len(server.clients),
            "strangers": len(server.acceptor.strangers),
            "devices": len(server.clients.conns),
            "seats": sum(len(client.conns) for client in server.clients.values()),
            "links": len(links),
            "attempts": sum(client._work is not None for client in clients),
            "calls": sum(len(end._calls) for end in (*ends, *links)),
            "handlers": sum(len(end._desk._tasks or ()) for end in (*ends, *links)),
            "messages": sum(len(end._desk) for end in (*ends, *links)),
            "tasks": sum(
                map(
                    len,
                    [
                        *(hub.tasks for hub in hubs),
                        *(emitter.tasks for emitter in emitters),
                        *(client._leaving for client in clients),
                    ],
                )
            ),
            "writes": sum(len(hub.flusher._waiting) for hub in hubs if hub.loop is not None),
        }
    )
