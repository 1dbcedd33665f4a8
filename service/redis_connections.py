"""Connections to the Redis of a local stack, whose password is sent to nobody else that has taken its port."""

from __future__ import annotations

from typing import Any

import redis

from service.loopback import require_connected_to_ours


class OurConnection(redis.Connection):
    """One to a server of this account, if it is on this machine; to no other anything is said."""

    def on_connect_check_health(self, *arguments: Any, **options: Any) -> None:
        """Begin as any connection does, with the password first.

        Raises:
            redis.ConnectionError: the server is not ours.
        """
        connected: Any = self._sock
        try:
            require_connected_to_ours(connected)
        except ConnectionError as error:
            raise redis.ConnectionError(str(error)) from None
        super().on_connect_check_health(*arguments, **options)


def connection_class(*, same_account: bool) -> type[redis.Connection]:
    """The class of plain connections (redis://) to a Redis that is this account's wherever it is on this machine, or to
    any. Those of other schemes have classes of their own, which do TLS, for one."""
    return OurConnection if same_account else redis.Connection
