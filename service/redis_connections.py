"""Connections to the Redis of a local stack, whose password is sent to nobody else that has taken its port."""

from __future__ import annotations

from typing import Any

import redis

from service.loopback import require_ours


class OurConnection(redis.Connection):
    """One to a server of this account, if it is on this machine; to no other anything is said."""

    def on_connect_check_health(self, *arguments: Any, **options: Any) -> None:
        """Begin as any connection does, with the password first.

        Raises:
            redis.ConnectionError: the server is not ours.
        """
        try:
            require_ours(self.host, self.port)
        except ConnectionError as error:
            raise redis.ConnectionError(str(error)) from None
        super().on_connect_check_health(*arguments, **options)


def connection_class(*, same_account: bool) -> type[redis.Connection]:
    """The class of connections to a Redis that is this account's wherever it is on this machine, or to any."""
    return OurConnection if same_account else redis.Connection
