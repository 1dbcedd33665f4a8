"""Errors as RFC 9457 problem details: one exception, one table of codes, one page that explains each."""

from __future__ import annotations

import html
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from fastapi.routing import iter_route_contexts
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException

from barlow_lab.specs import Fault
from barlow_lab.specs.common import RULES
from service.admission.errors import InvalidSpec, NameTaken, Refused, TooManyOpenJobs
from service.api.problem_views import FaultView, ProblemDetails
from service.database.away import is_away
from service.ledger.errors import DependencyFailed, IllegalVerb

log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"

MATCH_PATTERN = r"^[A-Za-z0-9._-]{1,100}$"
ACT_PATTERN = r"^mlflow(\.[a-z]+(-[a-z]+)*){1,4}$"
QUERY_RULES = {
    MATCH_PATTERN: "a job's name is expected, or the beginning or the end of its id: letters, digits, dots, dashes and "
    "underscores",
    ACT_PATTERN: "the name of an act is expected, for example mlflow.runs.delete",
}
"""What is said of a parameter that does not match a pattern, beside barlow_lab.specs.common.RULES."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of problem: its code is the last part of `type` and never changes."""

    code: str
    status: int
    title: str
    meaning: str


KINDS = {
    kind.code: kind
    for kind in (
        Kind("malformed-json", 400, "The body is not JSON", "`detail` names the line and the column."),
        Kind("bad-request", 400, "The request cannot be read", "`detail` says what is wrong with it."),
        Kind(
            "unauthorized",
            401,
            "The request carries no valid token",
            "Send Authorization: Bearer TOKEN with a token that an admin has made and nobody has revoked.",
        ),
        Kind("forbidden", 403, "The token's role is too low for this", "`detail` names the role that is needed."),
        Kind(
            "foreign-page",
            403,
            "A page of another origin asks for this",
            "A browser told where the page is from, by Origin or Sec-Fetch-Site; programs send neither. Behind a proxy "
            "BARLOW_PUBLIC_URL is this API's own address; pages of yours elsewhere stand in BARLOW_CORS_ORIGINS.",
        ),
        Kind(
            "not-the-owner", 403, "The job is another user's", "`detail` names the user; that one and admins change it."
        ),
        Kind("not-found", 404, "There is no such thing here", "The id, the name or the path is not known."),
        Kind("method-not-allowed", 405, "This path has no such method", "The header `Allow` lists those it has."),
        Kind(
            "name-taken",
            409,
            "The name is taken",
            "A job's name is unique in its experiment, an experiment's overall, a token's for ever.",
        ),
        Kind(
            "submit-in-progress",
            409,
            "A request with this Idempotency-Key is still running",
            "Send the same request again in a moment: it answers with what the first one made.",
        ),
        Kind(
            "illegal-verb",
            409,
            "The job's state does not allow this",
            "`state` is the job's state, `legal_verbs` what may be asked of it now. Nothing was changed.",
        ),
        Kind(
            "dependency-failed",
            409,
            "A job that it would wait for will never succeed",
            "`detail` names that job: retry it first; a retry waits for the newest retry of what it waited for.",
        ),
        Kind(
            "too-many-open-jobs",
            409,
            "The user has too many open jobs",
            "`detail` names the limit (BARLOW_MAX_OPEN_JOBS) and how many there are. Nothing was created.",
        ),
        Kind(
            "slot-not-quarantined",
            409,
            "The slot is not in quarantine",
            "Only a quarantined slot is released by hand. Cancel the job of a slot that runs one.",
        ),
        Kind(
            "nothing-recorded",
            409,
            "MLflow has had nothing of this job",
            "There is nothing to build again before the job's first attempt has been recorded.",
        ),
        Kind("no-page", 409, "MLflow has no page of this", "A link leads to what was recorded there."),
        Kind("tokens-off", 409, "This API asks for no tokens", "It makes some once it has an admin token of its own."),
        Kind("bootstrap-token", 409, "The bootstrap token is a setting", "It is changed where the API is started."),
        Kind("deleted", 410, "The file was deleted", "The record stands; the file was removed to make room."),
        Kind("body-too-large", 413, "The body is too large", "The limit is BARLOW_MAX_BODY_BYTES of the server."),
        Kind("unsupported-media-type", 415, "The body must be JSON", "Send Content-Type: application/json."),
        Kind(
            "unknown-host",
            421,
            "The API is not known by this name",
            "The header Host names something else than localhost, an address, or a name in BARLOW_ALLOWED_HOSTS.",
        ),
        Kind(
            "invalid-spec",
            422,
            "The spec cannot be accepted",
            "`errors` lists every fault with the JSON pointer to its field; of more than 100 the first, and "
            "`errors_left_out` says how many more there are. Nothing was created.",
        ),
        Kind("invalid-token", 422, "No such token can be made", "`errors` lists every fault. Nothing was created."),
        Kind("invalid-parameters", 422, "The parameters cannot be accepted", "`errors` names each parameter."),
        Kind(
            "idempotency-key-reused",
            422,
            "This Idempotency-Key was used for another request",
            "A key belongs to one body and one route. Use a new key for a new request.",
        ),
        Kind(
            "too-many-refusals",
            429,
            "Too many tokens from this address were refused",
            "Good ones are let in. Send another one after the seconds that `Retry-After` says.",
        ),
        Kind(
            "too-many-requests",
            429,
            "Too much is asked for at once",
            "`detail` names the limit and, where one changes it, the setting. Nothing was changed.",
        ),
        Kind("internal", 500, "The server failed", "Nothing was changed. Its log holds the cause."),
        Kind("unavailable", 503, "The run database cannot be reached", "Nothing was changed. Try again in a moment."),
    )
}


OF_REFUSALS: dict[type[Refused], str] = {
    InvalidSpec: "invalid-spec",
    NameTaken: "name-taken",
    TooManyOpenJobs: "too-many-open-jobs",
}
"""The code of each reason why admission takes nothing."""


class Problem(Exception):
    """Ends a request with a problem answer; `code` is a key of KINDS."""

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        faults: Sequence[Fault | FaultView] = (),
        headers: Mapping[str, str] | None = None,
        refused: IllegalVerb | None = None,
        left_out: int = 0,
    ) -> None:
        super().__init__(detail)
        self.left_out = left_out
        self.refused = refused
        self.kind = KINDS[code]
        self.detail = detail
        self.errors = [
            FaultView(pointer=f.pointer, parameter=None, message=f.message) if isinstance(f, Fault) else f
            for f in faults
        ]
        self.headers = dict(headers or {})


def invalid_parameter(name: str, message: str) -> Problem:
    """The answer to one bad query parameter or header."""
    fault = FaultView(pointer=None, parameter=name, message=message)
    return Problem("invalid-parameters", f"{name}: {message}", faults=[fault])


def answer(request: Request, problem: Problem) -> JSONResponse:
    """The response of a problem."""
    details = ProblemDetails(
        type=f"/problems/{problem.kind.code}",
        title=problem.kind.title,
        status=problem.kind.status,
        detail=problem.detail,
        instance=_path(request),
        errors=problem.errors,
        errors_left_out=problem.left_out or None,
        state=problem.refused.state if problem.refused else None,
        legal_verbs=problem.refused.legal if problem.refused else None,
    )
    return JSONResponse(
        details.model_dump(exclude_none=True),
        status_code=problem.kind.status,
        headers=problem.headers,
        media_type=MEDIA_TYPE,
    )


def _path(request: Request) -> str:
    # Not of request.url, which is put together with the header Host, whatever stands in that.
    path: str = request.scope["path"]
    return path


def responses(*codes: str) -> dict[int | str, dict[str, object]]:
    """The OpenAPI `responses` of a route that may answer with these problems."""
    out: dict[int | str, dict[str, object]] = {}
    for code in ("bad-request", *codes, "internal", "unavailable"):
        kind = KINDS[code]
        before = out.get(kind.status, {}).get("description")
        description = f"{before}; or: {kind.title}" if before else kind.title
        schema = {"$ref": "#/components/schemas/ProblemDetails"}
        out[kind.status] = {"description": description, "content": {MEDIA_TYPE: {"schema": schema}}}
    return out


def install(app: FastAPI) -> None:
    """Make every error of `app` a problem answer and serve the pages that `type` points to."""

    async def on_problem(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, Problem)
        return answer(request, error)

    async def on_refused(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, Refused)
        code = OF_REFUSALS[type(error)]
        return answer(request, Problem(code, str(error), faults=error.faults, left_out=error.left_out))

    async def on_illegal_verb(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, IllegalVerb)
        return answer(request, Problem("illegal-verb", str(error), refused=error))

    async def on_dependency_failed(request: Request, error: Exception) -> JSONResponse:
        return answer(request, Problem("dependency-failed", str(error)))

    async def on_http_error(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            allowed = _methods(app, _path(request))
            detail = f"{request.method} is not one of its methods ({allowed})"
            return answer(request, Problem("method-not-allowed", detail, headers={"Allow": allowed}))
        if error.status_code == HTTPStatus.NOT_FOUND:
            return answer(request, Problem("not-found", f"there is no path {_path(request)}; /docs lists them all"))
        return answer(request, Problem("bad-request", str(error.detail)))

    async def on_invalid(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        faults = [
            FaultView(pointer=None, parameter=str(item["loc"][1]), message=_words(item))
            for item in error.errors()
            if item["loc"][0] in ("query", "header")
        ]
        if len(faults) < len(error.errors()):  # a path whose parts do not even have the right form names nothing
            return answer(request, Problem("not-found", f"nothing is called {_path(request)}"))
        detail = "; ".join(f"{f.parameter}: {f.message}" for f in faults)
        return answer(request, Problem("invalid-parameters", detail, faults=faults))

    async def on_database_error(request: Request, error: Exception) -> JSONResponse:
        if not is_away(error):
            raise error  # a bug, answered and logged as any other
        log.warning("run database: %s", error)
        detail = "the run database cannot be reached now; try again in a moment"
        return answer(request, Problem("unavailable", detail, headers={"Retry-After": "2"}))

    async def on_bug(request: Request, error: Exception) -> JSONResponse:
        return answer(request, Problem("internal", f"{request.method} {_path(request)} failed; the log has the cause"))

    app.add_exception_handler(Problem, on_problem)
    app.add_exception_handler(Refused, on_refused)
    app.add_exception_handler(IllegalVerb, on_illegal_verb)
    app.add_exception_handler(DependencyFailed, on_dependency_failed)
    app.add_exception_handler(HTTPException, on_http_error)
    app.add_exception_handler(RequestValidationError, on_invalid)
    app.add_exception_handler(SQLAlchemyError, on_database_error)
    app.add_exception_handler(Exception, on_bug)

    @app.get("/problems", include_in_schema=False)
    def list_problems() -> HTMLResponse:
        return HTMLResponse("".join(_section(kind) for kind in KINDS.values()))

    @app.get("/problems/{code}", include_in_schema=False)
    def explain_problem(code: str) -> HTMLResponse:
        if code not in KINDS:
            raise Problem("not-found", f"there is no problem {code!r}; /problems lists them all")
        others = "".join(f'<li><a href="/problems/{other}">{other}</a></li>' for other in KINDS)
        return HTMLResponse(f"{_section(KINDS[code])}<p>All problems:</p><ul>{others}</ul>")


def _words(item: Mapping[str, Any]) -> str:
    """What pydantic found, in our words."""
    if item["type"] == "string_pattern_mismatch":
        pattern = item["ctx"]["pattern"]
        return RULES.get(pattern) or QUERY_RULES.get(pattern, item["msg"])
    return str(item["msg"]).removeprefix("Value error, ")


def _methods(app: FastAPI, path: str) -> str:
    """Every method of a path; a router knows only those of the first route that fits."""
    routes = [route for route in iter_route_contexts(app.routes) if route.path_regex and route.path_regex.match(path)]
    # ID:cancel fits the template of an id, too; the longest template is the one that means this path.
    closest = max(len(route.path or "") for route in routes)
    return ", ".join(
        sorted({method for route in routes for method in route.methods or () if len(route.path or "") == closest})
    )


def _section(kind: Kind) -> str:
    return f"<h2>{kind.code} ({kind.status})</h2><p><b>{kind.title}.</b> {html.escape(kind.meaning)}</p>"
