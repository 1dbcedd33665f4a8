"""How many refused tokens each address has sent lately, and how long it has to wait before another one is looked at.

Nobody guesses a token of 32 random bytes, but one may be of an admin's own making, and each one that is looked up costs
the run database a query and the log a line.
"""

from __future__ import annotations

import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable

BURST = 20
"""Refused tokens that an address may send at once; after that it is one a second."""
MOST = 10_000
"""Addresses that are remembered; the least recent ones are forgotten first."""


class Refusals:
    """A bucket of BURST for each address, which one a second flows back into.

    Nothing waits in here, and nobody is held a connection for: who has to wait is told how long.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, *, burst: float = BURST) -> None:
        self.clock = clock
        self._burst = burst
        self._spent: OrderedDict[str, tuple[float, float]] = OrderedDict()  # address -> (taken, when)

    def take(self, address: str) -> float:
        """Seconds until a token of this address is looked at; 0.0: now, and the bucket has one less.

        It is taken before the token is looked at: of many that come at once none hides behind the others.
        """
        taken = self._taken(address)
        if taken + 1 > self._burst:
            return taken + 1 - self._burst
        self._put(address, taken + 1)
        return 0.0

    def give_back(self, address: str) -> None:
        """What was taken was for a good token, or for one that could not be looked up."""
        if taken := self._taken(address):
            self._put(address, max(0.0, taken - 1))

    def _taken(self, address: str) -> float:
        now = self.clock()
        taken, at = self._spent.get(_whose(address), (0.0, now))
        return max(0.0, taken - (now - at))

    def _put(self, address: str, taken: float) -> None:
        self._spent[_whose(address)] = (taken, self.clock())
        self._spent.move_to_end(_whose(address))
        if len(self._spent) > MOST:
            self._spent.popitem(last=False)


def _whose(address: str) -> str:
    """What counts as one address: of IPv6 the network of 64 bits, all of which one machine has."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address[:100]
    return str(found) if found.version == 4 else str(ipaddress.ip_network((found, 64), strict=False))
