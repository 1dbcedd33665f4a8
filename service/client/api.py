"""A typed client of the API: answers are models, problems are exceptions, what is safe to repeat is repeated."""

from __future__ import annotations

import contextlib
import re
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel, ValidationError

from barlow_lab.given_files import parse_json
from barlow_lab.specs.parsing import and_more
from service import outgoing_http
from service.api.browser_views import Entry
from service.api.comparison_schemas import Comparison
from service.api.page_views import Page
from service.api.problem_views import ProblemDetails
from service.api.record_views import MetricView
from service.api.schemas import (
    DataSets,
    EventView,
    ExperimentDetail,
    JobDetail,
    JobView,
    Nodes,
    Plan,
    Recipes,
    SlotView,
)
from service.api.token_views import AuditView, TokenMade, Tokens, TokenView, Whoami
from service.client.sse import Message, lines, messages
from service.ledger.states import Verb

Answer = TypeVar("Answer", bound=BaseModel)
_WAITS = (0.2, 0.5, 1.0, 2.0)  # seconds between the tries of one request
_LATER = (502, 503, 504)
_LONGEST_PAGE = 200
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


class Client:
    """Talks to one API, with a token where it asks for one. Use it as a context manager, or close it.

    `remedy` is what to do about a token that is missing or refused. With `same_account` the server is this account's,
    as that of a `barlow up`, and is sent nothing where it is not.

    Every call raises ApiError when the API refuses, Unreachable when it does not answer, Unauthorized when it does not
    know the token. The token goes to this address only: redirects are not followed.
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        same_account: bool = False,
        remedy: str | None = None,
        transport: httpx.BaseTransport | None = None,
        timeout: float = 30.0,
    ) -> None:
        self.url = url.rstrip("/")
        self.same_account = same_account
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

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def submit_job(self, spec: Any, *, experiment: str = "default", key: str | None = None) -> JobView:
        """Submit a job. It carries an Idempotency-Key, so a repeated request makes no second job."""
        answer = self._send(
            "POST", "/jobs", json=spec, params={"experiment": experiment}, headers=_key(key or str(uuid.uuid4()))
        )
        return self._read(JobView, answer)

    def submit_experiment(self, body: Any, *, key: str | None = None) -> ExperimentDetail:
        """Submit all jobs of an experiment, or none."""
        answer = self._send("POST", "/experiments", json=body, headers=_key(key or str(uuid.uuid4())))
        return self._read(ExperimentDetail, answer)

    def plan(self, spec: Any, *, experiment: str = "default") -> Plan:
        """What a submit would do; nothing is created."""
        params = {"experiment": experiment, "validate_only": "true"}
        return self._read(Plan, self._send("POST", "/jobs", json=spec, params=params))

    def job(self, job_id: uuid.UUID | str) -> JobDetail:
        """One job as it is now."""
        return self._get(f"/jobs/{job_id}", JobDetail)

    def jobs(self, *, page_size: int = 50, page_token: str | None = None, **filters: Any) -> Page[JobView]:
        """One page of jobs, newest first; filters as `GET /jobs` has them."""
        params = {"page_size": page_size, "page_token": page_token, **filters}
        return self._get("/jobs", Page[JobView], {name: value for name, value in params.items() if value is not None})

    def every_job(self) -> Iterator[JobView]:
        """All jobs, newest first."""
        page = self.jobs(page_size=_LONGEST_PAGE)
        yield from page.items
        while page.next_page_token is not None:
            page = self.jobs(page_size=_LONGEST_PAGE, page_token=page.next_page_token)
            yield from page.items

    def find_job(self, text: str) -> uuid.UUID:
        """The id of the one job that `text` means: an id, its beginning or end, NAME, or EXPERIMENT/NAME.

        Raises:
            ApiError: none fits, or more than one does.
        """
        with contextlib.suppress(ValueError):
            return uuid.UUID(text)
        experiment, _, match = text.rpartition("/")
        found = self.jobs(match=match, experiment=experiment or None, page_size=10).items
        if len(found) == 1:
            return found[0].id
        if not found:
            raise ApiError(f"no job is called {text!r} and no id begins or ends so; `barlow jobs` lists them")
        which = "".join(f"\n  {job.id}  {job.experiment}/{job.name}  {job.state}" for job in found)
        raise ApiError(f"{text!r} is more than one job; give the id, or EXPERIMENT/NAME:{which}")

    def cancel(self, job_id: uuid.UUID | str) -> JobView:
        """Cancel a job; one that has ended stays as it is."""
        return self._ask(job_id, Verb.CANCEL)

    def pause(self, job_id: uuid.UUID | str) -> JobView:
        """Pause a job; one that is paused stays as it is."""
        return self._ask(job_id, Verb.PAUSE)

    def resume(self, job_id: uuid.UUID | str) -> JobView:
        """Have a paused job go on."""
        return self._ask(job_id, Verb.RESUME)

    def retry(self, job_id: uuid.UUID | str, *, key: str | None = None) -> JobView:
        """A new job in place of one that failed or was cancelled; with an Idempotency-Key, as a submit."""
        return self._ask(job_id, Verb.RETRY, _key(key or str(uuid.uuid4())))

    def entry(self, *, job: uuid.UUID | str | None = None, experiment: str | None = None) -> Entry:
        """A link that lets a browser into MLflow, to the run of a job, to an experiment, or to its first page."""
        asked = {"job": job, "experiment": experiment}
        parameters = {name: str(value) for name, value in asked.items() if value is not None}
        return self._read(Entry, self._send("POST", "/entries", params=parameters))

    def rebuild_mlflow(self, job_id: uuid.UUID | str) -> JobView:
        """Have a job's MLflow run deleted and made again."""
        return self._ask(job_id, "rebuild-mlflow")

    def release_slot(self, node: str, index: int) -> SlotView:
        """Free a quarantined slot, on your word that nothing runs there any more."""
        path = f"/nodes/{quote(node, safe='')}/slots/{index}:release"
        return self._read(SlotView, self._send("POST", path))

    def experiment(self, experiment: uuid.UUID | str) -> ExperimentDetail:
        """An experiment, by id or name, with its jobs."""
        return self._get(f"/experiments/{experiment}", ExperimentDetail)

    def metrics(
        self, job_id: uuid.UUID | str, *, key: Sequence[str] | None = None, from_step: int = 0
    ) -> Iterator[MetricView]:
        """Every point of a job's metrics, by name, then by step."""
        params: dict[str, Any] = {"from_step": from_step, "limit": 10_000}
        if key:
            params["key"] = list(key)
        while True:
            page = self._get(f"/jobs/{job_id}/metrics", Page[MetricView], params)
            yield from page.items
            if page.next_page_token is None:
                return
            params["page_token"] = page.next_page_token

    def compare(self, job_ids: Sequence[uuid.UUID | str]) -> Comparison:
        """Jobs side by side."""
        return self._get("/compare", Comparison, {"job": [str(job_id) for job_id in job_ids]})

    def compare_experiment(self, experiment: uuid.UUID | str) -> Comparison:
        """The jobs of an experiment, by id or name, side by side."""
        return self._get("/compare", Comparison, {"experiment": str(experiment)})

    def recipes(self) -> Recipes:
        """The spec files that this service has ready."""
        return self._get("/recipes", Recipes)

    def recipe(self, name: str) -> str:
        """The text of one of them."""
        answer = self._send("GET", f"/recipes/{quote(name, safe='')}")
        self._require(answer, "application/yaml")
        return answer.text

    def nodes(self) -> Nodes:
        """The hosts that run jobs."""
        return self._get("/nodes", Nodes)

    def data_sets(self) -> DataSets:
        """The data sets that a spec may name."""
        return self._get("/datasets", DataSets)

    def whoami(self) -> Whoami:
        """Whose token this client has, and what it may do."""
        return self._get("/whoami", Whoami)

    def create_token(
        self, name: str, role: str, *, user: str | None = None, expires_in: str | None = None
    ) -> TokenMade:
        """Make a token; the answer holds its secret, this once. Without a `user` it is of one of its own name."""
        wanted = {"name": name, "role": role, "user": user, "expires_in": expires_in}
        said = {field: value for field, value in wanted.items() if value is not None}
        return self._read(TokenMade, self._send("POST", "/tokens", json=said))

    def tokens(self) -> Tokens:
        """All tokens, without their secrets."""
        return self._get("/tokens", Tokens)

    def audit(self, *, page_size: int = 50) -> Page[AuditView]:
        """What was done with tokens and slots and what was deleted, newest first."""
        return self._get("/audit", Page[AuditView], {"page_size": page_size})

    def revoke_token(self, name: str) -> TokenView:
        """Revoke a token; one that is revoked stays so."""
        return self._read(TokenView, self._send("DELETE", f"/tokens/{quote(name, safe='')}"))

    def events(self, job_id: uuid.UUID | str, *, follow: bool = True) -> Iterator[EventView]:
        """What happened to a job; with `follow` until it has ended."""
        for message in self._stream(f"/jobs/{job_id}/events", {"follow": follow}):
            yield self._model(EventView, message.data)

    def log(self, job_id: uuid.UUID | str, *, follow: bool = False, attempt: int | None = None) -> Iterator[str]:
        """The log of a job in pieces of whole lines; with `follow` until it has ended."""
        params: dict[str, Any] = {"follow": follow}
        if attempt is not None:
            params["attempt"] = attempt
        for message in self._stream(f"/jobs/{job_id}/logs", params):
            yield message.data + "\n"

    def _ask(self, job_id: uuid.UUID | str, verb: str, headers: Mapping[str, str] | None = None) -> JobView:
        return self._read(JobView, self._send("POST", f"/jobs/{job_id}:{verb}", headers=headers))

    def _get(self, path: str, model: type[Answer], params: Mapping[str, Any] | None = None) -> Answer:
        return self._read(model, self._send("GET", path, params=params))

    def _read(self, model: type[Answer], answer: httpx.Response) -> Answer:
        return self._model(model, answer.content)

    def _model(self, model: type[Answer], said: str | bytes) -> Answer:
        try:
            return model.model_validate_json(said)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            place = "/".join(str(part) for part in first["loc"])
            raise self._somebody_else(
                f"what is not {model.__name__} ({place + ': ' if place else ''}{first['msg']})"
            ) from None

    def _require(self, answer: httpx.Response, kind: str) -> None:
        said = answer.headers.get("content-type", "")
        if not said.startswith(kind):
            raise self._somebody_else(f"{said or 'no type'} in place of {kind}")

    def _send(self, method: str, path: str, **options: Any) -> httpx.Response:
        """One request, repeated while nobody answers: each of ours changes nothing when it comes twice."""
        for wait in (*_WAITS, None):
            try:
                response = self._http.request(method, path, **options)
            except httpx.UnsupportedProtocol as error:
                raise Unreachable(f"{self.url!r} is not the address of an API: {error}") from None
            except outgoing_http.AnotherAccounts as error:
                raise ApiError(f"{error}; {_IS_MEANT}") from None
            except httpx.RequestError as error:
                if wait is None:
                    raise self._unreachable(error) from None
            else:
                problem = _problem(response)
                busy = problem is not None and problem.type.endswith(("/submit-in-progress", "/too-many-requests"))
                if wait is None or not (response.status_code in _LATER or busy):
                    return self._checked(response, problem)
            time.sleep(wait)
        raise AssertionError("the last try returns or raises")

    def _stream(self, path: str, params: Mapping[str, Any]) -> Iterator[Message]:
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
                    self._require(response, "text/event-stream")
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


def _key(key: str) -> dict[str, str]:
    return {"Idempotency-Key": key}


def _problem(response: httpx.Response) -> ProblemDetails | None:
    if response.is_success or "problem+json" not in response.headers.get("content-type", ""):
        return None
    try:
        return ProblemDetails.model_validate_json(response.content)
    except ValidationError:
        return None
