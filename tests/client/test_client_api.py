"""The typed client: answers, refusals, repetition, streams that break off."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from api_kit import KNN, PRETRAIN
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy.orm import Session

from service.client.api import Client
from service.client.connection import ApiError, Unauthorized, Unreachable
from service.client.sse import lines, messages
from service.ledger import requests as ledger
from service.settings import Settings


def named(name: str) -> dict[str, Any]:
    return {**PRETRAIN, "name": name}


def test_submit_find_plan_cancel(client: Client) -> None:
    made = client.submit_job(named("alpha"), experiment="first")
    assert client.job(made.id).last_metrics == {}
    for text in (str(made.id), str(made.id)[-8:], "alpha", "first/alpha"):
        assert client.find_job(text) == made.id
    plan = client.plan(named("beta"), experiment="first")
    assert plan.steps == 80
    assert [job.name for job in client.jobs(experiment="first").items] == ["alpha"]
    assert client.cancel(made.id).state == "cancelled"
    assert [event.kind for event in client.events(made.id)] == ["submitted", "cancelled"]


def test_an_ambiguous_or_unknown_name_is_explained(client: Client) -> None:
    for experiment in ("left", "right"):
        client.submit_job(named("same"), experiment=experiment)
    with pytest.raises(ApiError, match="more than one job") as caught:
        client.find_job("same")
    assert "left/same" in str(caught.value)
    assert "right/same" in str(caught.value)
    with pytest.raises(ApiError, match="no job is called 'nobody'"):
        client.find_job("nobody")


def test_a_refusal_carries_every_fault(client: Client) -> None:
    with pytest.raises(ApiError) as caught:
        client.submit_job({**PRETRAIN, "epoch": 3, "batch_size": 1})
    assert caught.value.problem is not None
    assert {fault.pointer for fault in caught.value.problem.errors} == {"/epoch", "/batch_size"}
    assert "/epoch: unknown field" in str(caught.value)


def test_experiments_metrics_and_comparison(client: Client) -> None:
    body = {"name": "whole", "jobs": {"p": PRETRAIN, "k": {**KNN, "backbone_from": {"job": "p"}}}}
    experiment = client.submit_experiment(body)
    assert [job.name for job in experiment.jobs] == ["p", "k"]
    assert client.experiment("whole") == experiment
    ids = [job.id for job in experiment.jobs]
    assert list(client.metrics(ids[0])) == []
    assert [job.kind for job in client.compare(ids).jobs] == ["pretrain", "knn"]
    assert client.nodes().items == []
    assert {"digits", "textures"} <= {entry.name for entry in client.data_sets().items}


def test_the_log_is_followed(client: Client, session: Session, served: Settings) -> None:
    job = client.submit_job(named("writes"))
    folder = served.runs_dir / str(job.id) / "attempts" / "0001"
    folder.mkdir(parents=True)
    (folder / "trainer.log").write_text("[0] one\n[0] two\n")
    assert "".join(client.log(job.id)) == "[0] one\n[0] two\n"
    ledger.request_cancel(session, job.id, actor="test")
    session.commit()
    assert "".join(client.log(job.id, follow=True)) == "[0] one\n[0] two\n"


class Flaky(httpx.BaseTransport):
    """The real API behind a network that loses the first answers: the requests arrive."""

    def __init__(self, lose: Callable[[int], bool]) -> None:
        self.inner = httpx.HTTPTransport()
        self.lose = lose
        self.count = 0

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.count += 1
        response = self.inner.handle_request(request)
        if self.lose(self.count):
            response.read()
            raise httpx.ReadError("the answer was lost")
        return response

    def close(self) -> None:
        self.inner.close()


def test_a_submit_whose_answers_are_lost_makes_one_job(server: str) -> None:
    transport = Flaky(lambda count: count <= 2)
    with Client(server, transport=transport) as client:
        made = client.submit_job(named("once"), experiment="flaky")
        assert transport.count == 3
        assert [job.id for job in client.jobs(experiment="flaky").items] == [made.id]


def test_a_page_of_figures_is_asked_for_once_and_waited_for_longer() -> None:
    asked: list[float] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.extensions["timeout"]["read"])
        raise httpx.ReadTimeout("no answer", request=request)

    with (
        Client("http://barlow", transport=httpx.MockTransport(answer)) as client,
        pytest.raises(ApiError, match="did not answer within 120 s"),
    ):
        client.compare_page([], "demo")
    assert asked == [120.0]


def test_a_stream_that_breaks_off_is_taken_up_after_the_last_event() -> None:
    asked: list[str | None] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.headers.get("Last-Event-ID"))
        parts = [
            b"id: 4\nevent: log\ndata: one\n\n: ping\n\nevent: log\nda",
            b"id: 8\ndata: two\n\nevent: end\ndata: {}\n\n",
        ]
        return httpx.Response(200, content=parts[len(asked) - 1], headers={"Content-Type": "text/event-stream"})

    with Client("http://barlow", transport=httpx.MockTransport(answer)) as client:
        assert list(client.log(uuid.uuid4(), follow=True)) == ["one\n", "two\n"]
    assert asked == [None, "4"]


def test_the_end_of_a_token_is_said_where_a_stream_ends_with_it() -> None:
    end = '{"state": null, "reason": "unauthorized", "detail": "ana was revoked"}'
    said = f"id: 4\nevent: log\ndata: one\n\nevent: end\ndata: {end}\n\n"
    kind = {"Content-Type": "text/event-stream"}
    transport = httpx.MockTransport(lambda _: httpx.Response(200, text=said, headers=kind))
    with Client("http://barlow", transport=transport) as client:
        log = client.log(uuid.uuid4(), follow=True)
        assert next(log) == "one\n"
        with pytest.raises(Unauthorized, match="ana was revoked; run `barlow login"):
            next(log)


def test_a_submission_that_is_one_too_many_is_sent_again(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.client.connection._WAITS", (0.01,))
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.headers["Idempotency-Key"])
        if len(asked) > 1:
            return plain.handle_request(request)
        problem = {"type": "/problems/too-many-requests", "title": "t", "status": 429, "detail": "d", "instance": "/"}
        return httpx.Response(429, json=problem, headers={"Content-Type": "application/problem+json"})

    with httpx.HTTPTransport() as plain, Client(server, transport=httpx.MockTransport(answer)) as client:
        made = client.submit_job(named("one-too-many"))
    assert (made.name, len(asked), len(set(asked))) == ("one-too-many", 2, 1)


def test_faults_that_are_not_named_are_counted(client: Client) -> None:
    many = {**PRETRAIN, **{f"unknown_{i}": 1 for i in range(130)}}
    with pytest.raises(ApiError, match=r"(?s)/unknown_99: unknown field.*\n  and 30 more: mend these first$"):
        client.submit_job(many)


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "not an address", "ftp://127.0.0.1", "http://[bad"])
def test_nobody_there_is_said_with_a_remedy(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.client.connection._WAITS", (0.01,))
    with pytest.raises(Unreachable, match=r"barlow up|not the address"), Client(url) as client:
        client.nodes()


NOT_OURS = [
    httpx.Response(404, text="<html>"),
    httpx.Response(200, text="<html>", headers={"Content-Type": "text/html"}),
    httpx.Response(200, json={"service": "somebody else's"}),
    httpx.Response(200, json=[]),
    httpx.Response(200, text="[" * 100_000, headers={"Content-Type": "application/json"}),
    httpx.Response(200, text="data: {}\n\n", headers={"Content-Type": "text/event-stream"}),
    httpx.Response(500, text="[" * 100_000, headers={"Content-Type": "application/problem+json"}),
]


@pytest.mark.parametrize(
    "ask",
    [
        lambda client: client.nodes(),
        lambda client: client.submit_job(PRETRAIN),
        lambda client: client.pause("x"),
        lambda client: client.find_job("x"),
        lambda client: client.revoke_token("x"),
        lambda client: client.recipe("x"),
        lambda client: list(client.metrics("x")),
        lambda client: list(client.events("x")),
    ],
)
@pytest.mark.parametrize("answer", NOT_OURS, ids=lambda answer: f"{answer.status_code} {answer.text[:9]}")
def test_another_server_is_not_mistaken_for_the_api(answer: httpx.Response, ask: Callable[[Client], object]) -> None:
    transport = httpx.MockTransport(lambda _: answer)
    with Client("http://other", transport=transport) as client, pytest.raises(ApiError) as caught:
        ask(client)
    assert str(caught.value).startswith("http://other answered ")
    assert "is it really the Barlow Lab API" in str(caught.value)
    assert "by --url or BARLOW_URL" in str(caught.value)


def test_an_answer_that_cannot_be_unpacked_is_nobodys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.client.connection._WAITS", ())

    def answer(_: httpx.Request) -> httpx.Response:
        headers = {"Content-Encoding": "gzip", "Content-Type": "text/event-stream"}
        return httpx.Response(200, stream=httpx.ByteStream(b"plain"), headers=headers)

    with Client("http://other", transport=httpx.MockTransport(answer)) as client:
        for ask in (client.nodes, lambda: list(client.log("x"))):
            with pytest.raises(Unreachable, match="no Barlow Lab API answers at http://other"):
                ask()


@settings(max_examples=50, deadline=None)
@given(data=st.lists(st.text(st.characters(exclude_characters="\r\n", codec="utf-8"), max_size=20), min_size=1))
def test_what_the_api_writes_the_client_reads(data: list[str]) -> None:
    from fastapi.sse import format_sse_event

    sent = "\n".join(data)
    raw = format_sse_event(comment="x") + format_sse_event(event="log", id="7", data_str=sent) + b"data: torn"
    [message] = messages(raw.decode().split("\n"))
    assert (message.event, message.id, message.data) == ("log", "7", sent)


def test_a_line_of_a_stream_ends_at_its_own_ends_alone() -> None:
    sent = "data: a\u2028b\x85c\x0bd\r\n\ndata: e\rdata: f\n\n"
    for size in (1, 2, 3, 100):
        pieces = [sent[at : at + size] for at in range(0, len(sent), size)]
        assert [message.data for message in messages(lines(pieces))] == ["a\u2028b\x85c\x0bd", "e\nf"]
