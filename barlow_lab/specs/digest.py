"""The digest of a spec: the same science has the same digest."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from barlow_lab.specs.kinds import KindSpec


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spaces: one text for one value."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False)


def digest(spec: KindSpec) -> str:
    """SHA-256 (hex) over what differs from the defaults of the spec version, without `name`, `resources` and `run`.

    The result does not depend on the number of ranks, so neither does the digest.
    A default that a later spec version adds leaves the digests of older specs as they are.
    """
    changed = _pruned(
        spec.as_written_out().model_dump(
            mode="json", by_alias=True, exclude_defaults=True, exclude={"name", "resources", "run"}
        )
    )
    science = {**changed, "kind": spec.kind, "spec_version": spec.spec_version}
    return hashlib.sha256(canonical_json(science).encode()).hexdigest()


def _pruned(value: dict[str, Any]) -> dict[str, Any]:
    inner = {k: _pruned(v) if isinstance(v, dict) else v for k, v in value.items()}
    return {k: v for k, v in inner.items() if v != {}}
