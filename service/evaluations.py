"""How an evaluation is named where many stand side by side: its protocol, its data, its backbone.

Everything is read from the resolved spec as it was stored, which is not validated again: it may name a backbone of
one's own that is not installed here, or be of an older version.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trainer.specs.parsing import KINDS
from trainer.specs.protocols import FollowsProtocol

_NOT_MEASURED = {"name", "run", "resources", "seed", "backbone", "backbone_from", "spec_version"}
"""Fields of an evaluation that say whose backbone it is and how it is run."""


def protocol_of(spec: Mapping[str, Any]) -> str | None:
    """Kind, protocol and version, as a result quotes it (`linear-document/1`); None for a pretraining."""
    model = KINDS.get(spec["kind"])
    if model is None or "backbone_from" not in spec:
        return None
    if not issubclass(model, FollowsProtocol):
        return f"{spec['kind']}/1"
    protocol = model.PROTOCOLS.get(spec.get("protocol", ""))
    return None if protocol is None else f"{spec['kind'].replace('_', '-')}-{spec['protocol']}/{protocol.version}"


def data_of(spec: Mapping[str, Any]) -> str:
    """The data set, and what is not usual of its use: other splits than train and test, a limit, part of the labels."""
    data = spec["data"]
    words = [data["name"]]
    splits = (data["split"], spec["test_split"])
    if splits != ("train", "test"):
        words.append(f"{splits[0]} to {splits[1]}")
    if data["limit"] is not None:
        words.append(f"first {data['limit']:,}")
    if labels := spec.get("labels"):
        drawn = "" if not labels["seed"] else f" (seed {labels['seed']})"
        words.append(f"list {labels['list']}" if labels["list"] else f"{labels['percent']:g} % of labels{drawn}")
    return ", ".join(words)


def source_of(spec: Mapping[str, Any]) -> str:
    """Which field of backbone_from says whose backbone is judged: job, file, torchvision, random or pixels."""
    given: Mapping[str, Any] = spec["backbone_from"]
    return next(name for name, value in given.items() if name != "select" and value is not None)


def backbone_of(spec: Mapping[str, Any], source_job: str | None) -> str:
    """Whose backbone is judged; `source_job` is the name of the job that it comes from, if it comes from one."""
    wanted, source = spec["backbone_from"], source_of(spec)
    match source:
        case "job":
            name = source_job or str(wanted["job"])
            return name if wanted["select"] == "last" else f"{name} at {wanted['select']}"
        case "random":
            return f"untrained {spec['backbone']['name']}, seed {wanted['random']}"
        case "pixels":
            return "raw pixels"
        case _:
            return str(wanted[source])


def measure_of(spec: Mapping[str, Any]) -> dict[str, Any]:
    """What is measured and how: equal for two evaluations that differ in their backbone, or in their seed, alone."""
    return {key: value for key, value in spec.items() if key not in _NOT_MEASURED}


def goes_on(spec: Mapping[str, Any]) -> bool:
    """Whether a job of this spec writes checkpoints, from which it goes on after a pause, a retry or a lost node.

    The others have nothing that is worth keeping: nearest neighbours and support vector machines train no network, and
    features of un-augmented images are computed again. They start over.
    """
    return spec["kind"] not in ("knn", "svm") and spec.get("protocol") != "cached-features"
