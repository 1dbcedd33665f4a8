"""What a job is: typed specs, their validation and their digest. No torch here; service and worker import it."""

from barlow_lab.specs.classification import AugmentSpec, LinearSpec, SemiSupervisedSpec, SvmSpec
from barlow_lab.specs.common import BackboneFrom, BackboneSpec, DataSpec, JobSpec, ResourcesSpec, RunSpec
from barlow_lab.specs.detection import DetectionSpec
from barlow_lab.specs.digest import canonical_json, digest
from barlow_lab.specs.evaluation import BackboneJudged, EvaluationSpec, KnnSpec
from barlow_lab.specs.files import load_spec_file
from barlow_lab.specs.objectives import BarlowTwinsSpec, ObjectiveBase, ObjectiveSpec, VicregSpec
from barlow_lab.specs.parsing import Fault, Spec, SpecError, parse_spec
from barlow_lab.specs.pretrain import AdamwSpec, LarsSpec, OptimizerSpec, PretrainSpec, SgdSpec
from barlow_lab.specs.stored import open_stored
from barlow_lab.specs.views import ViewSpec, ViewsSpec

__all__ = [
    "AdamwSpec", "AugmentSpec", "BackboneFrom", "BackboneJudged", "BackboneSpec", "BarlowTwinsSpec", "DataSpec",
    "DetectionSpec", "EvaluationSpec", "Fault", "JobSpec", "KnnSpec", "LarsSpec", "LinearSpec", "ObjectiveBase",
    "ObjectiveSpec", "OptimizerSpec", "PretrainSpec", "ResourcesSpec", "RunSpec", "SemiSupervisedSpec", "SgdSpec",
    "Spec", "SpecError", "SvmSpec", "VicregSpec", "ViewSpec", "ViewsSpec", "canonical_json", "digest",
    "load_spec_file", "open_stored", "parse_spec",
]  # fmt: skip
