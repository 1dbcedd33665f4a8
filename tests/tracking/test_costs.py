"""What one visitor may cost: headers without end, searches of a minute, and more requests than their share."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import socket
from typing import Any

import pytest
from tracking_kit import Tracking

from service.tracking.concurrency import AT_ONCE, VisitorLimits
from service.tracking.searches import MOST, refuse_costly


def test_headers_without_end_are_not_taken_in(tracking: Tracking) -> None:
    sent = 0
    with socket.create_connection(("127.0.0.1", tracking.mlflow.port), timeout=30) as connection:
        connection.sendall(f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{tracking.mlflow.port}\r\n".encode())
        with contextlib.suppress(ConnectionError):
            while sent < 30_000_000:
                sent += connection.send(b"X-More: " + b"a" * 10_000 + b"\r\n")
    assert sent < 30_000_000


def test_a_search_is_of_bounded_cost(tracking: Tracking) -> None:
    def search(**asked: Any) -> int:
        return tracking.post("runs/search", "reader", experiment_ids=["0"], **asked).status_code

    def joined(number: int) -> str:
        return " AND ".join(f"metrics.m{i} > 1" for i in range(number))

    assert search(filter=joined(5), order_by=["metrics.loss ASC"]) == 200
    assert search(filter=joined(MOST + 1)) == 400
    assert search(order_by=[f"metrics.m{i}" for i in range(MOST + 1)]) == 400
    variables = {"data": {"experimentIds": ["0"], "orderBy": [f"metrics.m{i}" for i in range(MOST + 1)]}}
    query = {"query": "query Q($data: MlflowSearchRunsInput!) {mlflowSearchRuns(input: $data) {runs {info {runId}}}}"}
    asked = {**query, "operationName": "Q", "variables": variables}
    refused = tracking.ask("POST", "/graphql", "reader", json=asked)
    assert refused.status_code == 400
    assert f"at most {MOST} keys" in refused.json()["message"]
    assert tracking.ask("GET", "/api/2.0/mlflow/experiments/search", "reader", params={"filter": joined(40)}).is_error


_OUTPUT = '{test(inputString: "x") {output}}'


@pytest.mark.parametrize(
    "body",
    [
        {"query": "{a" * 5000 + "}" * 5000},
        {"query": '{test(inputString: "}}}' + "[" * 300 + "]" * 300 + '") {output}}'},
        {"query": "{test(inputString: " + "[" * 300 + "]" * 300 + ") {output}}"},
        {"query": "query($a: " + "[" * 500 + "Int" + "]" * 500 + ") {test(inputString: $a) {output}}"},
        {"query": '{test(inputString: "x") {' + "output " * 900 + "}}"},
        {"query": "{"},
        {"query": None},
        {"query": 5},
        {},
        [],
        [{"query": _OUTPUT}],
        json.dumps({"query": _OUTPUT}),
        {"query": _OUTPUT, "variables": "x"},
        {"query": _OUTPUT, "variables": [1]},
    ],
    ids=lambda body: json.dumps(body)[:40],
)
def test_what_is_no_graphql_is_refused_before_mlflow_breaks_at_it(tracking: Tracking, body: Any) -> None:
    for role in ("reader", "admin"):
        refused = tracking.ask("POST", "/graphql", role, json=body)
        assert refused.status_code == 400, refused.text
        assert refused.json()["message"]
    answered = tracking.ask("POST", "/graphql", "reader", json={"query": _OUTPUT, "variables": None})
    assert answered.json()["data"] == {"test": {"output": "x"}}


def test_a_token_that_is_of_no_page_is_refused_before_mlflow_breaks_at_it(tracking: Tracking) -> None:
    for said in ("[]", "null", "5", '"a"', '{"offset": []}', '{"offset": -1}', '{"offset": 1e999}', "[" * 30_000, "a"):
        token = base64.b64encode(said.encode()).decode()
        refused = tracking.post("runs/search", "reader", experiment_ids=["0"], page_token=token)
        assert refused.status_code == 400, said
        params = {"page_token": token[:1000]}
        assert tracking.ask("GET", "/api/2.0/mlflow/experiments/search", "reader", params=params).status_code == 400, (
            said
        )
    for odd in ("%%%", "\u00e9", "/w=="):
        assert tracking.post("logged-models/search", "reader", experiment_ids=["0"], page_token=odd).status_code == 400
    last = base64.b64encode(b'{"offset": 1000}').decode()
    assert tracking.post("runs/search", "reader", experiment_ids=["0"], page_token=last).status_code == 200
    assert tracking.post("runs/search", "reader", experiment_ids=["0"], page_token="").status_code == 200


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/graphql"), ("POST", "/graphql"), ("POST", "/graphql?query={a}")]
)
def test_nor_is_no_question_at_all(tracking: Tracking, method: str, path: str) -> None:
    assert tracking.ask(method, path, "reader").status_code == 400


def test_a_body_is_nested_so_deep(tracking: Tracking) -> None:
    """What reads it next goes less deep: it is called from further down."""
    for depth in (100, 930, 30_000):
        content = b'{"max_results": 1, "x": ' + b"[" * depth + b"]" * depth + b"}"
        for path in ("/api/2.0/mlflow/experiments/search", "/graphql"):
            assert tracking.ask("POST", path, "reader", content=content).status_code == 400


@pytest.mark.parametrize(
    "body",
    [
        {"filter": "metrics.a > 1E5and " * 40},
        {"filter": "metrics.a = 'x'aNd " * 40},
        {"query": '{mlflowSearchRuns(input: {filter: "' + "a > 1 \\u0061nd " * 40 + '"}) {runs {info {runId}}}}'},
        {"query": '{mlflowSearchRuns(input: {filter: "' + "a > 1 \\u{61}nd " * 40 + '"}) {runs {info {runId}}}}'},
        {"query": "{mlflowSearchRuns(input: {orderBy: [" + '"metrics.a" ' * 200 + "]}) {runs {info {runId}}}}"},
        {"variables": {"data": {"orderBy": 40 * ["a"]}}},
        {"order_by": [{"field_name": f"metrics.{i}"} for i in range(40)]},
        json.dumps({"order_by": 40 * ["a"]}),
        "no JSON in JSON",
    ],
)
def test_however_it_is_written(body: Any) -> None:
    with pytest.raises(ValueError, match=r"most|JSON"):
        refuse_costly(b"", json.dumps(body).encode())
    with pytest.raises(ValueError, match="at most"):
        refuse_costly(b"&".join(40 * [b"order_by=a"]), b"")


def test_what_people_ask_is_let_through() -> None:
    asked = {"filter": "tags.a = 'sand and band' AND attributes.run_id IN ('a', 'b')", "run_ids": 500 * ["a"]}
    refuse_costly(b"run_ids=a&run_ids=b&metric_key=loss", json.dumps(asked).encode())
    refuse_costly(b"", b"")


def test_one_visitor_takes_so_many_turns_and_no_other_waits_for_them() -> None:
    async def crowd() -> None:
        turns, there, full, go = VisitorLimits(), 0, asyncio.Event(), asyncio.Event()

        async def come(name: str) -> None:
            nonlocal there
            async with turns.take(name):
                there += 1
                if there == AT_ONCE:
                    full.set()
                await go.wait()
                there -= 1

        greedy = [asyncio.create_task(come("greedy")) for _ in range(3 * AT_ONCE)]
        await full.wait()
        async with turns.take("modest"):
            assert there == AT_ONCE
        greedy[-1].cancel()
        go.set()
        await asyncio.gather(*greedy, return_exceptions=True)
        assert there == 0
        assert turns._turns == turns._there == {}

    asyncio.run(crowd())
