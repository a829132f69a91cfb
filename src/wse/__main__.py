"""`python -m wse` is `wse`."""

from __future__ import annotations

from .cli import main

main(prog_name="wse")
