"""How an evaluation is named where many stand side by side: its protocol, its data, its backbone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from barlow_lab.specs import BackboneJudged, JobSpec, written_out

_NOT_MEASURED = {"name", "run", "resources", "seed", "backbone", "backbone_from", "spec_version"}
"""Fields of an evaluation that say whose backbone it is and how it is run."""


def protocol_of(spec: JobSpec) -> str | None:
    """Kind, protocol and version, as a result quotes it (`linear-document/1`); None where no backbone is judged,
    and for a protocol that is not known."""
    return spec.protocol_name if isinstance(spec, BackboneJudged) and spec.is_known else None


def data_of(spec: BackboneJudged) -> str:
    """The data set, and what is not usual of its use: other splits than train and test, a limit, part of the labels."""
    words = [spec.data.name]
    splits = (spec.data.split, spec.test_split)
    if splits != ("train", "test"):
        words.append(f"{splits[0]} to {splits[1]}")
    if spec.data.limit is not None:
        words.append(f"first {spec.data.limit:,}")
    if (labels := spec.labels_in_words) is not None:
        words.append(labels)
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
    """What is measured and how, of a stored spec: equal for two evaluations that differ in their backbone, or in their
    seed, alone."""
    return {key: value for key, value in written_out(spec).items() if key not in _NOT_MEASURED}
