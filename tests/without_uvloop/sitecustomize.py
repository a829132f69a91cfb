"""On the path of a program, lets it run on asyncio's own loop."""

import sys

sys.modules["uvloop"] = None  # type: ignore[assignment]
