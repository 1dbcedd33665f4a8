"""What is wrong with a spec, at its place, and what the kinds say alike."""

from __future__ import annotations

from dataclasses import dataclass

from barlow_lab.specs.catalogue import DataSetEntry


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault of a spec: `pointer` is an RFC 6901 JSON pointer to the field."""

    pointer: str
    message: str


@dataclass(frozen=True, slots=True)
class SplitUse:
    """A split of its data set that a spec names at `pointer`; `labelled`: its annotations are needed."""

    pointer: str
    split: str
    labelled: bool = True

    def faults(self, data_set: str, entry: DataSetEntry) -> list[Fault]:
        """What `data_set`, as a node has it, lacks for this use."""
        if not entry.checked:
            return []
        splits = ", ".join(f"{name} ({count:,} images)" for name, count in entry.splits.items())
        if self.split not in entry.splits:
            # What reads the set has noted which files of a split are missing, where the others are there.
            why = next((f": {note}" for note in entry.notes if f"split {self.split!r} is not in " in note), "")
            return [Fault(self.pointer, f"{data_set} has no split {self.split!r}; it has {splits}{why}")]
        if self.labelled and self.split in entry.unlabelled:
            said = f"split {self.split!r} of {data_set} has no labels: it is for pretraining alone; it has {splits}"
            return [Fault(self.pointer, said)]
        return []


def no_whole_batch(batch_size: int, images: int, counted: str, *, or_else: str = "") -> list[Fault]:
    """Why an epoch of so many images has no step, `counted` says of what they are; nothing where it has one."""
    if batch_size <= images:
        return []
    return [
        Fault(
            "/batch_size",
            f"{batch_size:,} is more than one epoch has: {counted}; the last partial batch is dropped, "
            f"so there would be no step at all; use at most {images:,}{or_else}",
        )
    ]
