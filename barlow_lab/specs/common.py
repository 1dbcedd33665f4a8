"""Parts of a job spec that every kind shares. Defaults are the values of the Barlow Twins paper's run."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from barlow_lab.specs import catalogue
from barlow_lab.specs.registered import BACKBONES, registered
from barlow_lab.spelling import nearest

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"
NAME_RULE = "a name of 1 to 100 letters, digits, dots, dashes and underscores is expected, with a letter or digit first"
Name = Annotated[str, Field(pattern=NAME_PATTERN)]
"""A name of a job, an experiment or a data set: safe in a URL and in a file name."""

_FILE_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*$"
FileName = Annotated[str, Field(pattern=_FILE_PATTERN, max_length=200)]
"""A file below a root of the server: no part of it begins with a dot, so it cannot leave the root."""

_WEIGHTS_PATTERN = r"^[A-Za-z0-9_]+_Weights\.[A-Za-z0-9_]+$"

_TEXT_PATTERN = r"^[^\x00-\x1f\x7f]*$"
Text = Annotated[str, Field(pattern=_TEXT_PATTERN)]
"""Text without control characters (and without lone surrogates): what a database and a terminal can take."""

Label = Annotated[Text, Field(max_length=200)]
_LABEL_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}(/[A-Za-z0-9][A-Za-z0-9._-]*)*$"
LabelKey = Annotated[str, Field(pattern=_LABEL_PATTERN, max_length=63)]
"""Parts with single slashes between them: MLflow refuses a tag whose name is not a normal path."""

Precision = Literal["fp32", "bf16", "fp16", "fp64"]
"""fp64 is for tests."""

_SELECT_PATTERN = r"^(last|step [0-9]{1,12})$"
_SCORE_PATTERN = r"^[a-z0-9_]+$"
SET_PATTERN = r"^[^/].*/[^/]+$"

RULES = {
    NAME_PATTERN: NAME_RULE,
    _FILE_PATTERN: "a path below the server's BARLOW_BACKBONES_DIR is expected, for example barlowtwins/resnet50.pth; "
    "by hand any file is given by --backbone PATH",
    _WEIGHTS_PATTERN: "weights by torchvision's name are expected, for example ResNet50_Weights.IMAGENET1K_V2",
    _TEXT_PATTERN: "text on one line is expected, without line feeds, tabs and other control characters",
    _LABEL_PATTERN: "the name of a label is expected: up to 63 letters, digits, dots, dashes and underscores, in parts "
    "with single slashes between them that begin with a letter or digit, for example reviewed-by or team/reviewer",
    _SELECT_PATTERN: "`last` is expected, or `step N` for the checkpoint of that step",
    _SCORE_PATTERN: "the name of a score is expected, for example top1 or box_ap50",
    SET_PATTERN: "FOLDER/SET is expected, for example VOC2007/trainval",
}
"""What is said of a text that does not match a pattern. Each kind of text has a pattern of its own."""


class SpecModel(BaseModel):
    """Base of all spec parts: unknown fields are refused, values never change after validation."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _no_bool_for_a_number(cls, value: Any) -> Any:
        # Python counts True as 1 and pydantic would take it for a number; as a text it is refused where it stands.
        if not isinstance(value, dict):
            return value
        numbers = {key for name, f in cls.model_fields.items() if _is_number(f.annotation) for key in (name, f.alias)}
        return {key: _spelt(item) if key in numbers else item for key, item in value.items()}

    @field_validator("*", mode="after")
    @classmethod
    def _exact_in_json(cls, value: Any) -> Any:
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, int) and abs(item) > _LARGEST_INTEGER:
                raise ValueError("an integer beyond 2^53 - 1 is not exact in JSON; use a smaller one")
        return value


_LARGEST_INTEGER = 2**53 - 1


def _is_number(annotation: Any) -> bool:
    return annotation is int or annotation is float or any(_is_number(part) for part in get_args(annotation))


def _spelt(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_spelt(item) for item in value]
    return str(value).lower() if isinstance(value, bool) else value


COMBINATION = "combination"
"""The type of a fault that rules have found, in pydantic's errors."""


def refuse(faults: dict[tuple[str, ...], str]) -> None:
    """Raise one error that names every fault at its field, if there is one; for use in a validator.

    Raises:
        pydantic.ValidationError: pydantic puts its faults below the place of the validator.
    """
    if faults:
        lines: list[InitErrorDetails] = [
            {"type": PydanticCustomError(COMBINATION, "{said}", {"said": said}), "loc": place, "input": None}
            for place, said in faults.items()
        ]
        raise ValidationError.from_exception_data(COMBINATION, lines)


def ranks_fault(batch_size: int, slots: int) -> str | None:
    """Why `slots` ranks cannot share a global batch evenly, with the remedy; None if they can."""
    if batch_size % slots == 0:
        return None
    down = batch_size // slots * slots
    return (
        f"batch_size {batch_size} is global and {slots} ranks do not divide it; "
        f"use {f'{down} or ' if down else ''}{down + slots}, or another number of slots"
    )


class DataSpec(SpecModel):
    """Which images: a registered data set and one of its splits."""

    name: Name = Field(description="`digits`, `textures`, `scenes`, or one of the server's datasets.yaml")
    split: Name = Field("train", description="Split of the data set")
    limit: int | None = Field(
        None, ge=1, description="Use N images: the first ones, or of a folder without labels drawn ones"
    )


class BackboneSpec(SpecModel):
    """Which network turns an image into features."""

    name: str = Field(
        "resnet50",
        max_length=100,
        description="Any classification network of torchvision by name, `tiny`, `tiny_resnet`, or one that an "
        "installed distribution registers under the entry point group `barlow_lab.backbones`; dropout and stochastic "
        "depth are off in all",
    )
    stem: Literal["imagenet", "small"] = Field(
        "imagenet",
        description="`small`: 3x3 stride-1 first convolution and no max-pool, for images up to ~64 px; of the ResNet "
        "family with `tiny_resnet`, and of `tiny`, which has no other",
    )
    zero_init_residual: bool = Field(
        True, description="Start each residual branch at zero; a question to the ResNet family alone (`tiny` has none)"
    )

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in catalogue.backbones() and name not in registered(BACKBONES):
            raise ValueError(unknown_backbone(name))
        return name

    @model_validator(mode="after")
    def _has_what_is_asked_of_it(self) -> BackboneSpec:
        entry = catalogue.backbones().get(self.name)
        faults: dict[tuple[str, ...], str] = {}
        if self.stem == "small" and (entry is None or entry.small_stem is None):
            faults["stem",] = f"{self.name} has no small stem; leave stem out, or take a ResNet, such as resnet18"
        if not self.zero_init_residual and self.name != "tiny" and (entry is None or not entry.zero_init_residual):
            faults["zero_init_residual",] = (
                f"{self.name} has no residual branches that start at zero; leave zero_init_residual out"
            )
        refuse(faults)
        return self


def unknown_backbone(name: str) -> str:
    """What to say of a backbone that is not known here."""
    near = nearest(name, [*catalogue.backbones(), *registered(BACKBONES)])
    hint = f"did you mean {near!r}?" if near else "for example resnet50, resnet18 or tiny"
    return (
        f"unknown backbone {name!r}; {hint} (one of your own has to be installed here as well, and registered under "
        f"the entry point group {BACKBONES})"
    )


class BackboneFrom(SpecModel):
    """Where an evaluation takes its backbone from: exactly one source."""

    job: Text | None = Field(None, max_length=100, description="Id of a pretraining job, or its name in the experiment")
    select: str = Field(
        "last",
        pattern=_SELECT_PATTERN,
        description="With `job`: `last`, or `step N` for the checkpoint of that step",
    )
    file: FileName | None = Field(
        None,
        description="A file or an exported folder below the server's backbones_dir: ours, torchvision's weights, or a "
        "published state_dict such as the reference's resnet50.pth",
    )
    torchvision: str | None = Field(
        None,
        pattern=_WEIGHTS_PATTERN,
        description="Weights by torchvision's name, as ResNet50_Weights.IMAGENET1K_V2; their file is in backbones_dir",
    )
    random: int | None = Field(None, ge=0, description="Seed of an untrained backbone: the floor to beat")
    pixels: Literal[True] | None = Field(None, description="Judge the raw pixels themselves: the other floor")

    @property
    def step(self) -> int | None:
        """The chosen checkpoint of `job`; None: its last one, or another source."""
        return None if self.select == "last" else int(self.select.removeprefix("step "))

    @field_validator("torchvision")
    @classmethod
    def _of_a_classifier(cls, weights: str | None) -> str | None:
        if weights is not None and catalogue.network_of(weights) not in catalogue.backbones():
            network = weights.partition("_Weights.")[0]
            near = nearest(network.lower(), catalogue.backbones())
            hint = f"did you mean those of {near}?" if near else "for example ResNet50_Weights.IMAGENET1K_V2"
            raise ValueError(f"torchvision has no classification network {network!r} that is known here; {hint}")
        return weights

    @model_validator(mode="after")
    def _one_source(self) -> BackboneFrom:
        sources = ("job", "file", "torchvision", "random", "pixels")
        given = [n for n in sources if getattr(self, n) is not None]
        if len(given) != 1:
            raise ValueError(
                f"give exactly one of {', '.join(sources)} (given: {', '.join(given) or 'none'}); "
                "for example {job: my-pretraining}"
            )
        if self.select != "last" and self.job is None:
            raise ValueError("select goes with job; leave it out for the others")
        return self


class ResourcesSpec(SpecModel):
    """What the job occupies. One slot is one GPU (or one CPU rank); one slot runs one rank."""

    slots: int = Field(1, ge=1, le=1024, description="Ranks of the job = slots it occupies")
    nodes: int = Field(1, ge=1, le=1, description="Hosts the ranks are spread over; one for now")


class CheckpointSpec(SpecModel):
    """How often the run can be resumed from, and what is kept: the last ones, the best one and the milestones."""

    every_epochs: int = Field(1, ge=1, description="Write a checkpoint after every N epochs, and at the end")
    every_steps: int | None = Field(None, ge=1, description="Also write one after every N steps")
    keep_last: int = Field(2, ge=1, description="Keep the newest N checkpoints; older ones are deleted")
    best_by: Literal["loss", "effective_rank"] | None = Field(
        None,
        description="Also keep the best one: of the lowest loss, or of the highest effective rank, as last recorded "
        "when it was written; of equal ones the earliest",
    )
    milestone_every_epochs: int | None = Field(
        None, ge=1, description="Also write one at the end of every Nth epoch, and keep it for ever"
    )


class ProbesSpec(SpecModel):
    """Pretraining: how the backbone does on labels, seen while it trains; the run is the same with and without it.

    Features of un-augmented images by the backbone in evaluation mode: `knn_top1`, and `probe_top1` of a linear
    classifier (protocol cached-features).
    """

    every_epochs: int = Field(10, ge=1, description="Look after every N epochs, and at the end")
    split: Name = Field("train", description="Labelled split that the neighbours and the classifier are from")
    test_split: Name = Field("test", description="Split that is classified")
    limit: int = Field(10_000, ge=1, description="Use the first N images of each split")
    size: int | None = Field(None, ge=8, le=1024, description="Side of an image in pixels; left out: views.size")
    k: int = Field(20, ge=1, description="Neighbours that vote")
    temperature: float = Field(0.07, gt=0.0, description="A neighbour of similarity s votes with weight exp(s / T)")
    epochs: int = Field(20, ge=1, le=1000, description="Of the linear classifier")


LEAST_SAMPLE = 64
"""Images of an estimate of the population: its error comes of the scatter of 16 parts of them."""
MOST_FEATURES = 8192
"""Features of an estimate of the population: its matrices are in float64, and are decomposed."""


def sample_fault(images: int, name: str = "images") -> str | None:
    """Why these images, called so, are too few for an estimate of the population; None if they are not."""
    if images >= LEAST_SAMPLE:
        return None
    return f"{images} {name} are too few to tell the error of their cross-correlation; use at least {LEAST_SAMPLE}"


def width_fault(features: int, remedy: str) -> str | None:
    """Why so many features are too many for one, with the remedy; None if they are not."""
    if features <= MOST_FEATURES:
        return None
    return (
        f"the cross-correlation of {features:,} features has the square of that of numbers, each eight bytes; at most "
        f"{MOST_FEATURES:,} are decomposed: {remedy}"
    )


class PopulationSpec(SpecModel):
    """Pretraining: the cross-correlation of many images, with its error, beside that of a batch, which is mostly noise
    where features are decorrelated; the run is the same with and without it.

    Two views of each by the network in evaluation mode, drawn by keys of their own, the same at each look.
    """

    images: int = Field(
        4096, ge=LEAST_SAMPLE, description="Look at N training images, drawn by the seed; all where there are no more"
    )
    every_epochs: int | None = Field(
        None, ge=1,
        description="Look after every N epochs, and at the end; left out: with each correlation record but that of "
        "step 0",
    )  # fmt: skip


class RecordSpec(SpecModel):
    """How densely the run is recorded. Recording never changes the science."""

    metrics_every_steps: int = Field(10, ge=1, description="One point per metric every N steps")
    correlation_every_epochs: int = Field(
        1, ge=1, description="Cross-correlation record every N epochs, and at the end"
    )
    spectra: bool = Field(False, description="Draw the spectra of each correlation record; they are in it in any case")
    whole_correlation: bool = Field(
        False,
        description="Keep the whole matrix in the record (fp16) also beyond 1,024 features: 128 MB each at 8,192, in "
        "memory as well",
    )
    heatmap_order: Literal["index", "clusters"] = Field(
        "index",
        description="Order of the features in the heatmap: `clusters` puts those beside each other that correlate, "
        "up to 1,024 features; beyond, blocks are drawn by index",
    )
    information_plane: bool = Field(
        False,
        description="Draw the way of backbone and embedding through the information plane with each correlation "
        "record; its entropies and informations are metrics in any case",
    )
    information_directions: int = Field(
        32,
        ge=1,
        le=1024,
        description="Entropies and informations are of so many directions of the features, drawn once and for all, or "
        "of all where there are no more: in nats, as if features were normal. Numbers at another one do not compare",
    )
    population: PopulationSpec | None = Field(
        None, description="Pretraining: the cross-correlation of many images, accumulated over batches"
    )
    probes: ProbesSpec | None = Field(None, description="Pretraining: kNN and a linear probe on labels as it goes on")


class PublishedSpec(SpecModel):
    """What somebody else has published for the row that this job is to reproduce; `compare` shows it beside ours."""

    source: Text = Field(max_length=500, description="Citation")
    scores: dict[Annotated[str, Field(pattern=_SCORE_PATTERN)], float] = Field(
        min_length=1, max_length=50, description="By the names of the result's scores, in percent: {top1: 73.2}"
    )


class RunSpec(SpecModel):
    """How the job is run. Nothing here changes its result, so the digest leaves it out."""

    priority: int = Field(0, ge=-100, le=100, description="Higher starts first")
    labels: dict[LabelKey, Label] = Field(
        default_factory=dict, max_length=50, description="Words of yours to find jobs by; tags of the run in MLflow"
    )
    after: list[Text] = Field(default_factory=list, max_length=100, description="Ids or names of jobs to wait for")
    max_restarts: int = Field(3, ge=0, le=100, description="Retries after a crash; lost nodes are not counted")
    preemptible: bool = Field(
        False, description="May be told to write a checkpoint and make room for a job of higher priority"
    )
    stall_seconds: int = Field(
        600,
        ge=1,
        description="No progress for this long ends the attempt; the first compilation of a network may take minutes",
    )
    stop_on: list[Literal["collapse"]] = Field(
        default_factory=list,
        max_length=1,
        description="Pretraining: `[collapse]` ends the job as diverged where its embeddings have collapsed, which is "
        "looked at with each correlation record; left out, that is a warning",
    )
    compile: Literal["auto", "off", "on"] = Field(
        "auto",
        description="Pretraining: run the network as it is written (off), compiled by torch (on), or as a short trial "
        "at the start finds faster (auto; on a CPU as it is written, in a resumed run as before)",
    )
    checkpoint: CheckpointSpec = Field(default_factory=CheckpointSpec, description="When one is written, and kept")
    record: RecordSpec = Field(default_factory=RecordSpec, description="How densely the run is recorded")
    published: PublishedSpec | None = Field(None, description="Published numbers to compare this job's with")
