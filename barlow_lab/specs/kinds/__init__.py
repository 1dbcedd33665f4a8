"""The kinds of jobs: one file each, and here the list of them."""

from typing import get_args

from barlow_lab.specs.kinds.base import BackboneMade, JobSpec, KindSpec
from barlow_lab.specs.kinds.closed_form import ClosedFormSpec
from barlow_lab.specs.kinds.detection import DetectionSpec
from barlow_lab.specs.kinds.evaluation import BackboneJudged, EvaluationSpec
from barlow_lab.specs.kinds.invariance import InvarianceSpec
from barlow_lab.specs.kinds.knn import KnnSpec
from barlow_lab.specs.kinds.linear import LinearSpec
from barlow_lab.specs.kinds.pretrain import PretrainSpec
from barlow_lab.specs.kinds.semi_supervised import SemiSupervisedSpec
from barlow_lab.specs.kinds.svm import SvmSpec

Spec = (
    PretrainSpec | LinearSpec | KnnSpec | SemiSupervisedSpec | SvmSpec | DetectionSpec | ClosedFormSpec | InvarianceSpec
)
KINDS: dict[str, type[Spec]] = {model.model_fields["kind"].default: model for model in get_args(Spec)}
"""The specs of kinds, by name."""
MAKERS = tuple(kind for kind, model in KINDS.items() if model.makes_backbone)
"""Kinds that publish a backbone for others."""
TAKERS = tuple(kind for kind, model in KINDS.items() if model.takes_backbone)
"""Kinds that may take their backbone from elsewhere."""

__all__ = [
    "KINDS", "MAKERS", "TAKERS", "BackboneJudged", "BackboneMade", "ClosedFormSpec", "DetectionSpec", "EvaluationSpec",
    "InvarianceSpec", "JobSpec", "KindSpec", "KnnSpec", "LinearSpec", "PretrainSpec", "SemiSupervisedSpec", "Spec",
    "SvmSpec",
]  # fmt: skip
