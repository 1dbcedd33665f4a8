"""Fields of COCO's JSON that other programs write, and that would change what its boxes mean: counted and told, and
passed over."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any


class OtherFields:
    """What was seen of them."""

    def __init__(self) -> None:
        self._images = self._objects = self._partly = self._ignore = self._rotated = 0

    def of_image(self, image: Mapping[str, Any]) -> None:
        """Take in an image."""
        self._images += 1
        self._partly += bool(image.get("not_exhaustive_category_ids") or image.get("neg_category_ids"))

    def of_object(self, annotation: Mapping[str, Any], *, crowd: bool) -> None:
        """Take in an object, which is a crowd or not."""
        self._objects += 1
        self._ignore += not crowd and _is_set(annotation.get("ignore"))
        attributes = annotation.get("attributes")
        self._rotated += isinstance(attributes, dict) and _is_set(attributes.get("rotation"))

    def tell(self, whose: str, warn: Callable[[str], None]) -> None:
        """Warn of them."""
        if self._ignore:
            warn(
                f"{self._ignore:,} of {self._objects:,} objects of {whose} have `ignore` set and `iscrowd` not: they "
                "count as any other, as in COCO's rule. Are they to count for nothing, write iscrowd 1"
            )
        if self._rotated:
            warn(
                f"{self._rotated:,} of {self._objects:,} objects of {whose} have a `rotation`, as CVAT writes it: it "
                "is passed over, and boxes are read as upright. Write the boxes around the turned objects"
            )
        if self._partly:
            warn(
                f"{self._partly:,} of {self._images:,} images of {whose} have `neg_category_ids` or "
                "`not_exhaustive_category_ids`, as LVIS: classes are not annotated in all images there, and what is "
                "found of them counts as wrong. Scores are not those of LVIS' rule"
            )


def _is_set(value: object) -> bool:
    return isinstance(value, int | float) and bool(value)
