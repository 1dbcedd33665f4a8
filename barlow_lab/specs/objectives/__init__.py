"""The objectives: one file each, and here the list of them."""

from typing import Annotated

from pydantic import Field

from barlow_lab.specs.objectives.barlow_twins import BarlowTwinsSpec
from barlow_lab.specs.objectives.base import ObjectiveBase
from barlow_lab.specs.objectives.vicreg import VicregSpec

# Without a name Barlow Twins is meant, whose name has a default; every other one has to be named, and its name counts
# in the digest.
ObjectiveSpec = Annotated[BarlowTwinsSpec | VicregSpec, Field(discriminator="name")]

__all__ = ["BarlowTwinsSpec", "ObjectiveBase", "ObjectiveSpec", "VicregSpec"]
