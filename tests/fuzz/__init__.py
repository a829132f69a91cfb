"""A hostile world: what peers may send, played by the thousand against both sides.

`hostile` makes it up, `readings` says what it means, and each scene plays it at one entrance of the
library: `server`, `client` and `frames`. `python -m fuzz` plays them all for long.
"""
