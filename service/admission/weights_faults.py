"""Whether a spec asks for weights that no node has."""

from __future__ import annotations

from functools import cached_property

from sqlalchemy import select
from sqlalchemy.orm import Session

from barlow_lab.specs import Fault, Spec
from barlow_lab.specs.backbone_files import BackboneFiles, weights_file
from barlow_lab.spelling import nearest
from service.database.tables import NOBODY, Node

TO_ADD = (
    "put the file into a node's folder of backbones (`barlow up --backbones DIR`, or BARLOW_BACKBONES_DIR of its "
    "worker), which is looked into every 5 seconds; docs/backbones.md"
)
_NAMED = 10


class FleetWeights:
    """The weights of all nodes, read once, when the first spec asks for any."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def faults(self, spec: Spec) -> list[Fault]:
        """A backbone_from.file, or the file of a backbone_from.torchvision, that every node has said it does not have.
        While one has not said it yet, or cannot list all that it has, nothing is refused."""
        source = spec.backbone_from_elsewhere
        if source is None:
            return []
        file = weights_file(source.file, source.torchvision)
        if file is None or not self._said or any(not there.complete or file in there.names for there in self._said):
            return []
        if source.torchvision is None:
            pointer, what = "/backbone_from/file", repr(file)
        else:
            pointer, what = "/backbone_from/torchvision", f"{file!r}, the file of {source.torchvision}"
        if not any(there.folder for there in self._said):
            return [Fault(pointer, f"no node has a folder of backbones, and so none has {what}: {TO_ADD}")]
        names = {name for there in self._said for name in there.names}
        near = nearest(file, names)
        hint = f"did you mean {near!r}? Else" if near else f"there: {_first(sorted(names))}. To add it,"
        return [Fault(pointer, f"no node has {what}; {hint} {TO_ADD}")]

    @cached_property
    def _said(self) -> list[BackboneFiles]:
        """What each node has said; one that has said nothing may have any. A former worker that has left counts for
        nothing."""
        rows = self._session.execute(select(Node.instance, Node.backbones)).all()
        return [
            BackboneFiles(complete=False) if said is None else BackboneFiles.model_validate(said)
            for instance, said in rows
            if said is not None or instance != NOBODY
        ]


def _first(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
    return f"{', '.join(names[:_NAMED]) or 'none yet'}{more}"
