"""The way to the API: requests are repeated, streams taken up where they broke off, refusals are exceptions."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from barlow_lab.given_files import parse_json
from barlow_lab.specs.parsing import and_more
from service import outgoing_http
from service.api.problem_views import ProblemDetails
from service.client.sse import Message, lines, messages

Answer = TypeVar("Answer", bound=BaseModel)
_WAITS = (0.2, 0.5, 1.0, 2.0)  # seconds between the tries of one request
_LATER = (502, 503, 504)
_ADDRESS = "give its address by --url or BARLOW_URL"
_IS_MEANT = "if the server there is meant, ask it from another folder than that of your stack, or with another --data"


class ApiError(Exception):
    """The API, or the way to it, said no. `problem` is the API's own answer, where there is one."""

    def __init__(self, message: str, problem: ProblemDetails | None = None) -> None:
        super().__init__(message)
        self.problem = problem


class Unreachable(ApiError):
    """Nobody answers at the address."""


class Unauthorized(ApiError):
    """The token is missing, unknown or revoked."""


class Connection:
    """Asks one API, with a token where it asks for one; parameters as those of service.client.api.Client."""

    def __init__(
        self,
        url: str,
        token: str | None,
        *,
        same_account: bool,
        remedy: str | None,
        transport: httpx.BaseTransport | None,
        timeout: float,
    ) -> None:
        self.url = url.rstrip("/")
        self._remedy = remedy or f"run `barlow login --url {self.url}`"
        if token is not None and not re.fullmatch(r"[\x21-\x7e]+", token):
            raise Unauthorized("the token holds blanks or characters that no token has; run `barlow login` again")
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        try:
            self._http = outgoing_http.client(
                f"{self.url}/api/v1",
                headers=headers,
                same_account=same_account,
                transport=transport,
                timeout=timeout,
                follow_redirects=False,
            )
            self._way = outgoing_http.way(self.url)
        except httpx.InvalidURL as error:
            raise Unreachable(f"{url!r} is not the address of an API: {error}") from None
        except ValueError as error:
            raise Unreachable(f"{self.url} cannot be asked: {error}") from None

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def get(self, path: str, model: type[Answer], params: Mapping[str, Any] | None = None) -> Answer:
        """What the API answers to GET."""
        return self.read(model, self.send("GET", path, params=params))

    def read(self, model: type[Answer], answer: httpx.Response) -> Answer:
        """An answer as the model that it is to be."""
        return self.model(model, answer.content)

    def model(self, model: type[Answer], said: str | bytes) -> Answer:
        """JSON as the model that it is to be."""
        try:
            return model.model_validate_json(said)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            place = "/".join(str(part) for part in first["loc"])
            raise self._somebody_else(
                f"what is not {model.__name__} ({place + ': ' if place else ''}{first['msg']})"
            ) from None

    def require(self, answer: httpx.Response, kind: str) -> None:
        """Refuse an answer of another content type."""
        said = answer.headers.get("content-type", "")
        if not said.startswith(kind):
            raise self._somebody_else(f"{said or 'no type'} in place of {kind}")

    def send(self, method: str, path: str, *, patience: float | None = None, **options: Any) -> httpx.Response:
        """One request, repeated while nobody answers: each of ours changes nothing when it comes twice.

        `patience`: what it asks for is much work, so it is sent once, and waited for that many seconds.
        """
        waits: tuple[float | None, ...] = (*_WAITS, None)
        if patience is not None:
            waits, options = (None,), {**options, "timeout": patience}
        for wait in waits:
            try:
                response = self._http.request(method, path, **options)
            except httpx.UnsupportedProtocol as error:
                raise Unreachable(f"{self.url!r} is not the address of an API: {error}") from None
            except outgoing_http.AnotherAccounts as error:
                raise ApiError(f"{error}; {_IS_MEANT}") from None
            except httpx.RequestError as error:
                if patience is not None and isinstance(error, httpx.ReadTimeout):
                    said = f"{self.url} did not answer within {patience:.0f} s; ask again later, or for less at once"
                    raise ApiError(said) from None
                if wait is None:
                    raise self._unreachable(error) from None
            else:
                problem = _problem(response)
                busy = problem is not None and problem.type.endswith(("/submit-in-progress", "/too-many-requests"))
                if wait is None or not (response.status_code in _LATER or busy):
                    return self._checked(response, problem)
            time.sleep(wait)
        raise AssertionError("the last try returns or raises")

    def stream(self, path: str, params: Mapping[str, Any]) -> Iterator[Message]:
        """Events until the one called `end`; a lost connection is taken up after the last event."""
        headers = {"Accept": "text/event-stream"}
        failures = 0
        while True:
            try:
                # A silent stream sends a comment every 15 s.
                with self._http.stream("GET", path, params=params, headers=headers, timeout=60.0) as response:
                    if response.status_code != 200:
                        response.read()
                        self._checked(response, _problem(response))
                    self.require(response, "text/event-stream")
                    for message in messages(lines(response.iter_text())):
                        if message.event == "end":
                            self._over(message.data)
                            return
                        failures = 0
                        if message.id is not None:
                            headers["Last-Event-ID"] = message.id
                        yield message
            except outgoing_http.AnotherAccounts as error:
                raise ApiError(f"{error}; {_IS_MEANT}") from None
            except httpx.RequestError as error:
                if failures == len(_WAITS):
                    raise self._unreachable(error) from None
            if failures == len(_WAITS):
                raise Unreachable(f"the stream {self.url}{path} breaks off again and again")
            time.sleep(_WAITS[failures])
            failures += 1

    def _over(self, data: str) -> None:
        """Raise what the end of a stream says, if it says more than that the job has ended."""
        with contextlib.suppress(ValueError):
            said = parse_json(data)
            if isinstance(said, dict) and said.get("reason") == "unauthorized":
                raise Unauthorized(
                    f"{said.get('detail', 'the token counts no more')}; run `barlow login --url {self.url}`"
                )

    def _checked(self, response: httpx.Response, problem: ProblemDetails | None) -> httpx.Response:
        if response.is_success:
            return response
        if problem is None:
            raise self._somebody_else(str(response.status_code))
        lines = [f"{fault.pointer or fault.parameter or 'body'}: {fault.message}" for fault in problem.errors]
        if problem.errors_left_out:
            lines.append(and_more(problem.errors_left_out))
        said = "".join(f"\n  {line}" for line in lines) if lines else f": {problem.detail}"
        if response.status_code == 401:
            raise Unauthorized(f"{problem.title}{said}; {self._remedy}", problem)
        if response.status_code == 421:
            said += f"; it was asked as {self.url}"
        raise ApiError(f"{problem.title}{said}", problem)

    def _unreachable(self, error: Exception) -> Unreachable:
        return Unreachable(
            f"no Barlow Lab API answers at {self.url}{self._way} ({type(error).__name__}); start one with `barlow up`, "
            f"or {_ADDRESS}"
        )

    def _somebody_else(self, answered: str) -> ApiError:
        return ApiError(
            f"{self.url}{self._way} answered {answered}; is it really the Barlow Lab API, and of this version? "
            f"{_ADDRESS[0].upper()}{_ADDRESS[1:]}"
        )


def _problem(response: httpx.Response) -> ProblemDetails | None:
    if response.is_success or "problem+json" not in response.headers.get("content-type", ""):
        return None
    try:
        return ProblemDetails.model_validate_json(response.content)
    except ValidationError:
        return None
