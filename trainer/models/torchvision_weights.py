"""Weights by torchvision's name: which network, which file, published where. Nothing is ever downloaded."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

import torchvision
from torchvision.models import WeightsEnum

from barlow_lab.specs.common import BackboneSpec
from trainer.data.pixels import PIXEL_MEAN, PIXEL_STD
from trainer.models.classifiers import CLASSIFIERS

_SHA256 = re.compile(r"-([0-9a-f]{8,64})\.[a-z]+$")


@dataclass(frozen=True, slots=True)
class TorchvisionWeights:
    """One entry of torchvision's enumerations of weights."""

    name: str
    """As `ResNet50_Weights.IMAGENET1K_V2`."""
    architecture: BackboneSpec
    file: str
    address: str
    """Where torchvision says that the file is published."""

    def check(self, sha256: str) -> None:
        """Compare a file's digest (hex) with the first digits of it that torchvision writes into the file's name.

        Raises:
            ValueError: they are others.
        """
        begins = _SHA256.search(self.file)
        if begins is not None and not sha256.startswith(begins[1]):
            raise ValueError(
                f"the sha256 of {self.file} begins with {sha256[: len(begins[1])]}, that of {self.name} with "
                f"{begins[1]}; get the file again from {self.address}"
            )


def torchvision_weights(name: str) -> TorchvisionWeights:
    """The weights that torchvision has under `name`.

    Raises:
        ValueError: it has none for a classifier, or they are for pixels that are normalised otherwise than ours.
    """
    found = _all().get(name)
    if found is None:
        near = difflib.get_close_matches(name, _all(), n=1, cutoff=0.0)[0]
        raise ValueError(f"torchvision {torchvision.__version__} has no weights {name!r}; did you mean {near!r}?")
    network, weights = found
    if not _ours(weights):
        pixels = weights.transforms()
        raise ValueError(
            f"{name} is for pixels of mean {tuple(pixels.mean)} and standard deviation {tuple(pixels.std)}, ours are "
            f"normalised by {PIXEL_MEAN} and {PIXEL_STD}; use other weights"
        )
    return TorchvisionWeights(
        name, BackboneSpec(name=network), urlsplit(weights.url).path.rpartition("/")[2], str(weights.url)
    )


def find_in(folder: Path, weights: TorchvisionWeights) -> Path:
    """The file of `weights` in `folder`.

    Raises:
        ValueError: it is not there, or is a link to outside; says where to get it and where to put it.
    """
    path = (folder / weights.file).resolve()
    if path.is_file() and path.is_relative_to(folder.resolve()):
        return path
    there = difflib.get_close_matches(weights.file, [entry.name for entry in folder.glob("*")], n=3)
    raise ValueError(
        f"{weights.file} is not in the folder {folder.name} (BARLOW_BACKBONES_DIR of the host, or --backbone)"
        + (f", which has {', '.join(there)}" if there else "")
        + f"; put it there from {weights.address}: nothing is downloaded"
    )


def known_weights() -> list[str]:
    """Names of the weights that `torchvision_weights` gives, sorted."""
    return sorted(name for name, (_, weights) in _all().items() if _ours(weights))


def _ours(weights: WeightsEnum) -> bool:
    """Whether they are for pixels that are normalised as ours are."""
    pixels = weights.transforms()
    return [*pixels.mean, *pixels.std] == [*PIXEL_MEAN, *PIXEL_STD]


@cache
def _all() -> dict[str, tuple[str, WeightsEnum]]:
    """Network and enumeration entry by name, of classifiers alone."""
    models = ((name, torchvision.models.get_model_weights(name)) for name in CLASSIFIERS)
    return {str(entry): (name, entry) for name, entries in models for entry in entries}
