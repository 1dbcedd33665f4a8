"""Who sends tokens that are refused, how often, and how long the next one of the address has to wait.

Nobody guesses a token of 32 random bytes, but one may be of an admin's own making, and each one that is looked up costs
the run database a query and the log a line.
"""

from __future__ import annotations

import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

BURST = 20
"""Refused tokens that an address may send at once; after that it is one a second."""
KEPT_SECONDS = 600.0
"""A token that was accepted is not held up for so long, whatever else its address sends: a proxy's is everybody's."""
MOST = 10_000
"""Addresses, and tokens, that are remembered; the least recent ones are forgotten first."""


class Refusals:
    """A bucket of BURST for each address, which one a second flows back into. Keeps hashes of tokens, and no token.

    Nothing waits in here, and nobody is held a connection for: who has to wait is told how long.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, *, burst: float = BURST) -> None:
        self._clock = clock
        self._burst = burst
        self._spent: OrderedDict[str, tuple[float, float]] = OrderedDict()  # address -> (taken, when)
        self._good: OrderedDict[str, float] = OrderedDict()  # hash of a token -> when it was accepted last

    def take(self, address: str, digest: str) -> float:
        """Seconds until a token of this address is looked at; 0.0: now, and the bucket has one less until `accepted`.

        One at a time is taken before it is looked at: of many that come at once the first ones do not hide the rest.
        """
        now = self._clock()
        if now - self._good.get(digest, float("-inf")) < KEPT_SECONDS:
            return 0.0
        taken = self._taken(address, now)
        if taken + 1 > self._burst:
            return taken + 1 - self._burst
        self._put(self._spent, _whose(address), (taken + 1, now))
        return 0.0

    def accepted(self, address: str, digest: str) -> None:
        """The token was good: the bucket is as it was before."""
        now = self._clock()
        if digest not in self._good:
            self.excused(address)
        self._put(self._good, digest, now)

    def excused(self, address: str) -> None:
        """Whether the token was good could not be found out."""
        now = self._clock()
        if taken := self._taken(address, now):
            self._put(self._spent, _whose(address), (max(0.0, taken - 1), now))

    def refused(self, digest: str) -> None:
        """The token is not good, or no longer: it is held up from now on."""
        self._good.pop(digest, None)

    def _taken(self, address: str, now: float) -> float:
        taken, at = self._spent.get(_whose(address), (0.0, now))
        return max(0.0, taken - (now - at))

    @staticmethod
    def _put(where: OrderedDict[str, Any], key: str, value: Any) -> None:
        where[key] = value
        where.move_to_end(key)
        if len(where) > MOST:
            where.popitem(last=False)


def _whose(address: str) -> str:
    """What counts as one address: of IPv6 the network of 64 bits, all of which one machine has."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address[:100]
    return str(found) if found.version == 4 else str(ipaddress.ip_network((found, 64), strict=False))
