"""How a person comes in with a browser: by a link, whose page has a button. Only the button redeems the link's code."""

from __future__ import annotations

import html
import re
from urllib.parse import parse_qs, urlsplit

from starlette.requests import cookie_parser
from starlette.types import Scope

from service.tracking import answers
from service.tracking.callers import Callers, Visitor
from service.web.origins import host_name, origin_of

ENTER, LEAVE = "/enter", "/leave"
PATHS = {ENTER, LEAVE}
LARGEST_FORM = 4096

_SECRET = re.compile(r"[A-Za-z0-9_-]{43}")
_TITLE = "MLflow of Barlow Lab"
_AGAIN = "`barlow open` prints a new one, and `barlow open JOB` one to the run of a job."


class BrowserLogin:
    """The pages of ours, and the cookies that they set and take back."""

    def __init__(self, callers: Callers, public_url: str | None) -> None:
        self._callers = callers
        self._public = origin_of(public_url)

    async def visitor(self, scope: Scope) -> Visitor | None:
        """Whose session the browser has; None: it has none that counts.

        Raises:
            ApiAway
        """
        secret = self.secret(scope)
        return None if secret is None else await self._callers.by_session(secret)

    async def answer(self, scope: Scope, form: bytes) -> answers.Answer:
        """The answer of one of PATHS, and `form` what its button sent.

        Raises:
            ApiAway
        """
        if scope["method"] not in ("GET", "HEAD", "POST"):
            return answers.error(405, "this page is looked at and its button pressed", (b"allow", b"GET, HEAD, POST"))
        pressed = scope["method"] == "POST"
        if scope["path"] == LEAVE:
            return await self._leave(scope, pressed=pressed)
        said = parse_qs((form if pressed else scope["query_string"]).decode("latin-1"))
        code = next(iter(said.get("code", [])), "")
        if not _SECRET.fullmatch(code):
            return answers.page(400, "This link is not whole", "It may have been cut at a line's end. " + _AGAIN)
        return await (self._redeem(scope, code) if pressed else self._look(scope, code))

    async def _look(self, scope: Scope, code: str) -> answers.Answer:
        """The page of a link. Whatever fetches it changes nothing; who is in already goes on."""
        target = await self._callers.target(code)
        if await self.visitor(scope) is not None:
            return answers.see_other(_own(target[0] if target else "/"))
        if target is None or not target[1]:
            return _used()
        button = f'<input type="hidden" name="code" value="{html.escape(code)}"><button autofocus>Open MLflow</button>'
        said = "This lets the browser in for 12 hours, as the one whose token the link was asked for with."
        return answers.page(200, _TITLE, said, form=f'<form method="post" action="{ENTER}">{button}</form>')

    async def _redeem(self, scope: Scope, code: str) -> answers.Answer:
        session = await self._callers.redeem(code)
        if session is None:
            target = await self._callers.target(code)
            # Pressed twice: the first time has let it in.
            here = await self.visitor(scope) is not None
            return answers.see_other(_own(target[0])) if here and target else _used()
        return answers.see_other(_own(session.path), self._cookie(scope, session.secret, session.seconds))

    async def _leave(self, scope: Scope, *, pressed: bool) -> answers.Answer:
        if not pressed:
            form = f'<form method="post" action="{LEAVE}"><button autofocus>Leave</button></form>'
            return answers.page(200, _TITLE, "Leave, and end the session of this browser?", form=form)
        secret = self.secret(scope)
        if secret is not None:
            await self._callers.end(secret)
        gone = answers.page(200, "You have left", "The session of this browser has ended. " + _AGAIN)
        return gone._replace(headers=[*gone.headers, self._cookie(scope, "", 0)])

    def secret(self, scope: Scope) -> str | None:
        """What the browser's cookie holds; None: it has none of the right form."""
        name = self._cookie_name(scope)
        for header, value in scope["headers"]:
            if header == b"cookie":
                # One by one: whatever else serves pages on this host adds cookies of any form, and none hides ours.
                found = cookie_parser(value.decode("latin-1")).get(name, "")
                if _SECRET.fullmatch(found):
                    return found
        return None

    def _cookie(self, scope: Scope, value: str, seconds: int) -> tuple[bytes, bytes]:
        secure = "; Secure" if self._is_secure(scope) else ""
        text = f"{self._cookie_name(scope)}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Lax{secure}"
        return b"set-cookie", text.encode()

    def _cookie_name(self, scope: Scope) -> str:
        """Cookies know hosts and no ports: two stacks of one host, or of two at the ends of tunnels, have each its own.

        A name that begins with __Host- is taken from nobody but this host over TLS.
        """
        secure = self._is_secure(scope)
        port = urlsplit(f"//{_host(scope)}").port or (443 if secure else 80)
        return f"{'__Host-' if secure else ''}barlow-mlflow-{port}"

    def _is_secure(self, scope: Scope) -> bool:
        """Whether the browser came over TLS, which ends at a proxy."""
        if scope.get("scheme") == "https":
            return True
        public = self._public
        return (
            public is not None
            and public.startswith("https:")
            and host_name(urlsplit(public).netloc) == host_name(_host(scope))
        )


def _host(scope: Scope) -> str:
    return str(next(value.decode("latin-1") for name, value in scope["headers"] if name == b"host"))


def _own(path: str) -> str:
    """A path of this server, whatever the API says: never the address of another one."""
    plain = path.startswith("/") and path.isascii() and path.isprintable() and "\\" not in path
    return path if plain and not path.startswith("//") else "/"


def _used() -> answers.Answer:
    words = "A link is good once, for ten minutes. " + _AGAIN
    return answers.page(410, "This link is used up", words, "If this browser is in already, MLflow is at its address.")
