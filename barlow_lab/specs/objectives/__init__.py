"""The objectives: one file each, and here the list of them; `own` finds those that others have installed."""

from typing import Annotated, get_args

from pydantic import Field, SerializeAsAny, WrapValidator

from barlow_lab.specs.objectives.barlow_twins import BarlowTwinsSpec
from barlow_lab.specs.objectives.base import ObjectiveBase
from barlow_lab.specs.objectives.infonce import InfonceSpec
from barlow_lab.specs.objectives.information_bottleneck import InformationBottleneckSpec
from barlow_lab.specs.objectives.nt_xent import NtXentSpec
from barlow_lab.specs.objectives.own import or_own
from barlow_lab.specs.objectives.pcl import PclSpec
from barlow_lab.specs.objectives.simsiam import SimsiamSpec
from barlow_lab.specs.objectives.vicreg import VicregSpec
from barlow_lab.specs.objectives.view_distance import ViewDistanceSpec
from barlow_lab.specs.objectives.w_mse import WMseSpec

# Without a name Barlow Twins is meant, whose name has a default; every other one has to be named, and its name counts
# in the digest.
_House = (
    BarlowTwinsSpec
    | VicregSpec
    | PclSpec
    | InfonceSpec
    | NtXentSpec
    | WMseSpec
    | ViewDistanceSpec
    | InformationBottleneckSpec
    | SimsiamSpec
)

ObjectiveSpec = Annotated[SerializeAsAny[_House], Field(discriminator="name"), WrapValidator(or_own(get_args(_House)))]

__all__ = [
    "BarlowTwinsSpec", "InfonceSpec", "InformationBottleneckSpec", "NtXentSpec", "ObjectiveBase", "ObjectiveSpec",
    "PclSpec", "SimsiamSpec", "VicregSpec", "ViewDistanceSpec", "WMseSpec",
]  # fmt: skip
