"""The test of a detector: every image of a split once, over all ranks, then one score of all of them."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pycocotools import mask as coco_masks

from barlow_lab.specs import DetectionSpec
from trainer.data.datasets import AnnotatedDataSet
from trainer.data.errors import DataError
from trainer.data.ignored import told_of
from trainer.data.loading.detection import JudgedImage, judged_images
from trainer.evaluation.detection.picture import Row, write_detections_picture
from trainer.evaluation.detection.scoring import ImageDetections, average_precisions
from trainer.evaluation.lost_classes import tell_of_lost_classes
from trainer.models.detectors.c4 import C4Detector, Detections
from trainer.runtime import collectives
from trainer.runtime.context import LOADING_SECONDS, Context
from trainer.runtime.units import Units, share

PHASE = "testing"
PICTURE_IMAGES = 8


@dataclass(slots=True)
class DetectorTest:
    """Tests of a detector on one split."""

    spec: DetectionSpec
    dataset: AnnotatedDataSet
    context: Context
    unreadable: list[str] = field(default_factory=list)
    """Images that the last test left out, each with its cause."""
    counts: dict[str, int] = field(default_factory=dict)
    """Of the last test: `objects` that were asked for, `ignored` ones, those `without_area` of the former, which
    nothing can find, and boxes `cut` off at the edge of their image."""
    _findable: NDArray[np.bool_] = field(init=False)
    """(n,) whether an image has an object to find."""

    def __post_init__(self) -> None:
        self._findable = (self.dataset.presence() == 1).any(axis=1)
        if not self._findable.any():
            ignored = told_of(self.dataset, "it")
            why = f": {ignored}, or" if ignored else ";"
            raise DataError(f"split {self.spec.test_split!r} has no object to find{why} use another test_split")

    @property
    def images_without_objects(self) -> int:
        """Images of the split that have no object to find."""
        return int((~self._findable).sum())

    def run(self, detector: C4Detector, step: int, units: Units) -> dict[str, float]:
        """Scores by name, the same on every rank and, to the bits of one image's detections, for any number of ranks.

        Raises:
            DataError: no image with an object can be read, or one cannot be loaded for another reason.
            Stopped: a stop was asked for.
        """
        context = self.context
        asked = 0
        found: list[str] = []
        unreadable: list[str] = []
        read: list[int] = []
        rows: list[Row] = []
        mine = share(len(self.dataset), context)
        images = judged_images(
            self.dataset,
            mine,
            short=self.spec.test_side,
            longest=self.spec.longest_side,
            threads=context.threads,
            tick=partial(context.working, PHASE, quiet_seconds=LOADING_SECONDS),
        )
        detector.eval()
        begun = time.monotonic()
        largest = -(-len(self.dataset) // context.world_size)
        with closing(images):
            for done in range(1, largest + 1):
                judged = next(images, None)
                if judged is not None and judged.image is None:
                    unreadable.append(str(judged.unreadable))
                elif judged is not None:
                    read.append(judged.index)
                    asked += int(self._findable[judged.index])
                    detections = self._detect(detector, judged)
                    found.append(json.dumps({"image": judged.index, **_as_text(detections)}))
                    if context.journal is not None and len(rows) < PICTURE_IMAGES:
                        image, truth = self.dataset.image(judged.index), self.dataset.annotation(judged.index)
                        rows.append(Row(image, truth, detections))
                all_done = min(done * context.world_size, len(self.dataset))
                rate = all_done / max(time.monotonic() - begun, 1e-9)
                context.progress(PHASE, step=done, steps=largest, images_per_second=rate)
                units.finished()
        detector.train()
        if rows and context.journal is not None:
            name = f"detections-{step:08d}.png"
            write_detections_picture(context.attempt_folder / name, rows, self.dataset.classes)
            context.journal.append("image", step=step, key="detections", file=name)
        self._leave_out(collectives.all_gather_texts(unreadable, context.device), read)
        if not int(collectives.all_reduce_(torch.tensor(asked, device=context.device))):
            raise DataError(f"none of the images of split {self.spec.test_split!r} that have objects can be read")
        context.working(f"{PHASE}, gathering")
        every = collectives.all_gather_texts(found, context.device)
        counts = dict.fromkeys(("objects", "ignored", "without_area", "cut"), 0)
        scores = average_precisions(
            self._judged(every, counts),
            masks=self.spec.masks,
            difficult=self.dataset.ignored_are_difficult,
            tick=partial(context.working, f"{PHASE}, scoring"),
        )
        if counts != self.counts and (said := in_words(counts, self.dataset)):
            context.warn(f"split {self.spec.test_split!r}: {'; '.join(said)}")
        self.counts = counts
        return scores

    def state_dict(self) -> dict[str, Any]:
        """What a result says of the last test, beside its scores."""
        return {"unreadable": list(self.unreadable), "counts": dict(self.counts)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        self.unreadable, self.counts = list(state["unreadable"]), dict(state["counts"])

    def _detect(self, detector: C4Detector, judged: JudgedImage) -> Detections:
        assert judged.image is not None
        return detector.detect(judged.image.pixels.to(self.context.device), judged.image.size)

    def _leave_out(self, unreadable: list[str], read: list[int]) -> None:
        """Warn of what cannot be read on any rank, if that is new; `read` is what this one has read."""
        if len(unreadable) == len(self.dataset):
            raise DataError(f"none of the {len(unreadable):,} images can be read ({PHASE}); the first: {unreadable[0]}")
        if unreadable and unreadable != self.unreadable:
            self.context.warn(
                f"{len(unreadable):,} of {len(self.dataset):,} images cannot be read and are left out ({PHASE}); "
                f"the first: {unreadable[0]}",
                unreadable=len(unreadable),
            )
            tell_of_lost_classes(self.dataset, torch.tensor(read, dtype=torch.int64), PHASE, self.context)
        self.unreadable = unreadable

    def _judged(self, every: list[str], counts: dict[str, int]) -> Iterator[ImageDetections]:
        for line in every:
            said = json.loads(line)
            masks = None
            if self.spec.masks:
                size = list(self.dataset.size(said["image"]))
                runs = [{"size": size, "counts": counts.encode("ascii")} for counts in said["masks"]]
                flat = coco_masks.decode(runs) if runs else np.zeros((*size, 0), dtype=np.uint8)
                masks = torch.from_numpy(np.ascontiguousarray(flat.transpose(2, 0, 1)))
            truth = self.dataset.annotation(said["image"])
            empty = (truth.boxes[:, :2] >= truth.boxes[:, 2:]).any(axis=1)
            counts["objects"] += int((~truth.ignored).sum())
            counts["ignored"] += int(truth.ignored.sum())
            counts["without_area"] += int((empty & ~truth.ignored).sum())
            counts["cut"] += truth.cut
            yield ImageDetections(
                torch.tensor(said["boxes"], dtype=torch.float32).view(-1, 4),
                torch.tensor(said["scores"], dtype=torch.float32),
                torch.tensor(said["classes"], dtype=torch.int64),
                masks,
                truth,
            )


def in_words(counts: Mapping[str, int], dataset: AnnotatedDataSet) -> list[str]:
    """What a test of these counts (`DetectorTest.counts`) does on purpose otherwise than the evaluator whose name its
    scores bear, and what of its objects nothing could have found."""
    whose = "VOC's development kit" if dataset.ignored_are_difficult else "COCOeval"
    said = []
    if counts["cut"]:
        said.append(
            f"boxes that reach over the edge of their image are cut off there ({counts['cut']:,}); {whose} takes them "
            "as they are"
        )
    if counts["without_area"]:
        said.append(
            f"objects whose box has no area count as missed, as {whose} counts them: nothing can find them "
            f"({counts['without_area']:,} of {counts['objects']:,})"
        )
    return said


def _as_text(found: Detections) -> dict[str, Any]:
    """As it travels to the other ranks, masks as COCO's run lengths: the float32 numbers are exact in JSON."""
    words: dict[str, Any] = {
        "boxes": found.boxes.float().tolist(),
        "scores": found.scores.float().tolist(),
        "classes": found.classes.tolist(),
    }
    if found.masks is not None:
        stacked = np.asfortranarray(found.masks.cpu().numpy().astype(np.uint8).transpose(1, 2, 0))
        words["masks"] = [runs["counts"].decode("ascii") for runs in coco_masks.encode(stacked)]
    return words
