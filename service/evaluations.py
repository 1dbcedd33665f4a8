"""How an evaluation is named where many stand side by side: its protocol, its data, its backbone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from barlow_lab.specs import BackboneJudged, JobSpec, KnnSpec, LinearSpec, SemiSupervisedSpec, SvmSpec
from barlow_lab.specs.protocols import FollowsProtocol

_NOT_MEASURED = {"name", "run", "resources", "seed", "backbone", "backbone_from", "spec_version"}
"""Fields of an evaluation that say whose backbone it is and how it is run."""


def protocol_of(spec: JobSpec) -> str | None:
    """Kind, protocol and version, as a result quotes it (`linear-document/1`); None for a pretraining, and for a
    protocol that is not known."""
    if not isinstance(spec, BackboneJudged):
        return None
    if isinstance(spec, FollowsProtocol):
        return spec.protocol_name if spec.is_known else None
    return f"{spec.kind}/1" if isinstance(spec, KnnSpec) else None


def data_of(spec: BackboneJudged) -> str:
    """The data set, and what is not usual of its use: other splits than train and test, a limit, part of the labels."""
    words = [spec.data.name]
    splits = (spec.data.split, spec.test_split)
    if splits != ("train", "test"):
        words.append(f"{splits[0]} to {splits[1]}")
    if spec.data.limit is not None:
        words.append(f"first {spec.data.limit:,}")
    if isinstance(spec, SemiSupervisedSpec):
        labels = spec.labels
        drawn = "" if not labels.seed else f" (seed {labels.seed})"
        words.append(f"list {labels.list}" if labels.list else f"{labels.percent:g} % of labels{drawn}")
    return ", ".join(words)


def source_of(spec: BackboneJudged) -> str:
    """Which field of backbone_from says whose backbone is judged: job, file, torchvision, random or pixels."""
    return next(name for name, value in spec.backbone_from if name != "select" and value is not None)


def backbone_of(spec: BackboneJudged, source_job: str | None) -> str:
    """Whose backbone is judged; `source_job` is the name of the job that it comes from, if it comes from one."""
    wanted, source = spec.backbone_from, source_of(spec)
    match source:
        case "job":
            name = source_job or str(wanted.job)
            return name if wanted.select == "last" else f"{name} at {wanted.select}"
        case "random":
            assert spec.backbone is not None, "an untrained backbone is named"
            return f"untrained {spec.backbone.name}, seed {wanted.random}"
        case "pixels":
            return "raw pixels"
        case _:
            return str(getattr(wanted, source))


def measure_of(spec: Mapping[str, Any]) -> dict[str, Any]:
    """What is measured and how: equal for two evaluations that differ in their backbone, or in their seed, alone."""
    return {key: value for key, value in spec.items() if key not in _NOT_MEASURED}


def goes_on(spec: JobSpec) -> bool:
    """Whether a job of this spec writes checkpoints, from which it goes on after a pause, a retry or a lost node.

    The others have nothing that is worth keeping: nearest neighbours and support vector machines train no network, and
    features of un-augmented images are computed again. They start over.
    """
    cached = isinstance(spec, LinearSpec) and spec.protocol == "cached-features"
    return not isinstance(spec, KnnSpec | SvmSpec) and not cached
