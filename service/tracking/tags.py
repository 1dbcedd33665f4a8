"""Tags of runs and experiments: which ones are the recorder's alone."""

from __future__ import annotations

import json
import re
from typing import Any

TAGGED = re.compile(r"/api/2\.0/mlflow/(?:runs/(?:set|delete)-tag|experiments/(?:set|delete)-experiment-tag)")
"""Paths whose body names the tag of a run or an experiment."""

_NOTES = re.compile(
    r"mlflow\.(?:note\.content|runName|runColor|experimentKind|experiment\.isFavorite|sharedViewState\..*)"
)
"""What MLflow's own pages write for a person: a description, a name, how a page is shown."""


def checked_tag(body: bytes) -> bytes:
    """A request to set or delete a tag, written anew, so that MLflow reads what was looked at here.

    The recorder finds a job's run by `barlow.job_id`, and deletes whatever else carries it; who ran it, and from what,
    stands in MLflow's own tags.

    Raises:
        ValueError: it is no such request, or the tag is the recorder's; the words are for whoever sent it.
    """
    try:
        request: Any = json.loads(body)
    except (ValueError, RecursionError):
        raise ValueError("the body is no JSON") from None
    key = request.get("key") if isinstance(request, dict) else None
    if not isinstance(key, str):
        raise ValueError('the body is to be a JSON object with a text "key", the tag')
    if key.startswith("barlow.") or (key.startswith("mlflow.") and not _NOTES.fullmatch(key)):
        raise ValueError(f"the tag {key[:200]!r} is written by the recorder of Barlow Lab alone; take another name")
    return json.dumps(request).encode()
