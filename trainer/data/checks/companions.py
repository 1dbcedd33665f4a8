"""Masks of other images whatever they are called: some images are read, and for those that may be masks the images are
looked for whose names have a part in common with theirs.

Words for masks are many (`_manual1`, `_1stHO`, `_cp_masks`, the same name as a PNG); what a mask is, its pixels say.
"""

from __future__ import annotations

import itertools
import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from trainer.data.checks.few_colours import ImageColours
from trainer.data.checks.mask_names import image_cores, name_cores, says_mask_or_image, wheres
from trainer.data.image_files import FileImages, said

DRAWN = 64
"""Images that are read."""
TRIED = 2
"""Images that are read of those that a mask may be of."""
KEPT = 8
"""Relations of an image that are kept, the likeliest."""
FEWEST = 2
"""Masks by one kind of name: a single one may be anything."""

_Part = tuple[int, int, int, bytes]
"""A part of a name: place of the image, start, end, and the folder that it alone of two images is in."""
_Parts = tuple[dict[bytes, list[_Part]], bytes, bool]
"""Parts by their bytes, the folder that an image beside them alone is in, whether less than its whole name counts."""
_NUMBER = re.compile(rb"[0-9]+")


@dataclass(frozen=True, slots=True)
class _Relation:
    """A drawn image and another, whose names have a part in common."""

    other: int
    rank: tuple[bool, int, int, bool]
    """Whether the other does not look like a mask, how many bytes are in common, how few the other has beside, whether
    it is in the same folder: the higher, the likelier it is that the one is a mask of it."""
    kind: tuple[bytes, ...]
    """What the drawn one has of its own: a folder, a beginning, an end, an ending; numbers in them are all one."""
    in_word: bool
    """Whether what either has of its own says mask or image."""
    apart: bool
    """Whether they lie in folders of different names."""
    whole: bool
    """Whether nothing is left of the other's name."""

    @property
    def is_plain(self) -> bool:
        """Whether names say enough: classes may be numbered alike."""
        return self.in_word or not self.apart


class _Wanted:
    """Parts of the names of the images that were drawn, by what their folders have in common with others'."""

    def __init__(self, *, labelled: bool) -> None:
        self._labelled = labelled
        self._parts: dict[tuple[bytes, bytes], dict[bytes, list[_Part]]] = defaultdict(lambda: defaultdict(list))
        self._alone: dict[tuple[bytes, bytes], set[bytes]] = defaultdict(set)
        """Folders that only these are in."""
        self._of_folders: dict[bytes, list[_Parts]] = {}

    def add(self, place: int, folder: bytes, stem: bytes) -> None:
        """Take in the name of one that was drawn; all of them before `of_folder` is asked."""
        for above, below, part in wheres(folder):
            self._alone[above, below].add(part)
            for start, end in name_cores(stem):
                self._parts[above, below][stem[start:end]].append((place, start, end, part))

    def of_folder(self, folder: bytes) -> list[_Parts]:
        """Those that names in `folder` may have. Less than a whole name counts not for those in folders that nothing
        says to be of images or masks, and where these are classes no name does."""
        if folder not in self._of_folders:
            self._of_folders[folder] = found = []
            for above, below, part in wheres(folder):
                if parts := self._parts.get((above, below)):
                    alone = self._alone[above, below]
                    is_cut = (not part and b"" in alone) or any(map(says_mask_or_image, (part, *alone)))
                    if is_cut or not self._labelled:
                        found.append((parts, part, is_cut))
        return self._of_folders[folder]


def _in_common(of_folder: Sequence[_Parts], stem: bytes) -> Iterator[tuple[_Part, tuple[int, int], bytes]]:
    """The parts that a name has, where it has them, and the folder that its image alone is in."""
    whole = (0, len(stem))
    cuts = image_cores(stem) if any(is_cut for _, _, is_cut in of_folder) else [whole]
    for parts, part, is_cut in of_folder:
        for start, end in cuts if is_cut else [whole]:
            for one in parts.get(stem[start:end], ()):
                yield one, (start, end), part


class Companions:
    """Pairs of masks and images of a split."""

    def __init__(self, images: FileImages, seen: ImageColours, tick: Callable[[], None]) -> None:
        self._images = images
        self._seen = seen
        self._tick = tick
        self._drawn = 0

    def among(self, known: set[int], *, labelled: bool) -> list[tuple[int, int]]:
        """(mask, image) of those that were drawn, but for masks that are `known`; `labelled` says that folders may be
        classes.

        Raises:
            OSError: the disk does not give them.
        """
        places = np.setdiff1d(np.arange(len(self._images)), np.array(sorted(known), dtype=np.int64))
        if len(places) > DRAWN:  # at random: images and masks may take turns
            places = np.sort(np.random.default_rng(0).choice(places, DRAWN, replace=False))
        drawn = [place for place in places.tolist() if self._seen.colours(place)]
        self._drawn = len(drawn)
        suspects = {place for place in drawn if self._seen.may_be_mask(place)}
        if len(suspects) < FEWEST:
            return []
        looked_at: Counter[tuple[bytes, ...]] = Counter()
        alike: dict[tuple[bytes, ...], list[tuple[int, _Relation]]] = defaultdict(list)
        for place, relations in self._related(drawn, suspects, labelled=labelled).items():
            likely = _likely(relations, labelled=labelled)
            of = [each for each in likely if place in suspects and self._is_companion(place, each)]
            if likely:
                looked_at[(of or likely)[0].kind] += 1
            if of:
                alike[of[0].kind].append((place, of[0]))
        return sorted(
            (place, relation.other)
            for kind, pairs in alike.items()
            if len(pairs) >= FEWEST
            and 2 * len(pairs) >= looked_at[kind]
            and self._are_of_one_kind(pairs, labelled=labelled)
            for place, relation in pairs
        )

    def words(self, pairs: Sequence[tuple[int, int]]) -> str:
        """What to say of them."""
        mask, image = (said(self._images.below(place)) for place in pairs[0])
        return (
            f"{len(pairs):,} of {self._drawn:,} images that were looked at, of {len(self._images):,} in all, look like "
            f"masks of others by their pixels, and have a part of the others' names, first {mask}, of {image}"
        )

    def _related(self, drawn: Sequence[int], suspects: set[int], *, labelled: bool) -> dict[int, list[_Relation]]:
        """The images that each of the drawn ones is likely to be a mask of by its name."""
        wanted = _Wanted(labelled=labelled)
        for place in drawn:
            folder, stem, _ = _parted(self._images.below(place))
            wanted.add(place, folder, stem)
        found: dict[int, list[_Relation]] = defaultdict(list)
        for other in range(len(self._images)):
            self._tick()
            path = self._images.below(other)
            folder, _, name = path.rpartition(b"/")
            if not (parts := wanted.of_folder(folder)):  # of a million images the most end here
                continue
            for one, (start, end), part in _in_common(parts, os.path.splitext(name)[0]):
                if one[0] != other and (part != one[3] or not part):
                    _keep(found[one[0]], self._relation(one, (other, start, end, part), suspects))
        return found

    def _relation(self, one: _Part, other: _Part, suspects: set[int]) -> _Relation:
        left = []
        for place, start, end, part in (one, other):
            _, stem, ending = _parted(self._images.below(place))
            left.append((part, stem[:start], stem[end:], ending))
        beside = len(left[1][1]) + len(left[1][2])
        apart = one[3] != other[3]
        return _Relation(
            other[0],
            (other[0] not in suspects, other[2] - other[1], -beside, not apart),
            tuple(_NUMBER.sub(b"0", each) for each in left[0]),
            any(says_mask_or_image(each) for side in left for each in side[:3]),
            apart,
            not beside,
        )

    def _is_companion(self, place: int, relation: _Relation) -> bool:
        if not self._seen.is_mask_of(place, relation.other, in_word=relation.in_word):
            return False
        one, other = self._seen.colours(place), self._seen.colours(relation.other)
        same_size = one is not None and other is not None and (one.height, one.width) == (other.height, other.width)
        return relation.is_plain or same_size

    def _are_of_one_kind(self, pairs: Sequence[tuple[int, _Relation]], *, labelled: bool) -> bool:
        """Whether their colours say so, where their names do not: those of logos differ, and of labels in a class."""
        if all(relation.is_plain and not (relation.apart and labelled) for _, relation in pairs):
            return True
        return self._seen.are_of_one_kind([place for place, _ in pairs])


def _likely(relations: Sequence[_Relation], *, labelled: bool) -> list[_Relation]:
    """Those that may be of a mask and its image: where both have something of their own, and where no more than their
    folders differs, a word has to say so, or there is no other image to which it would be likewise."""
    best = sorted(relations, key=lambda each: each.rank, reverse=True)
    alone = len({each.other for each in best if each.rank[1] == best[0].rank[1]}) == 1
    found = (each for each in best if each.in_word or (each.whole and (not each.apart or (alone and not labelled))))
    return list(itertools.islice(found, TRIED))


def _keep(relations: list[_Relation], relation: _Relation) -> None:
    relations.append(relation)
    if len(relations) > 4 * KEPT:
        relations.sort(key=lambda each: each.rank, reverse=True)
        del relations[KEPT:]


def _parted(path: bytes) -> tuple[bytes, bytes, bytes]:
    """Folder, stem and ending."""
    folder, _, name = path.rpartition(b"/")
    stem, ending = os.path.splitext(name)
    return folder, stem, ending.lower()
