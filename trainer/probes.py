"""Probes of a pretraining: how its backbone does on labels, every few epochs, while it trains.

The features are those of the backbone itself, in evaluation mode, without a gradient, of un-augmented images;
`knn_top1` is that of protocol `knn/1` and `probe_top1` that of `linear-cached-features/1` with fewer epochs. Nothing
that training depends on is other after a look than before it: parameters, statistics, modes and torch's generators.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn

from barlow_lab.specs import PretrainSpec
from barlow_lab.specs.common import ProbesSpec
from barlow_lab.specs.kinds.evaluation import EvaluationImages
from trainer.data.classes import different, uneven
from trainer.data.datasets import ImageDataSet, Images
from trainer.data.errors import DataError, NothingReadable
from trainer.data.folder_names import at_odds
from trainer.data.hearing import nobody
from trainer.data.overlap import PRETRAINED_ON, shared
from trainer.data.registry import open_data_set
from trainer.evaluation.features import extract, labels_on
from trainer.evaluation.knn import true_places
from trainer.evaluation.linear_cached import Training, classify, labelled
from trainer.evaluation.scoring import top
from trainer.evaluation.units import Stopped, UnitsWithinStep
from trainer.failures import BadSpec, Diverged
from trainer.metric_series import MetricSeries
from trainer.runtime import collectives
from trainer.runtime.context import Context
from trainer.runtime.data_warnings import warn_of_split
from trainer.runtime.precision import PARAMETER_DTYPES, exact_products
from trainer.runtime.resuming import counted_metrics
from trainer.train_state import TrainState
from trainer.training.plan import Plan

PHASE = "probe"
PLACE = "run.record.probes"


class Probes:
    """The labelled images that the backbone is shown, and what it has last been seen to do."""

    def __init__(
        self,
        spec: PretrainSpec,
        asked: ProbesSpec,
        plan: Plan,
        backbone: nn.Module,
        learned: Images,
        context: Context,
    ) -> None:
        """Open the data and try the backbone on one image, before a run begins that would end at its first probe.
        `learned` are the images that the run trains on.

        Raises:
            BadSpec: `k` or `size` cannot be; says what can.
            DataError: there are no such splits, or they have no classes.
        """
        self._spec = spec
        self._asked = asked
        self._plan = plan
        self._context = context
        self._train, self._test = _open_splits(spec, asked, learned, context)
        self._images = EvaluationImages(size=asked.size or spec.views.size)
        self._dtype = PARAMETER_DTYPES[spec.precision]
        self._last_step = 0  # the newest one at which there was a probe
        self._fingerprints = {"train": self._train.fingerprint, "test": self._test.fingerprint}
        self._begun_with = self._fingerprints
        if asked.k > len(self._train):
            raise BadSpec(
                f"{PLACE}.k {asked.k} is above the {len(self._train)} images of split {asked.split!r} that are "
                f"looked at; use at most {len(self._train)}, or a higher limit"
            )
        self._try(backbone)

    @property
    def data(self) -> dict[str, Images]:
        """What is looked at, by the role that the journal calls it by."""
        return {"probe_train": self._train, "probe_test": self._test}

    def state_dict(self) -> dict[str, Any]:
        """Of a checkpoint: when there was the last probe, and which images the run's probes are of."""
        return {"probed": self._last_step, "probed_data": self._begun_with}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Go on from a checkpoint. Where the images are other ones than those that the run's probes began with, there
        are no more probes, which is warned of: one curve would tell of both. Training depends on none of them, so it
        goes on; refused, a long run would be lost for one label of its test split that was put right."""
        self._last_step = saved.get("probed", 0)
        self._begun_with = saved.get("probed_data", self._begun_with)  # versions before this one saved none
        splits = {"train": self._asked.split, "test": self._asked.test_split}
        if others := [repr(splits[role]) for role, now in self._fingerprints.items() if self._begun_with[role] != now]:
            self._context.warn(
                f"{PLACE}: no more probes: the images or labels of split {' and '.join(others)} are not those that the "
                "probes of this run began with. Training goes on without them; put back what they were, and the next "
                "attempt probes again"
            )

    def due(self, step: int) -> bool:
        """After every `every_epochs`, and at the end; not again where there has been one, and never of images other
        than those that the run's probes began with."""
        return (
            self._begun_with == self._fingerprints
            and self._last_step < step
            and self._plan.ends_epoch(step, self._asked.every_epochs)
        )

    def record(self, state: TrainState, series: MetricSeries, step: int, *, resumed: bool = False) -> bool:
        """Look at the backbone after `step` and journal what is seen; every rank calls it. A probe that cannot be
        made is warned of, and training goes on. `resumed`: the run goes on from this step; an attempt since its
        checkpoint may have told of the probe already.

        Returns False if a stop was asked for meanwhile: nothing is journalled then.

        Raises:
            DataError: an image cannot be loaded, though it can be read.
            Diverged: the training has.
        """
        context = self._context
        series.flush()
        state.raise_if_diverged()
        with series.clock_stopped():
            try:
                with exact_products(self._context.device):
                    values = self._look(state.model["backbone"])
            except Stopped:
                return False
            except (BadSpec, NothingReadable, Diverged) as error:  # all ranks have it: none is left in a collective
                context.warn(f"no probe at step {step}: {error}")
                values = {}
        self._last_step = step
        series.last |= values
        told = resumed and not values.keys().isdisjoint(counted_metrics(context, step))
        if values and context.journal is not None and not told:
            context.journal.metrics(step, self._plan.epoch(step), values)
        return True

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


@contextmanager
def untouched(module: nn.Module, device: torch.device) -> Iterator[None]:
    """Within: `module` is in evaluation mode. After: every mode, every buffer and torch's generators are as before."""
    modes = [(part, part.training) for part in module.modules()]
    buffers = [(buffer, buffer.clone()) for buffer in module.buffers()]
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        module.eval()
        try:
            yield
        finally:
            for part, training in modes:
                part.training = training
            for buffer, before in buffers:
                buffer.copy_(before)


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
