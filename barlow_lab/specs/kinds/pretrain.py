"""The pretraining spec. Everything left out is the paper's run, in true-gradient units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, model_validator

from barlow_lab.specs.catalogue import DataSetEntry, image_size_fault
from barlow_lab.specs.common import DataSpec, Precision, ranks_fault, sample_fault, width_fault
from barlow_lab.specs.faults import Fault, SplitUse, no_whole_batch
from barlow_lab.specs.kinds.base import BackboneMade, Example, KindSpec
from barlow_lab.specs.network import ProjectorSpec, TrainedBackboneSpec
from barlow_lab.specs.objectives import BarlowTwinsSpec, ObjectiveSpec
from barlow_lab.specs.objectives.own import faults_beside
from barlow_lab.specs.optimizers import LarsSpec, OptimizerSpec
from barlow_lab.specs.rules import Place, Rule, is_whole
from barlow_lab.specs.slot_memory import (
    FROZEN,
    VIEW_WORDS,
    BackboneSizes,
    OnTop,
    SlotMemory,
    activation_bytes,
    formula,
    parameter_bytes,
    sizes_of,
)
from barlow_lab.specs.views import ViewsSpec


def _leaves_a_gradient(batch_size: Any) -> Any:
    if isinstance(batch_size, int) and batch_size < 3:
        raise ValueError(
            f"batch_size {batch_size} leaves nothing to learn from: of two images every normalised feature is 1 and "
            "-1, whatever the network; use at least 3, rather 16 or more"
        )
    return batch_size


class PretrainDataSpec(DataSpec):
    """Which images to pretrain on: with labels or without."""

    format: Literal["images"] | None = Field(
        None,
        description="`images`: all images below the split's folder without labels, flat or nested, also where class "
        "folders are in it. Of a data set in format image_folder or images, and of a folder given by --data; left out: "
        "as the data set is described",
    )


class PretrainSpec(KindSpec):
    """Pretrain a backbone."""

    run_by: ClassVar[str] = "trainer.pretraining:pretrain"
    makes_backbone: ClassVar[bool] = True
    headlines: ClassVar[Mapping[str, str]] = {
        "loss": "loss",
        "effective_rank": "effective rank",
        "knn_top1": "kNN top-1",
        "probe_top1": "linear top-1",
    }
    example: ClassVar[Example] = Example(
        "Pretrain a backbone; what is left out is the paper's value",
        {
            "kind": "pretrain",
            "name": "textures-tiny",
            "data": {"name": "textures"},
            "views": {"preset": "small_images", "size": 32},
            "backbone": {"name": "tiny"},
            "projector": {"widths": [128, 128, 128]},
            "objective": {"name": "barlow_twins", "lambda": 0.01},
            "optimizer": {"name": "adamw", "learning_rate": 0.003, "reference_batch_size": None},
            "epochs": 30,
            "batch_size": 128,
        },
        name_in_experiment="pretrain",
        changes_in_experiment={"backbone": {"name": "tiny_resnet", "stem": "small"}},  # a detector judges it, too
    )
    memory_formula: ClassVar[str] = formula(
        "gradients: trained parameters x b. optimizer: trained parameters x b for each running average, one for lars "
        "and sgd, two for adamw. Of a frozen backbone none are trained.",
        VIEW_WORDS,
        "activations: 2 views x micro_batch (else batch_size) / slots x (a view's, of a frozen backbone one twentieth, "
        "+ b' x (2 x hidden widths, 1 x without batch normalisation, + last width)), 1 view where the objective has a "
        "momentum copy embed the other, and with micro_batch the embeddings of the whole batch and their gradient. "
        "features, of objectives that hold those of all images: images x d x 12; "
        "for run.record.population d x d x 16, with spectra d x d x 48. objective: b x parameters for a momentum copy, "
        "and what it holds itself.",
    )

    kind: Literal["pretrain"] = Field("pretrain", description="Which kind of job this is")
    data: PretrainDataSpec = Field(description="The images; a name alone is `{name: NAME}`")
    views: ViewsSpec = Field(
        default_factory=lambda: ViewsSpec.model_validate({}), description="How the two views of an image are drawn"
    )
    backbone: TrainedBackboneSpec = Field(
        default_factory=TrainedBackboneSpec, description="The network that is pretrained"
    )
    projector: ProjectorSpec = Field(
        default_factory=ProjectorSpec, description="The layers behind the backbone that make the embedding"
    )
    objective: ObjectiveSpec = Field(
        default_factory=BarlowTwinsSpec, description="What of the embeddings is minimised; without a name barlow_twins"
    )
    optimizer: OptimizerSpec = Field(
        default_factory=LarsSpec, description="How the gradient changes the parameters; without a name lars"
    )
    epochs: int = Field(1000, ge=1, le=100_000, description="Passes over the images; the default is the paper's")
    max_steps: int | None = Field(None, ge=1, description="Stop here if it comes before the last epoch")
    batch_size: Annotated[int, BeforeValidator(_leaves_a_gradient)] = Field(
        2048, ge=3, description="Global: the same curve on any number of ranks"
    )
    micro_batch: int | None = Field(
        None,
        ge=2,
        description="Global images that go through the network at once, for a batch_size that does not fit: the batch "
        "is embedded in pieces of this size, and the loss and its gradient are still those of the whole batch, at the "
        "cost of a second forward pass. Batch normalisation takes the statistics of a piece",
    )
    precision: Precision = Field(
        "fp32",
        description="Of the network's products; parameters, the last product of the projector and the loss are fp32. "
        "fp16 scales the loss; fp64 is for tests",
    )

    @model_validator(mode="before")
    @classmethod
    def _named_by_default(cls, value: Any) -> Any:
        """Parameters without a name are those of the member of the union that is taken when nothing is said."""
        for field, default in (("objective", "barlow_twins"), ("optimizer", "lars")):
            given = value.get(field) if isinstance(value, dict) else None
            if isinstance(given, dict) and "name" not in given:
                value = {**value, field: {"name": default, **given}}
        return value

    def rules(self) -> list[Rule]:
        return [
            self._ranks,
            self._whole_batches,
            self._pieces,
            self._limit,
            self._something_to_train,
            self._objective,
            self._sides,
            self._warmup,
            self._published,
            self._neighbours,
            self._population,
        ]

    def _ranks(self) -> dict[Place, str]:
        said = ranks_fault(self.batch_size, self.resources.slots)
        return {("batch_size",): said} if said else {}

    def _whole_batches(self) -> dict[Place, str]:
        why = self.objective.whole_batches
        if self.micro_batch is None or why is None:
            return {}
        said = (
            f"objective {self.objective.name} takes whole batches: {why}; leave micro_batch out, and where the "
            "batch does not fit lower batch_size or use more slots"
        )
        return {("micro_batch",): said}

    def _pieces(self) -> dict[Place, str]:
        said = self._pieces_fault(self.resources.slots)
        return {("micro_batch",): said} if said else {}

    def _limit(self) -> dict[Place, str]:
        if self.data.limit is None or self.data.limit >= self.batch_size:
            return {}
        said = (
            f"data.limit {self.data.limit} is below batch_size {self.batch_size}: the last partial batch is "
            "dropped, so there would be no step at all; lower batch_size"
        )
        return {("data", "limit"): said}

    def _something_to_train(self) -> dict[Place, str]:
        if not self.backbone.frozen or self.projector.widths or self._objective():
            return {}
        if self.objective.trained_numbers(self.embedding_width() or 2):
            return {}
        said = (
            "a frozen backbone without a projector leaves nothing to train, as the objective has no parts that "
            "are trained; give the projector widths, or let the backbone train"
        )
        return {("backbone", "frozen"): said}

    def _objective(self) -> dict[Place, str]:
        found = self.objective_faults(self.data.limit) if is_whole(self.objective) else {}
        return {("objective", field): said for field, said in found.items()}

    def _sides(self) -> dict[Place, str]:
        if said := image_size_fault(self.backbone.name, self.views.size):
            return {("views", "size"): said}
        probes = self.run.record.probes
        if probes is None or probes.size is None:
            return {}
        said = image_size_fault(self.backbone.name, probes.size)
        return {("run", "record", "probes", "size"): said} if said else {}

    def _warmup(self) -> dict[Place, str]:
        warmup = self.optimizer.warmup_epochs
        if warmup is None or warmup < self.epochs:
            return {}
        said = (
            f"optimizer.warmup_epochs {warmup:g} never ends within epochs {self.epochs}; "
            "shorten it, or leave it out for a tenth of the run"
        )
        return {("optimizer", "warmup_epochs"): said}

    def _published(self) -> dict[Place, str]:
        if self.run.published is None:
            return {}
        return {("run", "published"): "a pretraining has no scores; put it at the evaluation that repeats the row"}

    def _neighbours(self) -> dict[Place, str]:
        probes = self.run.record.probes
        if probes is None or probes.k <= probes.limit:
            return {}
        said = f"{probes.k} neighbours of the first {probes.limit} images; use fewer, or a higher limit"
        return {("run", "record", "probes", "k"): said}

    def _population(self) -> dict[Place, str]:
        if self.run.record.population is None:
            return {}
        limit, width = self.data.limit, self.embedding_width()
        found = []
        if limit is not None and (said := self._population_fault(limit)):
            found.append(f"{said} (data.limit)")
        if width is not None and (said := width_fault(width, "use a narrower projector, or leave it out")):
            found.append(said)
        return {("run", "record", "population"): "; ".join(found)} if found else {}

    def _population_fault(self, images: int) -> str | None:
        said = None if self.run.record.population is None else sample_fault(images)
        return f"{said}, or leave it out" if said else None

    def embedding_width(self, features: int | None = None) -> int | None:
        """d, behind a backbone of so many `features`; without them, as far as it is known here: without a projector it
        is not where the backbone is of one's own."""
        if self.projector.widths:
            return self.projector.widths[-1]
        if features is None and (sizes := sizes_of(self.backbone)) is not None:
            return sizes.features
        return features

    def objective_faults(self, images: int | None, features: int | None = None) -> dict[str, str]:
        """Field of the objective → what is wrong with it in this run, on a split of `images` images with a backbone of
        so many `features`, where they are known."""
        return faults_beside(
            self.objective,
            batch_size=self.batch_size,
            width=self.embedding_width(features),
            ranks=self.resources.slots,
            epochs=self._epochs_begun(images),
            images=images,
        )

    def _epochs_begun(self, images: int | None) -> int:
        """Epochs that max_steps lets begin; where it is not known how many steps they have, by one step each."""
        if self.max_steps is None:
            return self.epochs
        per_epoch = 1 if images is None else max(1, self.steps_per_epoch(images))
        return min(self.epochs, -(-self.max_steps // per_epoch))

    def batches_fault(self, ranks: int) -> str | None:
        """Why so many ranks cannot share the batches, with the remedy; None if they can."""
        return ranks_fault(self.batch_size, ranks) or self._pieces_fault(ranks)

    def _pieces_fault(self, ranks: int) -> str | None:
        if self.micro_batch is None:
            return None
        if self.batch_size % self.micro_batch:
            return (
                f"micro_batch {self.micro_batch} does not divide batch_size {self.batch_size}; all pieces have the "
                "same size"
            )
        least = 2 * ranks
        if self.micro_batch % ranks == 0 and self.micro_batch >= least:
            return None
        return (
            f"micro_batch {self.micro_batch} is global and has to give each of {ranks} ranks the same number of "
            f"images, at least 2; use a multiple of {ranks} from {least} on that divides batch_size"
        )

    def total_steps(self, images: int) -> int:
        """Optimiser steps of the whole run on a split of `images` images."""
        steps = self.epochs * self.steps_per_epoch(images)
        return min(steps, self.max_steps) if self.max_steps else steps

    def steps_per_epoch(self, images: int) -> int:
        """Whole batches in one epoch; the last partial batch is dropped."""
        return min(images, self.data.limit or images) // self.batch_size

    @property
    def backbone_made(self) -> BackboneMade | None:
        return BackboneMade(self.backbone.architecture, self.views.size)

    @property
    def in_words(self) -> str | None:
        length = f"{self.max_steps:,} steps" if self.max_steps else f"{self.epochs:,} epochs"
        backbone = f"a projector on frozen {self.backbone.name}" if self.backbone.frozen else self.backbone.name
        return f"{backbone} by {self.objective.name} on {self.data.name}, {length} at most"

    @property
    def products(self) -> Precision:
        return self.precision

    def as_written_out(self) -> PretrainSpec:
        # A preset is a way to write views.a and views.b, which are in the spec in full.
        views = self.views.model_copy(update={"preset": ViewsSpec.model_fields["preset"].default})
        changed = {
            "views": views,
            "backbone": self.backbone.as_written_out(),
            "projector": self.projector.as_written_out(),
            "objective": self.objective.as_written_out(self.embedding_width()),
        }
        return self.model_copy(update=changed)

    def planned_steps(self, images: int | None, classes: int | None) -> tuple[int | None, int | None]:
        return (None, None) if images is None else (self.steps_per_epoch(images), self.total_steps(images))

    def put_on_top(self, features: int, classes: int | None) -> OnTop:
        width = self.embedding_width(features)
        assert width is not None
        return OnTop(projector=self.projector.parameters(features), objective=self.objective.trained_numbers(width))

    @property
    def memory_words(self) -> str:
        """Those of every pretraining, and those of its objective."""
        return f"{self.memory_formula} {self.objective.name} holds {self.objective.memory_words}."

    def memory(self, sizes: BackboneSizes, classes: int | None, images: int | None) -> SlotMemory:
        width = self.embedding_width(sizes.features)
        assert width is not None
        slots, frozen = self.resources.slots, self.backbone.frozen
        parameter, activation = parameter_bytes(self.precision), activation_bytes(self.precision)
        on_top = self.put_on_top(sizes.features, classes)
        parameters = sizes.parameters + on_top.total
        trained = on_top.total if frozen else parameters
        view = sizes.view_bytes(self.views.size**2) * activation / 4 / (FROZEN if frozen else 1)
        piece = (self.micro_batch or self.batch_size) / slots
        views = 1 if self.objective.momentum_copy else 2
        activations = views * piece * (view + activation * self.projector.kept_for_backward())
        if self.micro_batch is not None:
            activations += 2 * 2 * -(-self.batch_size // slots) * width * parameter
        held = self.objective.numbers_held(samples=self.batch_size, features=width, ranks=slots)
        if self.objective.momentum_copy:
            held += parameters - on_top.objective
        population = 0
        if (record := self.run.record).population is not None:
            population = (6 if record.spectra else 2) * width**2 * 8
        kept = 0
        if self.objective.holds_all_images and images is not None:
            kept = min(images, self.data.limit or images)
        return SlotMemory(
            weights=parameters * parameter,
            gradients=trained * parameter,
            optimizer=trained * parameter * self.optimizer.running_averages,
            activations=round(activations),
            features=12 * width * kept + population,
            objective=parameter * held,
        )

    @property
    def splits(self) -> Sequence[SplitUse]:
        return (SplitUse("/data/split", self.data.split, labelled=False),)

    @property
    def reads_folder_whole(self) -> bool:
        return self.data.format == "images"

    def faults_of_annotations(self, entry: DataSetEntry) -> list[Fault]:
        """What the probes ask for and the data set does not have."""
        probes, name = self.run.record.probes, self.data.name
        if probes is None:
            return []
        if "class" not in entry.annotations:
            said = f"the probes need one class an image, and {name} has none; leave them out"
            return [Fault("/run/record/probes", said)]
        splits = {"split": probes.split, "test_split": probes.test_split}
        uses = [SplitUse(f"/run/record/probes/{field}", split) for field, split in splits.items()]
        faults = [fault for use in uses for fault in use.faults(name, entry)]
        images = entry.splits.get(probes.split)
        if images is not None and probes.k > images:
            said = f"{probes.k:,} neighbours, and split {probes.split!r} of {name} has {images:,} images; use fewer"
            faults.append(Fault("/run/record/probes/k", said))
        return faults

    def faults_of_size(self, images: int, classes: int | None, counted: str) -> list[Fault]:
        of_objective = self.objective_faults(images).items()
        found = [Fault(f"/objective/{field}", f"{said} ({counted})") for field, said in of_objective]
        if said := self._population_fault(images):
            found.append(Fault("/run/record/population", f"{said} ({counted})"))
        return [*no_whole_batch(self.batch_size, images, counted), *found]
