"""Whether a spec asks for weights that no node has."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.database.tables import NOBODY, Node
from trainer.specs import Fault, PretrainSpec, Spec
from trainer.specs.backbone_files import BackboneFiles
from trainer.specs.catalogue import torchvision_files
from trainer.specs.spelling import nearest

TO_ADD = (
    "put the file into a node's folder of backbones (`barlow up --backbones DIR`, or BARLOW_BACKBONES_DIR of its "
    "worker), which is looked into every 5 seconds; docs/backbones.md"
)
_NAMED = 10


def faults_of_weights(session: Session, spec: Spec) -> list[Fault]:
    """A backbone_from.file, or the file of a backbone_from.torchvision, that every node has said it does not have.
    While one has not said it yet, or cannot list all that it has, nothing is refused."""
    if isinstance(spec, PretrainSpec):
        return []
    source = spec.backbone_from
    if source.file is not None:
        pointer, file, what = "/backbone_from/file", source.file, repr(source.file)
    elif source.torchvision is not None and source.torchvision in torchvision_files():
        pointer, file = "/backbone_from/torchvision", torchvision_files()[source.torchvision]
        what = f"{file!r}, the file of {source.torchvision}"
    else:
        return []
    names: set[str] = set()
    heard = folders = False
    rows = session.execute(select(Node.instance, Node.backbones)).all()
    for instance, said in rows:
        if said is None and instance == NOBODY:  # a worker of before, which has left
            continue
        heard = True
        there = BackboneFiles(complete=False) if said is None else BackboneFiles.model_validate(said)
        if not there.complete or file in there.names:
            return []
        names.update(there.names)
        folders = folders or there.folder
    if not heard:
        return []
    if not folders:
        return [Fault(pointer, f"no node has a folder of backbones, and so none has {what}: {TO_ADD}")]
    near = nearest(file, names)
    hint = f"did you mean {near!r}? Else" if near else f"there: {_first(sorted(names))}. To add it,"
    return [Fault(pointer, f"no node has {what}; {hint} {TO_ADD}")]


def _first(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
    return f"{', '.join(names[:_NAMED]) or 'none yet'}{more}"
