"""Every route of the installed MLflow is classified, and what runs things or calls out is closed to everybody."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from service.tracking.routes import CLOSED, HEALTH, OF_TEMPLATE, READ, Access, access_to, program_path

_WALK = """
import json, re
from mlflow.server import app as flask
from mlflow.server.fastapi_app import app
from mlflow.server.graphql.graphql_schema_extensions import schema

found = []
for route in app.routes:
    assert type(route).__name__ in ("_IncludedRouter", "Mount"), route
    for context in route.effective_route_contexts() if hasattr(route, "effective_route_contexts") else ():
        methods = context.methods or ["WEBSOCKET"]
        template = re.sub(r"{[^}:*]*}", "{}", re.sub(r"{[^}]*:path}", "{*}", context.path))
        found += [(method, template) for method in methods]
for rule in flask.url_map.iter_rules():
    template = re.sub("<[^>]*>", "{}", re.sub("<path:[^>]*>", "{*}", rule.rule))
    found += [(method, template) for method in rule.methods - {"HEAD", "OPTIONS"}]
asked = [sorted(getattr(schema.graphql_schema, kind).fields) for kind in ("query_type", "mutation_type")]
print(json.dumps([found, asked, bool(schema.graphql_schema.subscription_type)]))
"""

_OF_NOBODY = (
    "assistant",
    "gateway",
    "webhooks",
    "jobs",
    "prompt-optimization",
    "scorer",
    "invoke",
    "demo",
    "mcp-servers",
)
"""Words in the paths of what runs programs, calls other servers or keeps their keys."""


@pytest.fixture(scope="module")
def walked(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[tuple[str, str]], list[list[str]]]:
    """Routes (method, template) and what GraphQL can be asked, as MLflow itself tells them, in a process of its own."""
    home = tmp_path_factory.mktemp("home")
    environment = {**os.environ, "HOME": str(home), "MLFLOW_DISABLE_TELEMETRY": "true", "GIT_PYTHON_REFRESH": "quiet"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _WALK], cwd=home, env=environment, stdout=subprocess.PIPE, check=True
    )
    found, asked, subscriptions = json.loads(done.stdout)
    assert not subscriptions
    assert len(found) > 300
    return [tuple(route) for route in found], asked


def test_every_route_is_classified_by_its_own_template(walked: tuple[list[tuple[str, str]], list[list[str]]]) -> None:
    unknown = {(method, path) for method, path in walked[0] if _said(method, path) is None and path != HEALTH}
    assert unknown == set(), "say in service/tracking/routes.py who may use them"


def test_each_route_gives_what_its_own_line_says(walked: tuple[list[tuple[str, str]], list[list[str]]]) -> None:
    for method, path in walked[0]:
        if path != HEALTH:
            assert access_to(method, path.replace("{*}", "a/b").replace("{}", "a")) == _said(method, path), path


def test_nobody_may_what_runs_programs_or_calls_out(walked: tuple[list[tuple[str, str]], list[list[str]]]) -> None:
    closed = {(method, path) for method, path in walked[0] if any(word in path for word in _OF_NOBODY)}
    assert len(closed) > 100
    assert {route for route in closed if _said(*route)} == set()


def test_no_line_is_of_a_route_that_is_gone(walked: tuple[list[tuple[str, str]], list[list[str]]]) -> None:
    there = {f"{method} {program_path(path)}" for method, path in walked[0]}
    lines = {line for line in OF_TEMPLATE if not line.startswith("* ") and not line.endswith("{*}")}
    assert lines - there == set()


def test_graphql_only_reads(walked: tuple[list[tuple[str, str]], list[list[str]]]) -> None:
    query, mutation = walked[1]
    assert set(query) == {
        *("mlflowGetExperiment", "mlflowGetMetricHistoryBulkInterval", "mlflowGetRun", "mlflowListArtifacts"),
        *("mlflowSearchModelVersions", "mlflowSearchRuns", "test"),
    }
    assert set(mutation) == {"mlflowSearchDatasets", "mlflowSearchRuns", "testMutation"}


@pytest.mark.parametrize(
    "path",
    [
        *(
            "/no-such",
            "//",
            "/static-files//x",
            "/static-files/../ajax-api/3.0/mlflow/assistant/config",
            "/API/2.0/mlflow",
        ),
        *("/ajax-api/2.0/mlflow/experiments/search/", "//api/2.0/mlflow/experiments/search", "/graphql/", "/x/graphql"),
        *("/get-artifact\x00", "/static-files/a\\b", "/static-files/a\nb", "/Get-Artifact", "/api/ajax-api/3.0/mlflow"),
        *("/api/2.0/mlflow-artifacts/artifacts/a/../b", "/api/2.0/mlflow-artifacts/artifacts/./b", "/health/", "x", ""),
        "/ajax-api/3.0/mlflow/traces/../assistant/config",
    ],
)
def test_what_is_not_listed_or_could_be_read_in_two_ways_is_closed(path: str) -> None:
    for method in ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE", "CONNECT", "get", "PROPFIND"):
        assert access_to(method, path) == CLOSED


def test_a_head_asks_for_what_a_get_does() -> None:
    assert access_to("HEAD", "/") == access_to("GET", "/") == READ
    assert access_to("OPTIONS", "/") == CLOSED


def _said(method: str, template: str) -> Access | None:
    """What the line of a template says; of those that close a whole folder, their line."""
    path = program_path(template)
    found = OF_TEMPLATE.get(f"{method} {path}")
    if found is not None:
        return found
    for line, access in OF_TEMPLATE.items():
        who, known = line.split(" ", 1)
        whole = known == path or (known.endswith("{*}") and path.startswith(known.removesuffix("{*}")))
        if access == CLOSED and who in ("*", method) and whole:
            return access
    return None


def test_this_file_speaks_of_the_version_that_is_pinned() -> None:
    pins = (Path(__file__).resolve().parents[2] / "constraints.txt").read_text()
    assert "mlflow==3.17.2" in pins
