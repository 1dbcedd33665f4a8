"""The gate: every request to MLflow passes here, or does not."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.tracking import answers
from service.tracking.admin_actions import act_of
from service.tracking.browser_login import LARGEST_FORM, PATHS, BrowserLogin
from service.tracking.callers import ApiAway, Callers, TooManyRefused, Visitor, token_in
from service.tracking.concurrency import VisitorLimits
from service.tracking.routes import GRAPHQL, HEALTH, READ, Access, Holder, access_to, program_path
from service.tracking.searches import refuse_costly, refuse_odd_graphql, refuse_odd_tokens
from service.tracking.tags import TAGGED, checked_tag
from service.web.origins import HARMLESS, TrustedNames

LARGEST_BODY = 65_536
"""Bytes; of everybody but the recorder, who sends files."""

_PASSED_ON = {
    *(b"host", b"accept", b"accept-encoding", b"accept-language", b"content-type", b"content-length"),
    *(b"transfer-encoding", b"range", b"if-none-match", b"if-modified-since", b"if-range", b"user-agent"),
}
"""Headers that reach MLflow. Credentials do not, nor any by which a request is read as another one."""

_OF_ITS_PAGES = [
    # Scripts and pictures that they bring along, and nobody else's; a frame of theirs may show what was recorded.
    (
        b"content-security-policy",
        b"default-src 'self' data: blob: 'unsafe-inline' 'unsafe-eval'; object-src 'none'; base-uri 'self'; "
        b"form-action 'self'; frame-ancestors 'self'",
    ),
    (b"x-frame-options", b"SAMEORIGIN"),
]

log = logging.getLogger(__name__)


class Gate:
    """Serves MLflow's application to those who may, and nothing that is not listed in `routes` to anybody.

    `close` is awaited at the end.
    """

    def __init__(
        self,
        mlflow: ASGIApp,
        names: TrustedNames,
        callers: Callers,
        login: BrowserLogin,
        close: Callable[[], Awaitable[None]],
    ) -> None:
        self._mlflow = mlflow
        self._names = names
        self._callers = callers
        self._login = login
        self._close = close
        self._turns = VisitorLimits()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one connection."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "http":
            answer = await self._answer(scope, receive, send)
            if answer is not None:
                await answer.send(send, head=scope["method"] == "HEAD")
        else:
            await receive()
            await send({"type": "websocket.close", "code": 1008})

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> answers.Answer | None:
        """What to say instead of MLflow; None: MLflow has answered."""
        if refusal := self._names.refusal(scope):
            return answers.error(refusal.status, refusal.words)
        method, path = scope["method"], scope["path"]
        if path == HEALTH:
            return answers.Answer(200, b"OK", [(b"content-type", b"text/plain")])
        try:
            if path in PATHS:
                form = await _read(receive, LARGEST_FORM)
                return answers.error(413, "that is no form") if form is None else await self._login.answer(scope, form)
            access = access_to(method, path)
            if not access:
                return answers.error(404, f"{method} {path[:200]} is not served here")
            visitor = await self._visitor(scope)
        except ApiAway as away:
            if not isinstance(away, TooManyRefused):  # of which the API has told, and there may be many
                log.warning("%s", away)
            return answers.error(away.status, str(away), (b"retry-after", away.retry_after.encode()))
        if visitor is None:
            return _stranger(scope)
        if visitor.holder not in access:
            return answers.error(403, _too_little(visitor, access))
        if visitor.holder is Holder.RECORDER:
            await self._mlflow(_without_credentials(scope), receive, _dressed(send))
            return None
        async with self._turns.take(visitor.name):
            return await self._of_people(scope, receive, send, access)

    async def _of_people(self, scope: Scope, receive: Receive, send: Send, access: Access) -> answers.Answer | None:
        """What to say instead of MLflow to whoever is let in and is not the recorder; None: MLflow has answered."""
        body = await _read(receive, LARGEST_BODY)
        if body is None:
            return answers.error(413, f"the body is larger than {LARGEST_BODY} bytes", (b"connection", b"close"))
        if TAGGED.fullmatch(program_path(scope["path"])):
            try:
                body = checked_tag(body)
            except ValueError as error:
                return answers.error(403, str(error))
        try:
            if access == READ:
                refuse_costly(scope["query_string"], body)
                refuse_odd_tokens(scope["query_string"], body)
                if scope["path"] == GRAPHQL:
                    refuse_odd_graphql(body)
            written = await self._written_down(scope, body)
        except ValueError as error:
            return answers.error(400, str(error))
        except ApiAway as away:
            log.warning("nothing is done that the audit trail cannot hold: %s", away)
            words = f"nothing was done, as it could not be written into the audit trail: {away}"
            return answers.error(away.status, words, (b"retry-after", away.retry_after.encode()))
        if written is None:
            return _stranger(scope)
        receive = _replay(written, receive)
        await self._mlflow(_without_credentials(_with_length(scope, len(written))), receive, _dressed(send))
        return None

    async def _visitor(self, scope: Scope) -> Visitor | None:
        said = [value.decode("latin-1") for name, value in scope["headers"] if name == b"authorization"]
        if len(said) > 1:
            return None
        if said:
            return await self._callers.by_token(token_in(said[0]))
        # A write of a browser says whose page it is from, which was looked at; what does not say it is none.
        if scope["method"] in HARMLESS or any(name == b"origin" for name, _ in scope["headers"]):
            visitor = await self._login.visitor(scope)
            if visitor is not None:
                return visitor
        return await self._callers.by_token(None)

    async def _written_down(self, scope: Scope, body: bytes) -> bytes | None:
        """The body to pass on, after what only an admin may do was written into the audit trail. None: who asks for it
        counts no more.

        Raises:
            ApiAway: it is not written.
            ValueError: the body cannot be read.
        """
        found = act_of(scope["method"], scope["path"], body)
        if found is None:
            return body
        act, anew = found
        client = scope.get("client")
        address = str(client[0])[:100] if client else "nowhere"
        said = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"authorization"), None)
        # As `_visitor` has found who asks: a cookie counts where no token came along.
        token, session = token_in(said), self._login.secret(scope) if said is None else None
        if session is not None and await self._callers.by_session(session) is None:
            session = None
        return anew if await self._callers.write_down(act, address, token=token, session=session) else None

    async def _live(self, receive: Receive, send: Send) -> None:
        # MLflow's own start, which looks for containers of its assistant, is left out: there are none.
        while (message := await receive())["type"] != "lifespan.shutdown":
            await send({"type": f"{message['type']}.complete"})
        await self._close()
        await send({"type": "lifespan.shutdown.complete"})


def _stranger(scope: Scope) -> answers.Answer:
    """What somebody hears who brought nothing that counts: a person a page, a program words."""
    if scope["method"] == "GET" and any(
        name == b"accept" and b"text/html" in value for name, value in scope["headers"]
    ):
        return answers.page(
            401,
            "MLflow of Barlow Lab",
            "Come in by the command line: `barlow open` prints a link for a browser, and `barlow open JOB` one to the "
            "run of a job. It needs an access token; an admin makes them.",
        )
    words = (
        "nobody is let in without an access token that is valid: set MLFLOW_TRACKING_TOKEN to yours, or send "
        "Authorization: Bearer TOKEN; a browser comes in by the link that `barlow open` prints, and a worker is told "
        "BARLOW_MLFLOW_TOKEN, the same as this server"
    )
    # Never Basic in return: a browser would ask for a password and keep it.
    return answers.error(401, words, (b"www-authenticate", b'Bearer realm="barlow"'))


def _too_little(visitor: Visitor, access: Access) -> str:
    roles = [role for role in (Holder.READER, Holder.SUBMITTER, Holder.ADMIN) if role in access]
    if not roles:
        return "only the recorder of Barlow Lab writes this: what stands in MLflow is what was recorded"
    return f"this takes the role {roles[0]}, and {visitor.name} is a {visitor.holder}; ask an admin for a token"


async def _read(receive: Receive, largest: int) -> bytes | None:
    """The whole body; None: it is too large, or its sender left."""
    body = bytearray()
    while True:
        message = await receive()
        body += message.get("body", b"")
        if message["type"] == "http.disconnect" or len(body) > largest:
            return None
        if not message.get("more_body", False):
            return bytes(body)


def _replay(body: bytes, receive: Receive) -> Receive:
    """What was read, once more; then whatever comes."""
    left = [body]

    async def again() -> Message:
        return {"type": "http.request", "body": left.pop(), "more_body": False} if left else await receive()

    return again


def _with_length(scope: Scope, length: int) -> Scope:
    kept = [(name, value) for name, value in scope["headers"] if name not in (b"content-length", b"transfer-encoding")]
    return {**scope, "headers": [*kept, (b"content-length", str(length).encode())]}


def _without_credentials(scope: Scope) -> Scope:
    return {**scope, "headers": [(name, value) for name, value in scope["headers"] if name in _PASSED_ON]}


def _dressed(send: Send) -> Send:
    """Sends MLflow's answers with a content security policy for its pages, which know none."""

    async def dressed(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", []), *_OF_ITS_PAGES]}
        await send(message)

    return dressed
