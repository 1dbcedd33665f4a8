"""A typed client of the API: answers are models, problems are exceptions (service.client.connection)."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any
from urllib.parse import quote

import httpx

from service.api.browser_views import Entry
from service.api.comparison_schemas import Comparison
from service.api.page_views import Page
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
from service.client.connection import ApiError, Connection
from service.ledger.states import Verb

_LONGEST_PAGE = 200
_PAGE_SECONDS = 120.0
"""A page of figures waits for its turn, is some statements of the run database, and has megabytes."""


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
        self.same_account = same_account
        self._connection = Connection(
            url, token, same_account=same_account, remedy=remedy, transport=transport, timeout=timeout
        )
        self.url = self._connection.url

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._connection.close()

    def submit_job(self, spec: Any, *, experiment: str = "default", key: str | None = None) -> JobView:
        """Submit a job. It carries an Idempotency-Key, so a repeated request makes no second job."""
        answer = self._connection.send(
            "POST", "/jobs", json=spec, params={"experiment": experiment}, headers=_key(key or str(uuid.uuid4()))
        )
        return self._connection.read(JobView, answer)

    def submit_experiment(self, body: Any, *, key: str | None = None) -> ExperimentDetail:
        """Submit all jobs of an experiment, or none."""
        answer = self._connection.send("POST", "/experiments", json=body, headers=_key(key or str(uuid.uuid4())))
        return self._connection.read(ExperimentDetail, answer)

    def plan(self, spec: Any, *, experiment: str = "default") -> Plan:
        """What a submit would do; nothing is created."""
        params = {"experiment": experiment, "validate_only": "true"}
        return self._connection.read(Plan, self._connection.send("POST", "/jobs", json=spec, params=params))

    def job(self, job_id: uuid.UUID | str) -> JobDetail:
        """One job as it is now."""
        return self._connection.get(f"/jobs/{job_id}", JobDetail)

    def jobs(self, *, page_size: int = 50, page_token: str | None = None, **filters: Any) -> Page[JobView]:
        """One page of jobs, newest first; filters as `GET /jobs` has them."""
        params = {"page_size": page_size, "page_token": page_token, **filters}
        return self._connection.get(
            "/jobs", Page[JobView], {name: value for name, value in params.items() if value is not None}
        )

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
        return self._connection.read(Entry, self._connection.send("POST", "/entries", params=parameters))

    def rebuild_mlflow(self, job_id: uuid.UUID | str) -> JobView:
        """Have a job's MLflow run deleted and made again."""
        return self._ask(job_id, "rebuild-mlflow")

    def release_slot(self, node: str, index: int) -> SlotView:
        """Free a quarantined slot, on your word that nothing runs there any more."""
        path = f"/nodes/{quote(node, safe='')}/slots/{index}:release"
        return self._connection.read(SlotView, self._connection.send("POST", path))

    def experiment(self, experiment: uuid.UUID | str) -> ExperimentDetail:
        """An experiment, by id or name, with its jobs."""
        return self._connection.get(f"/experiments/{experiment}", ExperimentDetail)

    def metrics(
        self, job_id: uuid.UUID | str, *, key: Sequence[str] | None = None, from_step: int = 0
    ) -> Iterator[MetricView]:
        """Every point of a job's metrics, by name, then by step."""
        params: dict[str, Any] = {"from_step": from_step, "limit": 10_000}
        if key:
            params["key"] = list(key)
        while True:
            page = self._connection.get(f"/jobs/{job_id}/metrics", Page[MetricView], params)
            yield from page.items
            if page.next_page_token is None:
                return
            params["page_token"] = page.next_page_token

    def compare(self, job_ids: Sequence[uuid.UUID | str]) -> Comparison:
        """Jobs side by side."""
        return self._connection.get("/compare", Comparison, {"job": [str(job_id) for job_id in job_ids]})

    def compare_experiment(self, experiment: uuid.UUID | str) -> Comparison:
        """The jobs of an experiment, by id or name, side by side."""
        return self._connection.get("/compare", Comparison, {"experiment": str(experiment)})

    def compare_page(self, job_ids: Sequence[uuid.UUID | str], experiment: str | None = None) -> bytes:
        """Jobs side by side, or those of an experiment, as a page of HTML that needs nothing else."""
        params: dict[str, Any] = (
            {"job": [str(one) for one in job_ids]} if experiment is None else {"experiment": experiment}
        )
        answer = self._connection.send("GET", "/compare.html", params=params, patience=_PAGE_SECONDS)
        self._connection.require(answer, "text/html")
        return answer.content

    def recipes(self) -> Recipes:
        """The spec files that this service has ready."""
        return self._connection.get("/recipes", Recipes)

    def recipe(self, name: str) -> str:
        """The text of one of them."""
        answer = self._connection.send("GET", f"/recipes/{quote(name, safe='')}")
        self._connection.require(answer, "application/yaml")
        return answer.text

    def nodes(self) -> Nodes:
        """The hosts that run jobs."""
        return self._connection.get("/nodes", Nodes)

    def data_sets(self) -> DataSets:
        """The data sets that a spec may name."""
        return self._connection.get("/datasets", DataSets)

    def whoami(self) -> Whoami:
        """Whose token this client has, and what it may do."""
        return self._connection.get("/whoami", Whoami)

    def create_token(
        self, name: str, role: str, *, user: str | None = None, expires_in: str | None = None
    ) -> TokenMade:
        """Make a token; the answer holds its secret, this once. Without a `user` it is of one of its own name."""
        wanted = {"name": name, "role": role, "user": user, "expires_in": expires_in}
        said = {field: value for field, value in wanted.items() if value is not None}
        return self._connection.read(TokenMade, self._connection.send("POST", "/tokens", json=said))

    def tokens(self) -> Tokens:
        """All tokens, without their secrets."""
        return self._connection.get("/tokens", Tokens)

    def audit(self, *, page_size: int = 50) -> Page[AuditView]:
        """What was done with tokens and slots and what was deleted, newest first."""
        return self._connection.get("/audit", Page[AuditView], {"page_size": page_size})

    def revoke_token(self, name: str) -> TokenView:
        """Revoke a token; one that is revoked stays so."""
        return self._connection.read(TokenView, self._connection.send("DELETE", f"/tokens/{quote(name, safe='')}"))

    def events(self, job_id: uuid.UUID | str, *, follow: bool = True) -> Iterator[EventView]:
        """What happened to a job; with `follow` until it has ended."""
        for message in self._connection.stream(f"/jobs/{job_id}/events", {"follow": follow}):
            yield self._connection.model(EventView, message.data)

    def log(self, job_id: uuid.UUID | str, *, follow: bool = False, attempt: int | None = None) -> Iterator[str]:
        """The log of a job in pieces of whole lines; with `follow` until it has ended."""
        params: dict[str, Any] = {"follow": follow}
        if attempt is not None:
            params["attempt"] = attempt
        for message in self._connection.stream(f"/jobs/{job_id}/logs", params):
            yield message.data + "\n"

    def _ask(self, job_id: uuid.UUID | str, verb: str, headers: Mapping[str, str] | None = None) -> JobView:
        return self._connection.read(JobView, self._connection.send("POST", f"/jobs/{job_id}:{verb}", headers=headers))


def _key(key: str) -> dict[str, str]:
    return {"Idempotency-Key": key}
