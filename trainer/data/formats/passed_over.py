"""What stands in a tree of images and is none of the data set's: counted and named; nothing is left out silently."""

from __future__ import annotations

import bisect
import re
from collections import Counter
from dataclasses import dataclass, field

from barlow_lab.foreign_text import shown
from trainer.data.image_files import said

ENDINGS = (b"jpg", b"jpeg", b"png", b"webp", b"bmp", b"gif", b"tif", b"tiff", b"ppm", b"pgm", b"pbm")
"""Endings of image files, in any case. They decide what is an image; its content decides how it is decoded."""

OTHER_IMAGES = frozenset(
    b"heic heif avif jxl jp2 jfif jpe dng cr2 cr3 nef arw orf rw2 raf dcm exr hdr tga psd svg ico".split()
)
"""Endings of images that are not read."""

_ARRAYS = {
    ".npy",
    ".npz",
    ".h<number>",
    ".hdf<number>",
    ".mat",
    ".pt",
    ".pth",
    ".pkl",
    ".tfrecord",
    ".parquet",
    ".lmdb",
    ".mdb",
}
_ARCHIVES = {".zip", ".tar", ".tgz", ".gz", ".xz", ".bz<number>", ".rar", ".<number>z", ".zst"}

NOTES = {".txt", ".csv", ".tsv", ".json", ".jsonl", ".xml", ".yaml", ".yml", ".toml", ".md", ".rst", ".log"}
"""Endings of what describes images, as Tiny-ImageNet's boxes in each class folder: by itself it is no news."""

_NUMBER = re.compile(rb"[0-9]+")

NAMED = 3

MOST_HIDDEN = 1_000_000
"""Files in hidden folders that are looked at: a cache or a history may have many more of them than the data set."""


@dataclass(slots=True)
class Named:
    """Files or folders: how many, and those that come first by their bytes: a disk lists them in any order."""

    count: int = 0
    first: list[bytes] = field(default_factory=list)

    def add(self, name: bytes) -> None:
        """One more."""
        self.count += 1
        if len(self.first) < NAMED or name < self.first[-1]:
            bisect.insort(self.first, name)
            del self.first[NAMED:]

    def names(self) -> str:
        """The first of them, in brackets."""
        more = ", ..." if self.count > len(self.first) else ""
        return f"({', '.join(map(said, self.first))}{more})"


@dataclass(slots=True)
class PassedOver:
    """Counts of what a walk has left. Names are paths below the folder that was walked."""

    system: Counter[str] = field(default_factory=Counter)
    """Their numbers, by the names of trainer.data.formats.system_names."""
    others: Counter[str] = field(default_factory=Counter)
    """Files that are no images, by their endings."""
    loose: Named = field(default_factory=Named)
    """Images in a folder of class folders."""
    hidden: Named = field(default_factory=Named)
    """Images whose name, or that of a folder of theirs, begins with a dot."""
    leftovers: Named = field(default_factory=Named)
    """What stands for images and is none, by trainer.data.formats.leftovers."""
    hidden_looked_at: int = 0
    """Files and folders in hidden folders."""
    hidden_cut: bool = False
    """Whether there are more of them."""
    links: Named = field(default_factory=Named)
    """Links to folders."""
    closed: Named = field(default_factory=Named)
    """Folders that may not be looked into."""

    def file(self, ending: bytes) -> None:
        """A file that is no image by its ending."""
        self.others[shown_ending(ending)] += 1

    def may_look_at_hidden(self) -> bool:
        """Whether one more in a hidden folder is looked at; asked where there is one."""
        self.hidden_cut = self.hidden_cut or self.hidden_looked_at >= MOST_HIDDEN
        self.hidden_looked_at += not self.hidden_cut
        return not self.hidden_cut

    def words(self, folder: str, *, notes: bool = False) -> list[str]:
        """What a user is told of it; `folder` is the one that was walked. Where the only files that are no images are
        notes on some, these are told if `notes` are asked for."""
        told = []
        if self.loose.count:
            told.append(
                f"images in {shown(folder)} itself, in no class folder, not used: {self.loose.count:,} "
                f"{self.loose.names()}; put them into class folders, or take all of the folder without labels, as "
                "`format: images`"
            )
        if self.hidden.count:
            least = "at least " if self.hidden_cut else ""
            told.append(f"hidden images, not used: {least}{self.hidden.count:,} {self.hidden.names()}")
        elif self.hidden_cut:
            told.append(
                f"hidden images: none among {self.hidden_looked_at:,} files in hidden folders, and there are more"
            )
        if self.leftovers.count:
            told.append(
                "files that stand for images and are none by their names, as what is left of a copy or a download, "
                f"what lies in a cloud, or a backup, not used: {self.leftovers.count:,} {self.leftovers.names()}; copy "
                "or download them to their end, if they are meant"
            )
        if self.closed.count:
            told.append(f"folders that may not be looked into: {self.closed.count:,} {self.closed.names()}")
        if self.links.count:
            told.append(
                f"links to folders, not followed: {self.links.count:,} {self.links.names()}; put the folders there"
            )
        if self.system:
            told.append(f"system folders and files, passed over: {counted(self.system)}")
        if self.others and (notes or self.others.keys() - NOTES):
            told.append(
                f"files passed over: {counted(self.others)}; endings of images are {endings()}{self._of_others()}"
            )
        return told

    def _of_others(self) -> str:
        """What to do about arrays and archives."""
        told = ""
        if self.others.keys() & _ARRAYS:
            told += "; arrays are not read: write each image into a PNG or TIFF file of its own"
        if self.others.keys() & _ARCHIVES:
            told += "; archives are not read: unpack them"
        return told


def shown_ending(ending: bytes) -> str:
    """An ending as it is told, without its numbers: those of UIDs and of repeated downloads are all others."""
    return f".{said(_NUMBER.sub(b'<number>', ending))}" if ending else "no ending"


def counted(counts: Counter[str]) -> str:
    """`3 x this, 1 x that`, the most frequent first."""
    shown_ones = sorted(counts.items(), key=lambda one: (-one[1], one[0]))
    more = f" and {len(shown_ones) - 8} kinds more" if len(shown_ones) > 8 else ""
    return ", ".join(f"{count:,} x {what}" for what, count in shown_ones[:8]) + more


def endings() -> str:
    """The endings of images, as they are told."""
    return ", ".join(f".{ending.decode()}" for ending in ENDINGS)
