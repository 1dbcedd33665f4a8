"""What a job is: typed specs, their validation and their digest. No torch here; service and worker import it."""

from trainer.specs.classification import AugmentSpec, LinearSpec, SemiSupervisedSpec, SvmSpec
from trainer.specs.common import BackboneFrom, BackboneSpec, DataSpec, JobSpec, ResourcesSpec, RunSpec
from trainer.specs.detection import DetectionSpec
from trainer.specs.digest import canonical_json, digest
from trainer.specs.evaluation import BackboneJudged, EvaluationSpec, KnnSpec
from trainer.specs.files import load_spec_file
from trainer.specs.parsing import Fault, Spec, SpecError, parse_spec
from trainer.specs.pretrain import AdamwSpec, BarlowTwinsSpec, LarsSpec, OptimizerSpec, PretrainSpec, SgdSpec
from trainer.specs.stored import open_stored
from trainer.specs.views import ViewSpec, ViewsSpec

__all__ = [
    "AdamwSpec", "AugmentSpec", "BackboneFrom", "BackboneJudged", "BackboneSpec", "BarlowTwinsSpec", "DataSpec",
    "DetectionSpec", "EvaluationSpec", "Fault", "JobSpec", "KnnSpec", "LarsSpec", "LinearSpec", "OptimizerSpec",
    "PretrainSpec", "ResourcesSpec", "RunSpec", "SemiSupervisedSpec", "SgdSpec", "Spec", "SpecError", "SvmSpec",
    "ViewSpec", "ViewsSpec", "canonical_json", "digest", "load_spec_file", "open_stored", "parse_spec",
]  # fmt: skip
