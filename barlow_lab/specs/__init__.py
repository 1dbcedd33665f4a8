"""What a job is: typed specs, their validation and their digest. No torch here; service and worker import it."""

from barlow_lab.specs.augment import AugmentSpec
from barlow_lab.specs.common import BackboneFrom, BackboneSpec, DataSpec, ResourcesSpec, RunSpec
from barlow_lab.specs.digest import canonical_json, digest
from barlow_lab.specs.experiment import ExperimentSpec, parse_experiment
from barlow_lab.specs.faults import Fault
from barlow_lab.specs.files import load_spec_file
from barlow_lab.specs.kinds import (
    BackboneJudged,
    ClosedFormSpec,
    DetectionSpec,
    EvaluationSpec,
    InvarianceSpec,
    JobSpec,
    KnnSpec,
    LinearSpec,
    PretrainSpec,
    SemiSupervisedSpec,
    Spec,
    SvmSpec,
)
from barlow_lab.specs.objectives import (
    BarlowTwinsSpec,
    InfonceSpec,
    InformationBottleneckSpec,
    NtXentSpec,
    ObjectiveBase,
    ObjectiveSpec,
    PclSpec,
    SimsiamSpec,
    VicregSpec,
    ViewDistanceSpec,
    WMseSpec,
)
from barlow_lab.specs.optimizers import AdamwSpec, LarsSpec, OptimizerSpec, SgdSpec
from barlow_lab.specs.parsing import SpecError, parse_spec
from barlow_lab.specs.stored import open_stored, written_out
from barlow_lab.specs.views import ViewSpec, ViewsSpec

__all__ = [
    "AdamwSpec", "AugmentSpec", "BackboneFrom", "BackboneJudged", "BackboneSpec", "BarlowTwinsSpec",
    "ClosedFormSpec", "DataSpec", "DetectionSpec", "EvaluationSpec", "ExperimentSpec", "Fault", "InfonceSpec",
    "InformationBottleneckSpec", "InvarianceSpec", "JobSpec", "KnnSpec", "LarsSpec", "LinearSpec", "NtXentSpec",
    "ObjectiveBase", "ObjectiveSpec", "OptimizerSpec", "PclSpec", "PretrainSpec", "ResourcesSpec", "RunSpec",
    "SemiSupervisedSpec", "SgdSpec", "SimsiamSpec", "Spec", "SpecError", "SvmSpec", "VicregSpec",
    "ViewDistanceSpec", "ViewSpec", "ViewsSpec", "WMseSpec", "canonical_json", "digest", "load_spec_file",
    "open_stored", "parse_experiment", "parse_spec", "written_out",
]  # fmt: skip
