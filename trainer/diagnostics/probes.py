"""Probes of a pretraining: how its backbone does on labels, every few epochs, while it trains.

The features are those of the backbone itself, in evaluation mode, without a gradient, of un-augmented images;
`knn_top1` is that of protocol `knn/1` and `probe_top1` that of `linear-cached-features/1` with fewer epochs. Nothing
that training depends on is other after a look than before it: parameters, statistics, modes and torch's generators.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Self

import torch
from torch import nn

from barlow_lab.specs import PretrainSpec
from barlow_lab.specs.common import ProbesSpec
from barlow_lab.specs.kinds.evaluation import EvaluationImages
from trainer.data.checks.overlap import PRETRAINED_ON, shared
from trainer.data.classes import different, uneven
from trainer.data.datasets import ImageDataSet, Images
from trainer.data.errors import DataError, NothingReadable
from trainer.data.folder_names import at_odds
from trainer.data.hearing import nobody
from trainer.data.registry import open_data_set
from trainer.diagnostics.base import Diagnosed, NetworkDiagnostic, NetworkSeen, Records
from trainer.evaluation.features import extract, labels_on
from trainer.evaluation.knn import true_places
from trainer.evaluation.linear_cached import Training, classify, labelled
from trainer.evaluation.scoring import top
from trainer.failures import BadSpec, Diverged
from trainer.runtime import collectives
from trainer.runtime.context import Context
from trainer.runtime.data_warnings import warn_of_split
from trainer.runtime.precision import PARAMETER_DTYPES, exact_products
from trainer.runtime.units import UnitsWithinStep
from trainer.runtime.untouched import untouched

PHASE = "probe"
PLACE = "run.record.probes"


class Probes(NetworkDiagnostic):
    """Shows the backbone labelled images after every `every_epochs`, and at the end."""

    name = PHASE
    metric_names = ("knn_top1", "probe_top1")
    every_rank = True
    observed_key = "probed"

    def __init__(self, run: Diagnosed, asked: ProbesSpec) -> None:
        """Open the data and try the backbone on one image, before a run begins that would end at its first probe.

        Raises:
            BadSpec: `k` or `size` cannot be; says what can.
            DataError: there are no such splits, or they have no classes.
        """
        super().__init__()
        spec = run.spec
        self._spec = spec
        self._asked = asked
        self._plan = run.plan
        self._context = run.context
        self._train, self._test = _open_splits(spec, asked, run.images, run.context)
        self._images = EvaluationImages(size=asked.size or spec.views.size)
        self._dtype = PARAMETER_DTYPES[spec.precision]
        self._fingerprints = {"train": self._train.fingerprint, "test": self._test.fingerprint}
        self._begun_with = self._fingerprints
        if asked.k > len(self._train):
            raise BadSpec(
                f"{PLACE}.k {asked.k} is above the {len(self._train)} images of split {asked.split!r} that are "
                f"looked at; use at most {len(self._train)}, or a higher limit"
            )
        self._try(run.network["backbone"])

    @classmethod
    def of(cls, run: Diagnosed) -> Self | None:
        asked = run.spec.run.record.probes
        return None if asked is None else cls(run, asked)

    @property
    def looked_at(self) -> dict[str, Images]:
        return {"probe_train": self._train, "probe_test": self._test}

    def state_dict(self) -> dict[str, Any]:
        """When there was the last probe, and which images the run's probes are of."""
        return {**super().state_dict(), "probed_data": self._begun_with}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Go on from a checkpoint. Where the images are other ones than those that the run's probes began with, there
        are no more probes, which is warned of: one curve would tell of both. Training depends on none of them, so it
        goes on; refused, a long run would be lost for one label of its test split that was put right."""
        super().load_state_dict(saved)
        self._begun_with = saved.get("probed_data", self._begun_with)  # versions before this one saved none
        splits = {"train": self._asked.split, "test": self._asked.test_split}
        if others := [repr(splits[role]) for role, now in self._fingerprints.items() if self._begun_with[role] != now]:
            self._context.warn(
                f"{PLACE}: no more probes: the images or labels of split {' and '.join(others)} are not those that the "
                "probes of this run began with. Training goes on without them; put back what they were, and the next "
                "attempt probes again"
            )

    def due(self, step: int) -> bool:
        """After every `every_epochs`, and at the end; never of images other than those that the run's probes began
        with."""
        return self._begun_with == self._fingerprints and self._plan.ends_epoch(step, self._asked.every_epochs)

    def observe(self, seen: NetworkSeen, records: Records) -> None:
        """Look at the backbone, and record what is seen. A probe that cannot be made is warned of, and training goes
        on.

        Raises:
            DataError: an image cannot be loaded, though it can be read.
            Stopped: a stop was asked for.
        """
        try:
            with exact_products(self._context.device):
                values = self._look(seen.network["backbone"])
        except (BadSpec, NothingReadable, Diverged) as error:  # all ranks have it: none is left in a collective
            self._context.warn(f"no probe at step {seen.step}: {error}")
        else:
            records.metrics(values)

    def _look(self, backbone: nn.Module) -> dict[str, float]:
        context, asked = self._context, self._asked
        units = UnitsWithinStep(context)
        with untouched(backbone, context.device):
            train, test = (
                extract(
                    backbone,
                    dataset,
                    self._images,
                    batch_size=self._spec.micro_batch or self._spec.batch_size,
                    phase=PHASE,
                    context=context,
                    units=units,
                    dtype=self._dtype,
                )
                for dataset in (self._train, self._test)
            )
        classes = len(self._train.classes)
        train_labels, test_labels = labels_on(context.device, self._train), labels_on(context.device, self._test)
        probe = 0.0
        for epoch in classify(
            Training.of_protocol(epochs=asked.epochs, seed=self._spec.seed),
            labelled(train, train_labels, PHASE, context),
            labelled(test, test_labels, PHASE, context),
            classes=classes,
            phase=PHASE,
            units=units,
        ):
            probe = epoch.scores["top1"]
            units.finished()
        places = true_places(
            train,
            train_labels,
            test,
            test_labels,
            k=asked.k,
            temperature=asked.temperature,
            classes=classes,
            phase=PHASE,
            context=context,
            units=units,
        )
        return {"knn_top1": top(places, 1), "probe_top1": probe}

    def _try(self, backbone: nn.Module) -> None:
        side = self._images.size
        try:
            with untouched(backbone, self._context.device), torch.no_grad():
                backbone(torch.zeros(1, 3, side, side, dtype=self._dtype, device=self._context.device))
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, AssertionError, ValueError) as error:
            raise BadSpec(
                f"{PLACE}.size: the backbone takes no image of {side} px ({error}); leave it out for views.size"
            ) from error


def _open_splits(
    spec: PretrainSpec, asked: ProbesSpec, learned: Images, context: Context
) -> tuple[ImageDataSet, ImageDataSet]:
    name, tick, splits = spec.data.name, partial(context.working, "loading data"), (asked.split, asked.test_split)
    told: set[str] = set()

    def once(said: str) -> None:
        """What the readers say of both splits alike."""
        if said not in told:
            told.add(said)
            context.warn(said)

    try:
        heard = nobody if context.listener is nobody else once
        train, test = (
            open_data_set(name, split, source=context.data_source(name), limit=asked.limit, tick=tick, warn=heard)
            for split in splits
        )
    except DataError as error:
        raise DataError(f"{PLACE}: {error}; without probes this data set can be trained on") from error
    if said := different(name, splits, (train.classes, test.classes)):
        raise DataError(f"{PLACE}: {said}")
    for split, images in ((asked.split, train), (asked.test_split, test)):
        if split != spec.data.split:  # of which the training has told
            warn_of_split(name, split, images, context, "loading data")
    for said in [*uneven(splits, (train, test), limit="limit"), *at_odds(splits, (train, test))]:
        context.warn(f"{PLACE}: {said}")
    if context.journal is not None and (said := shared(splits, (train, test), tick)):
        context.warn(f"{PLACE}: {said}")
    if context.journal is not None:
        pretrained = (spec.data.split, asked.test_split), (learned, test)
        if said := shared(*pretrained, tick, learned_from="pretrained on", remedy=PRETRAINED_ON):
            context.warn(f"{PLACE}: {said}")
    seen = collectives.all_gather_texts([f"{train.fingerprint} {test.fingerprint}"], context.device)
    if len(set(seen)) > 1:
        raise DataError(f"the ranks do not see the same files of data set {name!r}; is it being written to?")
    return train, test
