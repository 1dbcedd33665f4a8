"""Who asks: the bearer token of a request, looked up once, and whether its role is enough for the route."""

from __future__ import annotations

import contextlib
import hmac
import logging
import math
import re
from collections.abc import Collection
from datetime import datetime
from typing import Annotated, Any

from fastapi import Depends, Request
from fastapi.concurrency import run_in_threadpool
from sqlalchemy import func, select
from sqlalchemy.orm import Session, sessionmaker

from service.api.deps import SessionsDep, client_address, take_turn
from service.api.problems import Problem, responses
from service.api.refusals import Refusals
from service.api.roles import LEAST_ROLE
from service.api.token_secrets import sha256
from service.callers import Caller, Role
from service.database.tables import Token
from service.settings import Settings

log = logging.getLogger(__name__)

ANONYMOUS = "anonymous"
"""Everybody, where no admin token is set: only who is on the machine reaches the API then."""
BOOTSTRAP = "bootstrap"
"""The name of the token that the settings hold."""

_MADE_HERE = re.compile(r"barlow_[A-Za-z0-9_-]{43}")
_SCHEME = "token"
GOOD_SECONDS = 5.0
"""A token that was made so lately may have to wait with those that are refused."""
_UNKNOWN = "the token is not known here"
_NONE_SENT = (
    "send a token: Authorization: Bearer TOKEN. An admin makes one; that of a `barlow up` is in the file admin-token "
    "in its folder, where the command `barlow` finds it by itself"
)


class RefusedToken(Exception):
    """A token that is no good: why, in a word; whose, if that is known; what is said of it to the one who sent it."""

    def __init__(self, why: str, said: str, name: str = "") -> None:
        super().__init__(said)
        self.why = why
        self.name = name


class Guard:
    """Knows the hash of the bootstrap token, and no secret. Without one everybody is `anonymous`, with every role."""

    def __init__(self, settings: Settings) -> None:
        token = settings.admin_token
        self._bootstrap = None if token is None else sha256(token.get_secret_value())
        self.refusals = Refusals()
        # Hashes of all good tokens, and when they were read; only while some address has to wait.
        self._good: frozenset[str] = frozenset()
        self._good_at: float | None = None

    @property
    def on(self) -> bool:
        """Whether requests need a token."""
        return self._bootstrap is not None

    async def caller(self, request: Request, sessions: sessionmaker[Session]) -> Caller:
        """Whose token a request carries. The run database is asked once, and for the bootstrap token not at all.

        Raises:
            Problem: 401; there is no token, or it is unknown, revoked or has expired. 429; too many that were refused
                have come from its address. 503.
        """
        if self._bootstrap is None:
            return Caller(ANONYMOUS, ANONYMOUS, Role.ADMIN)
        header = request.headers.get("authorization")
        if header is None:
            raise unauthorized(_NONE_SENT, error="")
        address = client_address(request)
        counted = request.app.state.figures.refused_tokens
        wait = self.refusals.take(address)
        if wait > 0 and not await self._is_good(request, sessions, header):
            counted.labels("slowed").inc()
            raise _too_many(wait)
        try:
            caller = await self._look_up(request, sessions, header)
        except RefusedToken as refused:
            counted.labels(refused.why).inc()
            # Nothing of what the caller sent stands in the line; a name is that of a row.
            log.warning("refused a token from %s: %s", address, f"{refused.why} {refused.name}".rstrip())
            raise unauthorized(str(refused)) from None
        except BaseException:
            self._give_back(address, wait)
            raise
        self._give_back(address, wait)
        return caller

    def _give_back(self, address: str, wait: float) -> None:
        if wait == 0:
            self.refusals.give_back(address)

    async def _is_good(self, request: Request, sessions: sessionmaker[Session], header: str) -> bool:
        """Whether a token from an address that has to wait is a good one: whoever shares a proxy, or 127.0.0.1, with
        one who guesses is not locked out. Of all that come meanwhile one asks the run database every few seconds."""
        with contextlib.suppress(RefusedToken):
            digest = sha256(bearer(header))
            if self._bootstrap is not None and hmac.compare_digest(digest, self._bootstrap):
                return True
            now = self.refusals.clock()
            if self._good_at is None or now - self._good_at >= GOOD_SECONDS:
                self._good_at = now
                async with take_turn(request):
                    self._good = await run_in_threadpool(_good_ones, sessions)
            return digest in self._good
        return False

    async def _look_up(self, request: Request, sessions: sessionmaker[Session], header: str) -> Caller:
        secret = bearer(header)
        digest = sha256(secret)
        assert self._bootstrap is not None
        if hmac.compare_digest(digest, self._bootstrap):
            return Caller(BOOTSTRAP, BOOTSTRAP, Role.ADMIN)
        if not _MADE_HERE.fullmatch(secret):
            raise RefusedToken("unknown", _UNKNOWN)

        def find() -> Caller:
            with sessions() as session:
                return self.holder(session, digest)

        # A turn of its own, given back before the body is read: a client that sends slowly holds no connection.
        async with take_turn(request):
            return await run_in_threadpool(find)

    def holder(self, session: Session, digest: str) -> Caller:
        """Whose token has this hash.

        Raises:
            RefusedToken: there is none, or it is revoked or has expired.
        """
        if self._bootstrap is not None and hmac.compare_digest(digest, self._bootstrap):
            return Caller(BOOTSTRAP, BOOTSTRAP, Role.ADMIN)
        # An index finds it, in time that depends on the hash: to measure it tells of a hash, which leads to no secret.
        found = session.execute(select(Token, _HAS_EXPIRED).where(Token.sha256 == digest)).one_or_none()
        if found is None:
            raise RefusedToken("unknown", _UNKNOWN)
        token, has_expired = found
        if refused := _refusal(token, has_expired):
            raise refused
        return Caller(token.name, token.user_name, Role(token.role), token.expires_at)

    def lapsed(self, sessions: sessionmaker[Session], names: Collection[str]) -> dict[str, str]:
        """The tokens that counted when a request came and count no more, and why. One question for all."""
        made = set(names) - {ANONYMOUS, BOOTSTRAP}
        if not made:
            return {}
        with sessions() as session:
            rows = session.execute(select(Token, _HAS_EXPIRED).where(Token.name.in_(made)))
            refused = {token.name: _refusal(token, has_expired) for token, has_expired in rows}
        return {name: str(refusal) for name, refusal in refused.items() if refusal is not None}


_HAS_EXPIRED = func.coalesce(Token.expires_at <= func.now(), False)
"""Whether a token has expired, by the clock of the run database, which made it."""


def _refusal(token: Token, has_expired: bool) -> RefusedToken | None:
    if token.revoked_at is not None:
        said = f"the token {token.name} was revoked at {_clock(token.revoked_at)}; ask an admin for one"
        return RefusedToken("revoked", said, token.name)
    if has_expired:
        said = f"the token {token.name} expired at {_clock(token.expires_at)}; ask an admin for a new one"
        return RefusedToken("expired", said, token.name)
    return None


def _good_ones(sessions: sessionmaker[Session]) -> frozenset[str]:
    lasts = func.coalesce(Token.expires_at > func.now(), True)
    with sessions() as session:
        return frozenset(session.scalars(select(Token.sha256).where(Token.revoked_at.is_(None), lasts)))


def _clock(moment: datetime | None) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def bearer(header: str | None) -> str:
    """The secret in a header Authorization.

    Raises:
        RefusedToken: there is none.
    """
    if header is None:
        raise RefusedToken("missing", _NONE_SENT)
    scheme, _, secret = header.partition(" ")
    if scheme.lower() != "bearer" or not secret.strip():
        raise RefusedToken("malformed", "the header Authorization is not of the form: Bearer TOKEN")
    return secret.strip()


def _too_many(wait: float) -> Problem:
    seconds = math.ceil(wait)
    said = f"too many tokens from this address were refused; send a good one in {seconds} s"
    return Problem("too-many-refusals", said, headers={"Retry-After": str(seconds), "Connection": "close"})


def unauthorized(detail: str, error: str = ', error="invalid_token"') -> Problem:
    """The answer to whoever brought nothing that counts; without `error` to whoever brought nothing."""
    # RFC 6750, section 3. A body that came along stays unread, so the connection cannot be used again.
    headers = {"WWW-Authenticate": f'Bearer realm="barlow"{error}', "Connection": "close"}
    return Problem("unauthorized", detail, headers=headers)


async def authorize(request: Request, sessions: SessionsDep) -> Caller:
    """Who asks, if the route is for them. Of a request, asked once, however many need it.

    Raises:
        Problem: 401; 403, naming the role that is needed; 503.
    """
    guard: Guard = request.app.state.guard
    least = LEAST_ROLE[f"{request.method} {request.scope['route'].path}"]
    caller = await guard.caller(request, sessions)
    if not caller.role.may(least):
        said = f"this takes the role {least}, and the token {caller.name} is a {caller.role}; ask an admin for one"
        raise Problem("forbidden", said, headers={"Connection": "close"})
    return caller


CallerDep = Annotated[Caller, Depends(authorize)]
"""Who asks."""


def document(openapi: dict[str, Any], root: str) -> None:
    """Add the token, and what comes without a good one, to every guarded operation of an OpenAPI document."""
    scheme = {"type": "http", "scheme": "bearer", "description": "An access token; an admin makes them"}
    openapi["components"]["securitySchemes"] = {_SCHEME: scheme}
    possible = responses("unauthorized", "forbidden", "too-many-refusals")
    refusals = {status: said for status, said in possible.items() if status in (401, 403, 429)}
    for path, operations in openapi["paths"].items():
        for method, operation in operations.items():
            least = LEAST_ROLE.get(f"{method.upper()} {path.removeprefix(root)}")
            if least is not None:
                operation["security"] = [{_SCHEME: []}]
                operation["responses"] |= {str(status): said for status, said in refusals.items()}
                operation["description"] = f"{operation.get('description', '')}\n\nRole: {least}.".strip()
