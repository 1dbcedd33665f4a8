"""Who asks. The recorder is known here; everybody else by the API, which is asked with what they brought."""

from __future__ import annotations

import asyncio
import base64
import hmac
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, TypeVar

import httpx

from service.tracking.admin_actions import Act
from service.tracking.routes import Holder

Answer = TypeVar("Answer")
TRUST_SECONDS = 3.0
"""So long an answer of the API holds: a token that is revoked is refused so much later."""
ASK_SECONDS = 10.0
REMEMBERED = 1000
_TOKEN = re.compile(r"[\x21-\x7e]{1,4096}")
"""What may be one; nothing else is sent on, as no header holds it or the API takes no head of such a length."""
SERVICE = "mlflow"
"""What a browser's session has to be for."""


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who asks, and what they hold."""

    name: str
    holder: Holder


@dataclass(frozen=True, slots=True)
class NewSession:
    """A browser's session: what its cookie holds, where its link leads, and how many seconds it lasts at most."""

    secret: str
    path: str
    seconds: int


RECORDER = Visitor("recorder", Holder.RECORDER)


class ApiAway(Exception):
    """The API, which knows the tokens, gives no answer that could be used; the words are for whoever asked."""

    status = 503
    retry_after = "5"
    """Seconds."""


class TooManyRefused(ApiAway):
    """The API looks at few tokens for a while: too many that came by here were refused."""

    status = 429

    def __init__(self, retry_after: str) -> None:
        super().__init__(f"too many tokens were refused; send a good one in {retry_after} s")
        self.retry_after = retry_after


class Callers:
    """Knows visitors by what they bring. Holds hashes and answers, no secret longer than a request takes."""

    def __init__(self, api_url: str, recorder_token: str, client: httpx.AsyncClient) -> None:
        self._api = api_url.rstrip("/")
        self._recorder = _digest(recorder_token)
        self._client = client
        self._asked: dict[str, tuple[float, asyncio.Task[Visitor | None]]] = {}

    async def by_session(self, secret: str) -> Visitor | None:
        """Whose session of a browser it is; None: nobody's, or it has ended.

        Raises:
            ApiAway
        """
        return await self._remembered("session " + _digest(secret), "/api/v1/sessions/current", _bearer(secret))

    async def target(self, code: str) -> tuple[str, bool] | None:
        """Where a link leads, and whether its code can still be redeemed; None: there is no such code.

        Raises:
            ApiAway
        """
        return await self._ask("GET", "/api/v1/entries/current", _bearer(code), _target_in)

    async def redeem(self, code: str) -> NewSession | None:
        """The session for a code; None: it is not good, or not any more.

        Raises:
            ApiAway
        """
        return await self._ask("POST", "/api/v1/sessions", _bearer(code), _session_in)

    async def end(self, secret: str) -> None:
        """End a session, if it is one.

        Raises:
            ApiAway
        """
        await self._ask("DELETE", "/api/v1/sessions/current", _bearer(secret), bool)
        self._asked.pop("session " + _digest(secret), None)

    async def write_down(self, act: Act, address: str, *, token: str | None = None, session: str | None = None) -> bool:
        """Have an act written into the audit trail, as that of whoever holds the token or the session; with neither of
        whoever the API lets in without. False: that counts no more.

        Raises:
            ApiAway: it is not written.
        """
        path = "/api/v1/audit" if session is None else "/api/v1/sessions/current/audit"
        secret = session or token
        said = {"action": act.action, "subject": act.subject, "asked": act.request, "client": address}
        return await self._ask("POST", path, _bearer(secret) if secret else {}, bool, said) is not None

    async def by_token(self, token: str | None) -> Visitor | None:
        """Whose access token it is; None: nobody's. Without one: whoever the API lets in without.

        Raises:
            ApiAway
        """
        digest = _digest(token or "")
        if token and hmac.compare_digest(digest, self._recorder):
            return RECORDER
        return await self._remembered(digest, "/api/v1/whoami", _bearer(token) if token else {})

    async def _remembered(self, key: str, path: str, headers: dict[str, str]) -> Visitor | None:
        """The API's answer, asked once for all who come with the same within a few seconds."""
        now = time.monotonic()
        found = self._asked.get(key)
        if found is None or found[0] < now:
            while len(self._asked) >= REMEMBERED:
                self._asked.pop(next(iter(self._asked)))
            self._asked.pop(key, None)
            found = (now + TRUST_SECONDS, asyncio.ensure_future(self._visitor(path, headers)))
            self._asked[key] = found
        # One visitor who leaves does not take the answer from the others.
        return await asyncio.shield(found[1])

    async def _visitor(self, path: str, headers: dict[str, str]) -> Visitor | None:
        return await self._ask("GET", path, headers, _visitor_in)

    async def _ask(
        self,
        method: str,
        path: str,
        headers: dict[str, str],
        read: Callable[[Any], Answer | None],
        query: dict[str, str] | None = None,
    ) -> Answer | None:
        """What `read` makes of the API's answer; None: it knows nobody who brings that."""
        try:
            answer = await self._client.request(
                method, self._api + path, headers=headers, params=query, timeout=ASK_SECONDS
            )
            if answer.status_code == httpx.codes.UNAUTHORIZED:
                return None
            if answer.is_success:
                return read(answer.json() if answer.content else {})
        except httpx.HTTPError as error:
            raise ApiAway(f"the API at {self._api}, which knows the tokens, does not answer: {error!r}") from error
        except (ValueError, LookupError, TypeError) as error:
            raise ApiAway(
                f"what answers at {self._api} is not the Barlow Lab API, which knows the tokens ({error!r}); "
                "BARLOW_API_URL names its address"
            ) from error
        if answer.status_code == httpx.codes.TOO_MANY_REQUESTS:
            raise TooManyRefused(answer.headers.get("retry-after", "1"))
        raise ApiAway(f"the API at {self._api}, which knows the tokens, answers {answer.status_code}; try again soon")


def _visitor_in(said: Any) -> Visitor | None:
    visitor = Visitor(str(said["name"]), Holder(said["role"]))
    return visitor if said.get("service", SERVICE) == SERVICE else None


def _target_in(said: Any) -> tuple[str, bool] | None:
    return (str(said["path"]), bool(said["usable"])) if said["service"] == SERVICE else None


def _session_in(said: Any) -> NewSession | None:
    ours = said["service"] == SERVICE
    return NewSession(str(said["secret"]), str(said["path"]), int(said["seconds"])) if ours else None


def token_in(authorization: str | None) -> str | None:
    """The token in a header `Authorization`, as Bearer or as the password of Basic; None: nothing that could be one."""
    scheme, _, rest = (authorization or "").strip().partition(" ")
    token = rest.strip()
    if scheme.lower() == "basic":
        try:
            token = base64.b64decode(token, validate=True).decode().partition(":")[2]
        except ValueError:  # binascii's and that of bytes that are no UTF-8, too
            return None
    elif scheme.lower() != "bearer":
        return None
    return token if _TOKEN.fullmatch(token) else None


def _bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


def _digest(secret: str) -> str:
    return sha256(secret.encode()).hexdigest()
