"""Runs first in the programs that tests start: they are listened to as the tests themselves are."""

import wiretap

wiretap.start()
