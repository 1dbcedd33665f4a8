"""Weights that others wrote, in a network of ours, and none of it is guessed.

The rule by which the tensors of a file (trainer.models.foreign_files) find their place:

1. All tensors of the network are found, with their shapes, under exactly one prefix made of PREFIX_WORDS, by the
   network's own names or by the numbers that nn.Sequential(*network.children()) gives its parts. Counters of batch
   normalisation may be missing, or of any type and shape: with a fixed momentum they have no effect.
2. What else is in the file is left out and listed: classifier, projector, queue, and a second network (momentum copy,
   moving average, student; without names, a list of tensors in all shapes of the network's parameters) with the place
   where it stands and how to take it. But a tensor in one of
   the network's own parts that the network does not have says that it is another, deeper one: refused.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from barlow_lab.foreign_text import shown
from barlow_lab.specs.catalogue import backbones
from barlow_lab.specs.common import BackboneSpec
from trainer.models.backbones import build_backbone, empty_backbone
from trainer.models.foreign_files import Keys, Tensors, by_themselves, place, read_tensors, told

PREFIX_WORDS = frozenset({"module", "_orig_mod", "model", "backbone", "encoder", "encoder_q", "base_encoder"})
NAMED = 5
"""Tensors that an error names of each sort."""

_COUNTER = "num_batches_tracked"
# Names that torchvision's own loaders still know: DenseNet's files, and those of a ViT before 2022.
_FORMER_NAMES = (
    (re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)"), r"\1\2"),
    (re.compile(r"(encoder_layer_\d+\.mlp)\.linear_1\."), r"\1.0."),
    (re.compile(r"(encoder_layer_\d+\.mlp)\.linear_2\."), r"\1.3."),
)


@dataclass(frozen=True, slots=True)
class Foreign:
    """A network with weights of a file: float32 on the CPU, in training mode."""

    module: nn.Module
    dropped: list[str]
    """Tensors left out."""
    under: str
    """Where those that were taken stand in the file,"""
    others: dict[str, int]
    """where other weights do that were left out, a second network before all else, with the number of tensors,"""
    remedy: str = ""
    """and how to take these, where there are any."""


def load_foreign(path: Path, spec: BackboneSpec, tick: Callable[[], None]) -> Foreign:
    """The network `spec` with the weights in `path`; fp16, bf16 and fp64 become float32.

    Inception and GoogLeNet scale their pixels to -1..1 first, as torchvision has it when it loads their weights.
    `tick` is called now and then.

    Raises:
        ValueError: the file cannot be read, or its tensors are not those of the network; names the first that differ,
            and the architecture that they do fit.
        SpecError: there is no such network here.
    """
    read = read_tensors(path)
    tensors = _by_todays_names(read.taken)
    tick()
    network = build_backbone(spec, seed=0)
    read = replace(read, others=_networks(read.others, network))
    placed = _place(tensors, network)
    if placed.faults:
        if placed.also is not None:
            remedy = by_themselves(path, read.under, placed.prefix)
        elif placed.faults == len(placed.of_another_type):
            remedy = "save them as floating-point numbers, quantised ones by their `dequantize()`"
        else:
            remedy = _remedy(tensors, spec, tick)
        beside = f"; {told(read.others)} of the file was not looked at" if read.others else ""
        raise ValueError(f"{path.name} is not {described(spec)}: {placed.said()}; {remedy}{beside}")
    own = network.state_dict()
    found = {name: tensors[there] for name, there in placed.names.items()}
    own.update({name: one.to(own[name].dtype) for name, one in found.items() if not _differs(one, own[name])})
    network.load_state_dict(own)
    tick()
    if bad := [name for name, tensor in network.state_dict().items() if not tensor.isfinite().all()]:
        raise ValueError(f"{path.name}: {_some(bad)} hold numbers that are not finite; use other weights")
    if hasattr(network, "transform_input"):
        network.transform_input = True  # type: ignore[assignment]
    taken = set(placed.names.values())
    dropped = {name: tensor for name, tensor in tensors.items() if name not in taken}
    return _with_others(network, placed.prefix, dropped, read, path)


def _networks(others: Mapping[Keys, dict[str, Tensor]], network: nn.Module) -> dict[Keys, dict[str, Tensor]]:
    """Without the lists that are no network like this one: an optimiser keeps its state in lists of tensors, too."""
    needed = Counter(parameter.shape for parameter in network.parameters())
    return {
        keys: tensors
        for keys, tensors in others.items()
        if not all(name.isdecimal() for name in tensors) or needed <= Counter(one.shape for one in tensors.values())
    }


def _with_others(network: nn.Module, prefix: str, dropped: dict[str, Tensor], read: Tensors, path: Path) -> Foreign:
    """Told of what else of the file is a network: beside those that were taken, or elsewhere."""
    places = [(read.under, copy, tensors) for copy, tensors in _copies(dropped, network).items()]
    elsewhere = [(under, "", _by_todays_names(tensors)) for under, tensors in read.others.items()]
    places += sorted(elsewhere, key=lambda one: not _copies(one[2], network))
    names = [*dropped, *(place(under, name) for under, _, tensors in elsewhere for name in tensors)]
    others = {place(under, copy): len(tensors) for under, copy, tensors in places}
    remedy = by_themselves(path, *places[0]) if places else ""
    return Foreign(network, names, place(read.under, prefix), others, remedy)


def _copies(tensors: Mapping[str, Tensor], network: nn.Module) -> dict[str, dict[str, Tensor]]:
    """Tensors by the prefix under which all parameters of the network are, whatever words it is made of."""
    shapes = {name: parameter.shape for name, parameter in network.named_parameters()}
    found: dict[str, dict[str, Tensor]] = {}
    for spelt in _spellings(network, list(network.state_dict())) if shapes else ():
        first = spelt[next(iter(shapes))]
        for prefix in [name.removesuffix(first) for name in tensors if name.endswith(first)]:
            there = [tensors.get(prefix + spelt[name]) for name in shapes]
            if (not prefix or prefix.endswith(".")) and all(
                tensor is not None and tensor.shape == shape
                for tensor, shape in zip(there, shapes.values(), strict=True)
            ):
                found[prefix] = {name: tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    return found


def architecture_of(path: Path, tick: Callable[[], None]) -> BackboneSpec | None:
    """The network of the catalogue that all tensors in `path` would fit, if there is one.

    Raises:
        ValueError: the file cannot be read.
    """
    return _fitting(_by_todays_names(read_tensors(path).taken), "", tick)


def described(spec: BackboneSpec) -> str:
    """`resnet18`, or `resnet18 with stem: small`."""
    return spec.name if spec.stem == "imagenet" else f"{spec.name} with stem: {spec.stem}"


def _by_todays_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {_todays_name(name): tensor for name, tensor in tensors.items()}


def _todays_name(name: str) -> str:
    for pattern, today in _FORMER_NAMES:
        name = pattern.sub(today, name)
    return name


@dataclass(frozen=True, slots=True)
class _Placed:
    """Where each tensor of a network is in a file, {its name: the name there}, under one prefix; and what is wrong."""

    prefix: str
    names: dict[str, str]
    missing: list[str]
    of_another_shape: list[str]
    of_another_type: list[str]
    unexpected: list[str]
    also: str | None = None
    """Another prefix under which all is found as well."""

    @property
    def faults(self) -> int:
        return sum(len(names) for _, names in self._sorts()) + (self.also is not None)

    def said(self) -> str:
        if self.also is not None:
            return f"all of it is there twice, under {self.prefix!r} and {self.also!r}"
        return "; ".join(f"{sort}: {_some(names)}" for sort, names in self._sorts() if names)

    def _sorts(self) -> tuple[tuple[str, list[str]], ...]:
        return (
            ("missing", self.missing),
            ("of another shape", self.of_another_shape),
            ("of another type", self.of_another_type),
            ("unexpected", self.unexpected),
        )


def _place(tensors: Mapping[str, Tensor], network: nn.Module) -> _Placed:
    """The one place where all of `network` is; of places with faults one with the fewest."""
    found = sorted(_placings(tensors, network), key=lambda placed: placed.faults)
    if not found:
        required = [name for name in network.state_dict() if not name.endswith(_COUNTER)]
        return _Placed("", {}, required, [], [], sorted(tensors))
    if len(found) > 1 and not found[1].faults:
        first, second = found[:2]
        return _Placed(first.prefix, first.names, [], [], [], [], also=second.prefix)
    return found[0]


def _placings(tensors: Mapping[str, Tensor], network: nn.Module) -> Iterator[_Placed]:
    expected = network.state_dict()
    for spelt in _spellings(network, list(expected)):
        endings = {spelt[name] for name in expected if not name.endswith(_COUNTER)}
        for prefix in sorted({prefix for name in tensors for prefix in _prefixes(name, endings)}):
            yield _placed(tensors, network, prefix, spelt)


def _prefixes(name: str, endings: set[str]) -> Iterator[str]:
    """Known prefixes after which `name` is one of `endings`."""
    prefix, rest = "", name
    while True:
        if rest in endings:
            yield prefix
        word, dot, rest = rest.partition(".")
        if not dot or word not in PREFIX_WORDS:
            return
        prefix += word + dot


def _spellings(network: nn.Module, names: list[str]) -> list[dict[str, str]]:
    """The network's tensors by its own names, and by the numbers of its parts."""
    number = {part: str(place) for place, (part, _) in enumerate(network.named_children())}
    split = {name: name.partition(".") for name in names}
    own = {name: name for name in names}
    if not all(part in number for part, *_ in split.values()):
        return [own]
    return [own, {name: f"{number[part]}.{rest}" for name, (part, _, rest) in split.items()}]


def _placed(tensors: Mapping[str, Tensor], network: nn.Module, prefix: str, spelt: Mapping[str, str]) -> _Placed:
    names: dict[str, str] = {}
    missing: list[str] = []
    shapes: list[str] = []
    types: list[str] = []
    for name, expected in network.state_dict().items():
        there = prefix + spelt[name]
        found = tensors.get(there)
        is_counter = name.endswith(_COUNTER)
        if found is None:
            if not is_counter:
                missing.append(there)
        elif is_counter or (differs := _differs(found, expected)) is None:
            names[name] = there
        elif differs == "shape":
            shapes.append(f"{there} {tuple(found.shape)} for {tuple(expected.shape)}")
        else:
            types.append(f"{there} {_type_of(found)}")
    return _Placed(prefix, names, missing, shapes, types, _unexpected(tensors, network, prefix, spelt))


def _differs(found: Tensor, expected: Tensor) -> Literal["shape", "type"] | None:
    """Why a tensor of a file cannot stand in the place of this one."""
    if found.shape != expected.shape:
        return "shape"
    is_plain = not found.is_complex() and not found.is_quantized and found.layout == torch.strided
    return None if is_plain and found.is_floating_point() == expected.is_floating_point() else "type"


def _type_of(tensor: Tensor) -> str:
    layout = "" if tensor.layout == torch.strided else f"{tensor.layout} "
    return f"{layout}{tensor.dtype}".replace("torch.", "")


def _unexpected(tensors: Mapping[str, Tensor], network: nn.Module, prefix: str, spelt: Mapping[str, str]) -> list[str]:
    """Tensors of the file in parts of the network that have none of that name, but in place of the classifier."""
    there = {prefix + name for name in spelt.values()}
    parts = tuple({prefix + name.partition(".")[0] + "." for name in spelt.values() if "." in name})
    heads = {name for name, module in network.named_modules() if isinstance(module, nn.Identity) and "." in name}
    taken_off = tuple(f"{prefix}{head}." for head in heads)
    return [n for n in tensors if n not in there and n.startswith(parts) and not n.startswith(taken_off)]


def _remedy(tensors: Mapping[str, Tensor], spec: BackboneSpec, tick: Callable[[], None]) -> str:
    fits = _fitting(tensors, spec.name, tick)
    if fits is not None:
        stem = "" if fits.stem == "imagenet" else f", stem: {fits.stem}"
        return f"all its tensors fit {described(fits)}: set backbone to {{name: {fits.name}{stem}}}"
    return (
        "no network of the catalogue fits either; its names begin with "
        + f"{_some(sorted({name.split('.')[0] for name in tensors}))}: save the backbone's state_dict alone, by the "
        "names of torchvision's network"
    )


def _fitting(tensors: Mapping[str, Tensor], near: str, tick: Callable[[], None]) -> BackboneSpec | None:
    """A network of the catalogue without faults, of names like `near` first. Nothing is computed."""
    there = sum(tensor.numel() for tensor in tensors.values())
    for name in sorted(backbones(), key=lambda other: -SequenceMatcher(None, near, other).ratio()):
        entry = backbones()[name]
        for stem, trunk in (("imagenet", entry), ("small", entry.small_stem)):
            if trunk is None or trunk.parameters > there:
                continue
            tick()
            spec = BackboneSpec.model_validate({"name": name, "stem": stem})
            if not _place(tensors, empty_backbone(spec)).faults:
                return spec
    return None


def _some(names: list[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(map(shown, names[:NAMED])) + more
