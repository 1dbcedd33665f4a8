"""A kind as a later version may have one: a pretraining that goes on from the backbone of another job."""

from __future__ import annotations

from typing import ClassVar, Literal

import pytest

from barlow_lab.specs import BackboneFrom, PretrainSpec
from barlow_lab.specs.kinds import KINDS


class ContinuedSpec(PretrainSpec):
    """A pretraining that may begin with a backbone that is there."""

    takes_backbone: ClassVar[bool] = True

    kind: Literal["continued"] = "continued"  # type: ignore[assignment]
    backbone_from: BackboneFrom

    @property
    def backbone_from_elsewhere(self) -> BackboneFrom | None:
        return self.backbone_from


def add(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put it into the list of kinds."""
    monkeypatch.setitem(KINDS, "continued", ContinuedSpec)  # type: ignore[arg-type]
