"""What names of files and folders say of masks and of the images that they are of."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

_WORDS = (
    rb"masks?|segs?|segmented|segmentations?|segmentation_?(?:class|object)[a-z]*|labels?|labelled|labeled|label_?ids|"
    rb"instance_?ids|gt|gts|gtfine|ground[ _-]?truths?|annots?|annos?|annotations?|annotated|trimaps?|mattes?|manual|"
    rb"targets?|super_?pixels?"
)
"""What people call masks, in the names of files and of folders,"""
_IN_WORDS = (
    b"mask",
    b"seg",
    b"label",
    b"instance",
    b"gt",
    b"truth",
    b"anno",
    b"trimap",
    b"matte",
    b"manual",
    b"target",
    b"pixel",
)
"""one of which is in each of these,"""
_OF_IMAGES = rb"image|images|img|imgs|im|ims|rgb|sat|orig|original|originals|leftimg|jpegimages|inputs?"
"""and images beside them."""
_BETWEEN = rb"[ _.\-]"
_MASK_FOLDER = re.compile(rb"(?:.*%b)?(?:%b)(?:[0-9]+|%b.*)?" % (_BETWEEN, _WORDS, _BETWEEN), re.IGNORECASE)
_MASK_NAME = re.compile(
    rb"(?P<before>.+?)(?:%b+(?:%b))+(?:%b*[0-9]+)?|(?:%b)%b+(?P<after>.+)"
    % (_BETWEEN, _WORDS, _BETWEEN, _WORDS, _BETWEEN),
    re.IGNORECASE,
)
_IMAGE_NAME = re.compile(
    rb"(?P<before>.+?)%b+(?:%b)|(?:%b)%b+(?P<after>.+)" % (_BETWEEN, _OF_IMAGES, _OF_IMAGES, _BETWEEN), re.IGNORECASE
)
_TOLD = re.compile(
    rb"(?:.*[^a-z])?(?:%b|%b)(?:[^a-z].*)?|.*(?:%b).*"
    % (_WORDS, _OF_IMAGES, rb"mask|segment|label|annot|trimap|superpix|ground_?truth"),
    re.IGNORECASE | re.DOTALL,
)
"""A part of a path that says by a word of its own that it is of masks, or of images, or by a longer one within another:
`maskcrop`."""
_PIECE = re.compile(rb"[0-9]+|[a-z\x80-\xff]+", re.IGNORECASE)
_DIGITS = bytes(range(ord("0"), ord("9") + 1))
_LETTERS = bytes(each for each in range(256) if (chr(each).isascii() and chr(each).isalpha()) or each >= 0x80)
_BESIDE = bytes(set(range(256)) - {*_DIGITS, *_LETTERS})

MOST_CUTS = 8
"""Pieces that are taken off a name at either end."""


class Folders:
    """Keys that masks share with their images: hashes of a folder that holds both, in one folder each or itself, of the
    folders below that, and of the name without what says mask or image."""

    def __init__(self) -> None:
        self._places: dict[bytes, list[int]] = {}
        self._parents: set[bytes] = set()
        """Folders in which one is called as masks are."""

    def of_masks(self, folder: bytes) -> list[int]:
        """Places in the path of those folders that are called as masks are."""
        if folder not in self._places:
            parts = folder.split(b"/")
            self._places[folder] = [place for place, part in enumerate(parts) if _MASK_FOLDER.fullmatch(part)]
            self._parents |= {b"/".join(parts[:place]) for place in self._places[folder]}
        return self._places[folder]

    def of_mask(self, path: bytes) -> Iterator[int]:
        """The hashes of a mask: none of its whole name in its own folder, which it has itself."""
        folder, name = os.path.split(path)
        stem = os.path.splitext(name)[0]
        parts = folder.split(b"/")
        bare = _bare(_MASK_NAME, stem)
        for one in bare:
            yield hash((folder, b"", one))
        for place in self.of_masks(folder):
            for one in (stem, *bare):
                yield hash((b"/".join(parts[:place]), b"/".join(parts[place + 1 :]), one))

    def of_image(self, path: bytes) -> Iterator[int]:
        """The hashes of an image."""
        folder, name = os.path.split(path)
        stem = os.path.splitext(name)[0]
        for one in (stem, *_bare(_IMAGE_NAME, stem)):
            yield hash((folder, b"", one))
            parts = folder.split(b"/") if self._parents else []
            for place in range(len(parts)):
                if (parent := b"/".join(parts[:place])) in self._parents:
                    yield hash((parent, b"/".join(parts[place + 1 :]), one))


def is_called_mask(name: bytes) -> bool:
    """Whether the name of a file says so."""
    lowered = name.lower()  # a search among words is a third of the time of the pattern
    return any(word in lowered for word in _IN_WORDS) and bool(_MASK_NAME.fullmatch(os.path.splitext(name)[0]))


def says_mask_or_image(part: bytes) -> bool:
    """Whether a part of a path has a word for masks, or for images, in it."""
    return bool(_TOLD.fullmatch(part))


def name_cores(stem: bytes) -> list[tuple[int, int]]:
    """(start, end) of what is left of a mask's name without pieces at its end, or at its beginning; the whole first."""
    pieces = [piece.span() for piece in _PIECE.finditer(stem)]
    if not pieces:
        return [(0, len(stem))]
    first, last = pieces[0][0], pieces[-1][1]
    ends = [(first, end) for _, end in pieces[::-1][:MOST_CUTS]]
    starts = [(start, last) for start, _ in pieces[:MOST_CUTS]]
    return list(dict.fromkeys([(0, len(stem)), *ends, *starts]))


def image_cores(stem: bytes) -> list[tuple[int, int]]:
    """The same of an image's name, without one piece or one word at most: this is asked of millions, so that no pattern
    looks for them."""
    end = len(stem.rstrip(_BESIDE))
    start = len(stem) - len(stem.lstrip(_BESIDE))
    found = {(0, len(stem)): None, (start, end): None}
    for piece in (_DIGITS, _LETTERS, _DIGITS + _LETTERS):
        if shorter := len(stem[:end].rstrip(piece).rstrip(_BESIDE)):
            found[start, shorter] = None
        longer = len(stem) - len(stem[start:].lstrip(piece).lstrip(_BESIDE))
        if longer < end:
            found[longer, end] = None
    return [span for span in found if span[0] < span[1] or span == (0, len(stem))]


def wheres(folder: bytes) -> list[tuple[bytes, bytes, bytes]]:
    """(above, below, part) of a folder: as one that holds both, and with each part of it as that of the one alone."""
    parts = folder.split(b"/") if folder else []
    return [
        (folder, b"", b""),
        *((b"/".join(parts[:at]), b"/".join(parts[at + 1 :]), part) for at, part in enumerate(parts)),
    ]


def _bare(pattern: re.Pattern[bytes], stem: bytes) -> list[bytes]:
    found = pattern.fullmatch(stem)
    return [found["before"] or found["after"]] if found else []
