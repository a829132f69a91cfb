"""Whether this process is one of several that serve side by side."""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Mapping, Sequence
from functools import cache

__all__ = ["count_workers", "warn_of_workers"]

logger = logging.getLogger("wse.server")

_option = re.compile(r"(?:--workers|-w)=?(\d+)?")
_SERVERS = ("uvicorn", "gunicorn", "hypercorn", "granian", "fastapi")


def count_workers(environ: Mapping[str, str], argv: Sequence[str]) -> int:
    """How many processes the command line or `WEB_CONCURRENCY` asks a web server for; 1 if none.

    Args:
        environ: The environment.
        argv: The command line; of a program that is no known web server it says nothing.
    """
    if argv and any(name in argv[0] for name in _SERVERS):
        for position, argument in enumerate(argv):
            found = _option.fullmatch(argument)
            if found:
                number = found[1] or next(iter(argv[position + 1 :]), "")
                if number.isdecimal():
                    return int(number)
    asked = environ.get("WEB_CONCURRENCY", "")
    return int(asked) if asked.isdecimal() else 1


@cache
def warn_of_workers() -> None:
    """Say it, once, where users of several processes do not hear of each other."""
    workers = count_workers(os.environ, sys.argv)
    if workers > 1:
        logger.warning(
            "one of %d workers, and each has users of its own: what one sends reaches only those "
            "who are connected to the same; run one worker",
            workers,
        )
