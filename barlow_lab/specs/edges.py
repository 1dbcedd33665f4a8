"""Which jobs a spec names: the source of its backbone, and those it runs after."""

from __future__ import annotations

import graphlib
from collections.abc import Iterator, Mapping

from barlow_lab.specs.faults import Fault
from barlow_lab.specs.kinds import Spec

_SHOWN = 20


def named_in(spec: Spec) -> Iterator[tuple[str, str]]:
    """Each reference of a spec with its pointer."""
    if (wanted := spec.backbone_from_elsewhere) is not None and wanted.job is not None:
        yield "/backbone_from/job", wanted.job
    for i, name in enumerate(spec.run.after):
        yield f"/run/after/{i}", name


def order(jobs: Mapping[str, Spec]) -> tuple[list[str], tuple[str, Fault] | None]:
    """Names so that each stands after those it waits for, or the circle that forbids it: a job of it, and the fault of
    that one's spec."""
    waits = {name: {other for _, other in named_in(spec) if other in jobs} for name, spec in jobs.items()}
    try:
        return list(graphlib.TopologicalSorter(waits).static_order()), None
    except graphlib.CycleError as error:
        circle: list[str] = list(reversed(error.args[1]))
        pointer = next(pointer for pointer, other in named_in(jobs[circle[0]]) if other == circle[1])
        said = " waits for ".join(circle[:_SHOWN])
        if len(circle) > _SHOWN:
            said += f" waits for ... ({len(circle) - 1:,} jobs in all)"
        return [], (circle[0], Fault(pointer, f"{said}: none of them could ever start; break the circle"))
