"""Named, versioned protocols: a name stands for values of a spec's fields, each with where it comes from.

A spec that names a protocol takes its values for all that it does not say itself; what it says otherwise is listed in
the result as `departures`, so no number is quoted under a protocol that was not followed.

A protocol's version rises when the same fields come to give another result.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from barlow_lab.specs.common import SpecModel, refuse


@dataclass(frozen=True, slots=True)
class EvaluationProtocol:
    """`values` are fields of the spec; `source` is what they were taken from, discrepancies named."""

    version: int
    source: str
    values: Mapping[str, Any]
    changed: str = ""
    """What this version does otherwise than the one before it."""
    goes_on_from: int | None = None
    """The oldest version whose checkpoints this one goes on from: the same data mean the same to both. None: only its
    own."""


COSINE = {"shape": "cosine"}
"""A schedule, as a protocol writes it."""


class ScheduleSpec(SpecModel):
    """How the rate falls over a run: by a cosine to 0, or by a factor after given parts of it."""

    shape: Literal["cosine", "steps"] = Field("cosine", description="A cosine to 0, or drops by `factor`")
    after: list[float] = Field(
        default_factory=list, max_length=20, description="steps: parts of the run after which the rate falls, as 0.6"
    )
    factor: float = Field(0.1, gt=0.0, lt=1.0, description="steps: what the rate is multiplied by each time")

    @model_validator(mode="after")
    def _shape(self) -> ScheduleSpec:
        faults: dict[tuple[str, ...], str] = {}
        if self.shape == "cosine" and self.after:
            faults["after",] = "a cosine has no steps; leave after out, or set shape: steps"
        if self.shape == "cosine" and self.factor != type(self).model_fields["factor"].default:
            faults["factor",] = "a cosine has no steps; leave factor out, or set shape: steps and say after which parts"
        if self.shape == "steps" and not self.after:
            faults["after",] = "say after which parts of the run the rate falls, for example [0.6, 0.8]"
        if any(not 0 < a < 1 for a in self.after) or sorted(set(self.after)) != list(self.after):
            faults["after",] = f"rising parts of the run between 0 and 1 are expected, not {self.after}"
        refuse(faults)
        return self


_FORMER = "document"
"""What the protocols of the Barlow Twins paper were first called: so they stay in digests, stored results, groups."""
PAPER = "paper"
"""What they are called in a spec that a person writes, and where a person reads."""


def shown_protocol(told: str) -> str:
    """A protocol as people read it, of what a result quotes: `linear-paper/1` for `linear-document/1`."""
    return re.sub(rf"(^|-){_FORMER}(/|$)", rf"\1{PAPER}\2", told)


class FollowsProtocol(SpecModel):
    """Mixed into a spec with a field `protocol`: fills what the user left out from PROTOCOLS[protocol]."""

    PROTOCOLS: ClassVar[Mapping[str, EvaluationProtocol]] = {}

    @model_validator(mode="before")
    @classmethod
    def _from_protocol(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        if value.get("protocol") == PAPER and _FORMER in cls.PROTOCOLS:
            value = {**value, "protocol": _FORMER}
        name = value.get("protocol", cls.model_fields["protocol"].default)
        known = cls.PROTOCOLS.get(name) if isinstance(name, str) else None
        if known is None:
            return value  # the field itself refuses it
        return {**{field: one for field, one in known.values.items() if field not in value}, **value}

    @property
    def is_known(self) -> bool:
        """Whether this version knows the protocol: a stored spec may name a former one."""
        return self.protocol in self.PROTOCOLS  # type: ignore[attr-defined]

    @property
    def protocol_name(self) -> str:
        """Kind, protocol and version, as a result quotes it: `linear-document/1`."""
        kind, name = self.kind.replace("_", "-"), self.protocol  # type: ignore[attr-defined]
        return f"{kind}-{name}/{self.PROTOCOLS[name].version}"

    @property
    def protocol_version(self) -> int:
        return self.PROTOCOLS[self.protocol].version  # type: ignore[attr-defined]

    def refused_version(self, begun: int) -> str | None:
        """Why a run that began under version `begun` of the protocol cannot go on, with the remedy; None: it can."""
        followed = self.PROTOCOLS[self.protocol]  # type: ignore[attr-defined]
        oldest = followed.version if followed.goes_on_from is None else followed.goes_on_from
        if oldest <= begun <= followed.version:
            return None
        name = shown_protocol(self.protocol_name)
        was = f"{name.rpartition('/')[0]}/{begun}"
        changed = f" ({followed.changed})" if begun < followed.version and followed.changed else ""
        return (
            f"this run began under {was}, and here its result would be one of {name}{changed}: submit it as a new job, "
            "or end it with the version of Barlow Lab that it began with"
        )

    def departures(self) -> dict[str, dict[str, Any]]:
        """Fields that are not the protocol's: {field: {"protocol": its value, "here": the value}}."""
        values = self.PROTOCOLS[self.protocol].values  # type: ignore[attr-defined]
        ours = self.model_dump(mode="json", include=set(values))
        theirs = {field: _written_out(value, getattr(self, field)) for field, value in values.items()}
        return {f: {"protocol": theirs[f], "here": ours[f]} for f in values if ours[f] != theirs[f]}


def _written_out(value: Any, like: Any) -> Any:
    """A protocol's value of a field, whose value in a spec is `like`, as a spec dumps it."""
    if isinstance(value, Mapping) and isinstance(like, SpecModel):
        return type(like).model_validate(value).model_dump(mode="json")
    return list(value) if isinstance(value, tuple) else value
