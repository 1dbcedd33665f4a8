"""Who may do what in MLflow: each of its routes, by method and path. What is not listed answers nobody.

A path is a template: `{}` stands for one part, `{*}` for any number. MLflow serves most routes twice, below
/api for programs and below /ajax-api for its pages; here both are /api.
"""

from __future__ import annotations

import re
from enum import StrEnum


class Holder(StrEnum):
    """Who asks: the role of an access token, or the recorder."""

    READER = "reader"
    SUBMITTER = "submitter"
    ADMIN = "admin"
    RECORDER = "recorder"


Access = frozenset[Holder]
"""Who may use a route."""

READ: Access = frozenset(Holder)
NOTE: Access = frozenset({Holder.SUBMITTER, Holder.ADMIN, Holder.RECORDER})
RECORD: Access = frozenset({Holder.RECORDER})
REPLACE: Access = frozenset({Holder.ADMIN, Holder.RECORDER})
MANAGE: Access = frozenset({Holder.ADMIN})
CLOSED: Access = frozenset()
"""Nobody, whatever they hold: what runs programs, calls out, or keeps the secrets of others."""

HEALTH = "/health"
"""Whether the process answers; asks for nothing, for container engines."""

GRAPHQL = "/graphql"

_ROUTES: list[tuple[Access, str]] = [
    # Pages, and what they are made of.
    (READ, "GET /"),
    (READ, "GET /version"),
    (READ, "GET /static-files/{*}"),
    (READ, "GET /api/3.0/mlflow/server-info"),
    (READ, "GET /api/3.0/mlflow/ui-telemetry"),  # says that it is off
    (CLOSED, "POST /api/3.0/mlflow/ui-telemetry"),
    (CLOSED, "GET /build/{*}"),  # the folder of the pages under another name
    # Everything that it can be asked reads, its mutations, too; a test holds that against the schema.
    (READ, f"GET {GRAPHQL}"),
    (READ, f"POST {GRAPHQL}"),
    # Experiments.
    (READ, "GET /api/2.0/mlflow/experiments/get"),
    (READ, "GET /api/2.0/mlflow/experiments/get-by-name"),
    (READ, "GET /api/2.0/mlflow/experiments/search"),
    (READ, "POST /api/2.0/mlflow/experiments/search"),
    (READ, "POST /api/2.0/mlflow/experiments/search-datasets"),
    (NOTE, "POST /api/2.0/mlflow/experiments/set-experiment-tag"),
    (NOTE, "POST /api/2.0/mlflow/experiments/delete-experiment-tag"),
    (RECORD, "POST /api/2.0/mlflow/experiments/create"),
    (REPLACE, "POST /api/2.0/mlflow/experiments/restore"),
    (MANAGE, "POST /api/2.0/mlflow/experiments/update"),  # its name
    (MANAGE, "POST /api/2.0/mlflow/experiments/delete"),
    (CLOSED, "POST /api/2.0mlflow/experiments/search-datasets"),  # a slip of the pen, and the same again
    # Runs and their files.
    (READ, "GET /api/2.0/mlflow/runs/get"),
    (READ, "POST /api/2.0/mlflow/runs/search"),
    (READ, "GET /api/2.0/mlflow/metrics/get-history"),
    (READ, "GET /api/2.0/mlflow/metrics/get-history-bulk"),
    (READ, "GET /api/2.0/mlflow/metrics/get-history-bulk-interval"),
    (READ, "GET /api/2.0/mlflow/artifacts/list"),
    (READ, "GET /get-artifact"),
    (READ, "GET /api/2.0/mlflow-artifacts/artifacts"),
    (READ, "GET /api/2.0/mlflow-artifacts/artifacts/{*}"),
    (READ, "GET /api/2.0/mlflow-artifacts/presigned/{*}"),
    (READ, "POST /api/2.0/mlflow/artifacts/presigned-download-url"),
    (NOTE, "POST /api/2.0/mlflow/runs/set-tag"),
    (NOTE, "POST /api/2.0/mlflow/runs/delete-tag"),
    (RECORD, "POST /api/2.0/mlflow/runs/create"),
    (RECORD, "POST /api/2.0/mlflow/runs/update"),
    (RECORD, "POST /api/2.0/mlflow/runs/log-batch"),
    (RECORD, "PUT /api/2.0/mlflow-artifacts/artifacts/{*}"),
    (REPLACE, "POST /api/2.0/mlflow/runs/delete"),
    (MANAGE, "POST /api/2.0/mlflow/runs/restore"),
    (MANAGE, "DELETE /api/2.0/mlflow-artifacts/artifacts/{*}"),
    (RECORD, "POST /api/2.0/mlflow/runs/log-metric"),
    (CLOSED, "POST /api/2.0/mlflow/runs/log-parameter"),
    (CLOSED, "POST /api/2.0/mlflow/runs/log-model"),
    (RECORD, "POST /api/2.0/mlflow/runs/log-inputs"),
    (CLOSED, "POST /api/2.0/mlflow/runs/outputs"),
    (CLOSED, "POST /api/2.0/mlflow/runs/create-promptlab-run"),
    (CLOSED, "POST /api/2.0/mlflow/upload-artifact"),
    (CLOSED, "POST /api/2.0/mlflow/artifacts/presigned-upload-url"),
    (CLOSED, "POST /api/2.0/mlflow-artifacts/mpu/create/{*}"),
    (CLOSED, "POST /api/2.0/mlflow-artifacts/mpu/complete/{*}"),
    (CLOSED, "POST /api/2.0/mlflow-artifacts/mpu/abort/{*}"),
    # Models: nothing of ours makes one, an admin may, of what was recorded.
    (READ, "GET /api/2.0/mlflow/logged-models/{}"),
    (READ, "GET /api/2.0/mlflow/logged-models/{}/artifacts/directories"),
    (READ, "GET /api/2.0/mlflow/logged-models/{}/artifacts/files"),
    (READ, "POST /api/2.0/mlflow/logged-models/search"),
    (NOTE, "PATCH /api/2.0/mlflow/logged-models/{}/tags"),
    (NOTE, "DELETE /api/2.0/mlflow/logged-models/{}/tags/{}"),
    (MANAGE, "DELETE /api/2.0/mlflow/logged-models/{}"),
    (CLOSED, "POST /api/2.0/mlflow/logged-models"),
    (CLOSED, "PATCH /api/2.0/mlflow/logged-models/{}"),
    (CLOSED, "POST /api/2.0/mlflow/logged-models/{}/params"),
    (READ, "GET /api/2.0/mlflow/registered-models/get"),
    (READ, "GET /api/2.0/mlflow/registered-models/search"),
    (READ, "GET /api/2.0/mlflow/registered-models/alias"),
    (READ, "GET /api/2.0/mlflow/registered-models/get-latest-versions"),
    (READ, "POST /api/2.0/mlflow/registered-models/get-latest-versions"),
    (NOTE, "PATCH /api/2.0/mlflow/registered-models/update"),  # its description
    (NOTE, "POST /api/2.0/mlflow/registered-models/set-tag"),
    (NOTE, "DELETE /api/2.0/mlflow/registered-models/delete-tag"),
    (MANAGE, "POST /api/2.0/mlflow/registered-models/create"),
    (MANAGE, "POST /api/2.0/mlflow/registered-models/rename"),
    (MANAGE, "POST /api/2.0/mlflow/registered-models/alias"),
    (MANAGE, "DELETE /api/2.0/mlflow/registered-models/alias"),
    (MANAGE, "DELETE /api/2.0/mlflow/registered-models/delete"),
    (READ, "GET /api/2.0/mlflow/model-versions/get"),
    (READ, "GET /api/2.0/mlflow/model-versions/search"),
    (READ, "GET /api/2.0/mlflow/model-versions/get-download-uri"),
    (READ, "GET /model-versions/get-artifact"),
    (NOTE, "PATCH /api/2.0/mlflow/model-versions/update"),  # its description
    (NOTE, "POST /api/2.0/mlflow/model-versions/set-tag"),
    (NOTE, "DELETE /api/2.0/mlflow/model-versions/delete-tag"),
    (MANAGE, "POST /api/2.0/mlflow/model-versions/create"),
    (MANAGE, "POST /api/2.0/mlflow/model-versions/transition-stage"),
    (MANAGE, "DELETE /api/2.0/mlflow/model-versions/delete"),
    # Traces of language models, and what belongs to them: nothing of ours makes one. Its pages look all the same.
    (READ, "GET /api/2.0/mlflow/traces"),
    (READ, "GET /api/2.0/mlflow/traces/{}/info"),
    (READ, "GET /api/2.0/mlflow/get-trace-artifact"),
    (READ, "GET /api/3.0/mlflow/get-trace-artifact"),
    (READ, "GET /api/2.0/mlflow/get-online-trace-details"),
    (READ, "GET /api/2.0/mlflow/unified-traces"),
    (READ, "GET /api/3.0/mlflow/traces/{}"),
    (READ, "GET /api/3.0/mlflow/traces/{}/assessments/{}"),
    (READ, "GET /api/3.0/mlflow/traces/get"),
    (READ, "GET /api/3.0/mlflow/traces/batchGet"),
    (READ, "POST /api/3.0/mlflow/traces/batchGetInfos"),
    (READ, "POST /api/3.0/mlflow/traces/calculate-filter-correlation"),
    (READ, "POST /api/3.0/mlflow/traces/metrics"),
    (READ, "POST /api/3.0/mlflow/traces/search"),
    (MANAGE, "POST /api/2.0/mlflow/traces/delete-traces"),
    (MANAGE, "POST /api/3.0/mlflow/traces/delete-traces"),
    (READ, "GET /api/3.0/mlflow/datasets/{}"),
    (READ, "GET /api/3.0/mlflow/datasets/{}/experiment-ids"),
    (READ, "GET /api/3.0/mlflow/datasets/{}/records"),
    (READ, "GET /api/3.0/mlflow/datasets/search"),
    (READ, "POST /api/3.0/mlflow/datasets/search"),
    (READ, "GET /api/3.0/mlflow/issues/{}"),
    (READ, "POST /api/3.0/mlflow/issues/search"),
    (READ, "GET /api/3.0/mlflow/label-schemas/get"),
    (READ, "GET /api/3.0/mlflow/label-schemas/get-by-name"),
    (READ, "GET /api/3.0/mlflow/label-schemas/list"),
    (READ, "GET /api/3.0/mlflow/review-queues/get"),
    (READ, "GET /api/3.0/mlflow/review-queues/get-by-name"),
    (READ, "GET /api/3.0/mlflow/review-queues/items/list"),
    (READ, "GET /api/3.0/mlflow/review-queues/list"),
    (READ, "GET /api/3.0/mlflow/workspaces"),
    (READ, "GET /api/3.0/mlflow/workspaces/{}"),
    (CLOSED, "POST /v1/traces"),
    (CLOSED, "POST /api/2.0/mlflow/traces"),
    (CLOSED, "POST /api/3.0/mlflow/traces"),
    (CLOSED, "PATCH /api/2.0/mlflow/traces/{}"),
    (CLOSED, "PATCH /api/2.0/mlflow/traces/{}/tags"),
    (CLOSED, "DELETE /api/2.0/mlflow/traces/{}/tags"),
    (CLOSED, "PATCH /api/3.0/mlflow/traces/{}/tags"),
    (CLOSED, "DELETE /api/3.0/mlflow/traces/{}/tags"),
    (CLOSED, "POST /api/2.0/mlflow/traces/link-prompts"),
    (CLOSED, "POST /api/2.0/mlflow/traces/link-to-run"),
    (CLOSED, "POST /api/3.0/mlflow/traces/{}/assessments"),
    (CLOSED, "PATCH /api/3.0/mlflow/traces/{}/assessments/{}"),
    (CLOSED, "DELETE /api/3.0/mlflow/traces/{}/assessments/{}"),
    (CLOSED, "POST /api/3.0/mlflow/datasets/create"),
    (CLOSED, "DELETE /api/3.0/mlflow/datasets/{}"),
    (CLOSED, "POST /api/3.0/mlflow/datasets/{}/add-experiments"),
    (CLOSED, "POST /api/3.0/mlflow/datasets/{}/remove-experiments"),
    (CLOSED, "POST /api/3.0/mlflow/datasets/{}/records"),
    (CLOSED, "DELETE /api/3.0/mlflow/datasets/{}/records"),
    (CLOSED, "PATCH /api/3.0/mlflow/datasets/{}/tags"),
    (CLOSED, "DELETE /api/3.0/mlflow/datasets/{}/tags/{}"),
    (CLOSED, "POST /api/3.0/mlflow/issues"),
    (CLOSED, "PATCH /api/3.0/mlflow/issues/{}"),
    (CLOSED, "POST /api/3.0/mlflow/label-schemas/create"),
    (CLOSED, "PATCH /api/3.0/mlflow/label-schemas/update"),
    (CLOSED, "DELETE /api/3.0/mlflow/label-schemas/delete"),
    (CLOSED, "POST /api/3.0/mlflow/review-queues/{*}"),
    (CLOSED, "POST /api/3.0/mlflow/workspaces"),
    (CLOSED, "PATCH /api/3.0/mlflow/workspaces/{}"),
    (CLOSED, "DELETE /api/3.0/mlflow/workspaces/{}"),
    # What runs programs, calls other servers, or keeps keys for them.
    (CLOSED, "* /api/3.0/mlflow/assistant/{*}"),
    (CLOSED, "* /gateway/{*}"),
    (CLOSED, "* /api/3.0/mlflow/gateway/{*}"),
    (CLOSED, "* /api/2.0/mlflow/gateway-proxy"),
    (CLOSED, "* /api/2.0/mlflow/webhooks"),
    (CLOSED, "* /api/2.0/mlflow/webhooks/{*}"),
    (CLOSED, "* /api/3.0/jobs/{*}"),
    (CLOSED, "* /api/3.0/mlflow/jobs/{*}"),
    (CLOSED, "* /api/3.0/mlflow/mcp-servers"),
    (CLOSED, "* /api/3.0/mlflow/mcp-servers/{*}"),
    (CLOSED, "* /api/3.0/mlflow/prompt-optimization/{*}"),
    (CLOSED, "* /api/3.0/mlflow/scorers/{*}"),
    (CLOSED, "POST /api/3.0/mlflow/scorer/invoke"),
    (CLOSED, "POST /api/3.0/mlflow/genai/evaluate/invoke"),
    (CLOSED, "POST /api/3.0/mlflow/issues/invoke"),
    (CLOSED, "POST /api/3.0/mlflow/demo/generate"),
    (CLOSED, "POST /api/3.0/mlflow/demo/delete"),
]

OF_TEMPLATE = {route: access for access, route in _ROUTES}
"""Who may use each route, by method and template."""

_ANY = "any"


def access_to(method: str, path: str) -> Access:
    """Who may use a route; nobody, if it is not listed. `path` is decoded, as MLflow sees it."""
    found = [access for _, access in lines_of(method, path)]
    # Where two fit, as `datasets/{}` and `datasets/search`, nobody gets more than either gives.
    return frozenset.intersection(*found) if found else CLOSED


def lines_of(method: str, path: str) -> list[tuple[str, Access]]:
    """The lines of the list that fit a request, with what each gives."""
    method = "GET" if method == "HEAD" else method
    if _odd(path):
        return []
    path = program_path(path)
    return [
        (line, access) for line, who, pattern, access in _PATTERNS if who in (method, _ANY) and pattern.fullmatch(path)
    ]


def program_path(path: str) -> str:
    """The path as programs ask for it: what the pages ask below /ajax-api stands below /api, too."""
    return "/api/" + path.removeprefix("/ajax-api/") if path.startswith("/ajax-api/") else path


def _odd(path: str) -> bool:
    """Whether a path could be read in two ways: empty parts, steps upwards, or characters that no path of ours has."""
    parts = path.split("/")[1:]
    return any(part in (".", "..") for part in parts) or "" in parts[:-1] or not path.isprintable() or "\\" in path


def _pattern(template: str) -> re.Pattern[str]:
    return re.compile(re.escape(template).replace(r"\{\*\}", ".+").replace(r"\{\}", "[^/]+"))


_PATTERNS = [
    (route, _ANY if method == "*" else method, _pattern(template), access)
    for access, route, (method, template) in ((access, route, route.split(" ", 1)) for access, route in _ROUTES)
]
