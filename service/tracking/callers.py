"""Who asks. The recorder is known here; everybody else by the API, which is asked with what they brought."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import time
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import httpx

from service.tracking.routes import Holder

TRUST_SECONDS = 3.0
"""So long an answer of the API holds: a token that is revoked is refused so much later."""
ASK_SECONDS = 10.0
REMEMBERED = 1000


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who asks, and what they hold."""

    name: str
    holder: Holder


RECORDER = Visitor("recorder", Holder.RECORDER)


class ApiAway(Exception):
    """The API, which knows the tokens, gives no answer that could be used; the words are for whoever asked."""


class Callers:
    """Knows visitors by what they bring. Holds hashes and answers, no secret longer than a request takes."""

    def __init__(self, api_url: str, recorder_token: str, client: httpx.AsyncClient) -> None:
        self._api = api_url.rstrip("/")
        self._recorder = _digest(recorder_token)
        self._client = client
        self._asked: dict[str, tuple[float, asyncio.Task[Visitor | None]]] = {}

    async def by_token(self, token: str | None) -> Visitor | None:
        """Whose access token it is; None: nobody's. Without one: whoever the API lets in without.

        Raises:
            ApiAway
        """
        digest = _digest(token or "")
        if token and hmac.compare_digest(digest, self._recorder):
            return RECORDER
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return await self._remembered(digest, "/api/v1/whoami", headers)

    async def _remembered(self, key: str, path: str, headers: dict[str, str]) -> Visitor | None:
        """The API's answer, asked once for all who come with the same within a few seconds."""
        now = time.monotonic()
        found = self._asked.get(key)
        if found is None or found[0] < now:
            while len(self._asked) >= REMEMBERED:
                self._asked.pop(next(iter(self._asked)))
            self._asked.pop(key, None)
            found = (now + TRUST_SECONDS, asyncio.ensure_future(self._ask(path, headers)))
            self._asked[key] = found
        # One visitor who leaves does not take the answer from the others.
        return await asyncio.shield(found[1])

    async def _ask(self, path: str, headers: dict[str, str]) -> Visitor | None:
        try:
            answer = await self._client.get(self._api + path, headers=headers, timeout=ASK_SECONDS)
            if answer.status_code == httpx.codes.UNAUTHORIZED:
                return None
            if answer.status_code == httpx.codes.OK:
                said: dict[str, Any] = answer.json()
                return Visitor(str(said["name"]), Holder(said["role"]))
        except (httpx.HTTPError, ValueError, KeyError) as error:
            raise ApiAway(f"the API at {self._api}, which knows the tokens, does not answer: {error!r}") from error
        raise ApiAway(f"the API at {self._api}, which knows the tokens, answers {answer.status_code}; try again soon")


def token_in(authorization: str | None) -> str | None:
    """The token in a header `Authorization`, as Bearer or as the password of Basic; None: there is none."""
    scheme, _, rest = (authorization or "").strip().partition(" ")
    rest = rest.strip()
    if scheme.lower() == "bearer":
        return rest or None
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(rest, validate=True).decode().partition(":")[2] or None
        except (binascii.Error, UnicodeDecodeError):
            return None
    return None


def _digest(secret: str) -> str:
    return sha256(secret.encode()).hexdigest()
