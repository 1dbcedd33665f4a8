"""What only an admin may do in MLflow, told in words for the audit trail: the act, what it is done to, what was asked.

Every route of `routes` that is an admin's and no submitter's is such an act, whatever it does: what an upgrade of
MLflow adds there is told as well.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from service.tracking.routes import Holder, lines_of, program_path

LONGEST_SUBJECT = 200
LONGEST_REQUEST = 2000

_SUBJECTS = ("runid", "modelid", "experimentid", "name")
"""Fields that name what is acted on, without their underscores: MLflow takes `run_id` and `runId` alike."""


@dataclass(frozen=True, slots=True)
class Act:
    """One act, in ASCII. `request` is what was sent, as JSON, its end cut off where it is long."""

    action: str
    subject: str
    request: str


def act_of(method: str, path: str, body: bytes) -> tuple[Act, bytes] | None:
    """What a request is going to do, and its body written anew, so that MLflow reads what was looked at here.

    None: it is nothing that only an admin may.

    Raises:
        ValueError: the body is no JSON object; the words are for whoever sent it.
    """
    line = next((route for route, access in lines_of(method, path) if _only_admins(access)), None)
    if line is None:
        return None
    asked = _object(body)
    _, template = line.split(" ", 1)
    words = [part for part in template.split("/") if part.isidentifier() or "-" in part]
    kinds = [word for word in words if word not in ("api", "mlflow", "mlflow-artifacts")]
    if method == "DELETE" and not kinds[-1].startswith("delete"):
        kinds.append("delete")
    written = json.dumps(asked)
    # What stands in the path in place of {} or {*}; else what the body names.
    fixed = template.split("{", 1)[0]
    named = program_path(path)[len(fixed) :] if "{" in template else _named(asked)
    act = Act(".".join(("mlflow", *kinds)), _ascii(named)[:LONGEST_SUBJECT] or "-", written[:LONGEST_REQUEST])
    return act, (written.encode() if body else b"")


def _only_admins(access: frozenset[Holder]) -> bool:
    return Holder.ADMIN in access and Holder.SUBMITTER not in access


def _object(body: bytes) -> dict[str, Any]:
    try:
        said: Any = json.loads(body) if body else {}
    except (ValueError, RecursionError):
        raise ValueError("the body is no JSON") from None
    if not isinstance(said, dict):
        raise ValueError("the body is to be a JSON object")
    return said


def _named(asked: dict[str, Any]) -> str:
    plain = {key.replace("_", "").lower(): value for key, value in asked.items()}
    return next((str(plain[field]) for field in _SUBJECTS if field in plain), "")


def _ascii(text: str) -> str:
    return json.dumps(text)[1:-1]
