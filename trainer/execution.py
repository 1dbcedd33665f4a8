"""One attempt, from its command line to its outcome.json."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import NoReturn

import torch

from barlow_lab import outcome
from barlow_lab import run_folder as folders
from barlow_lab.environment import ALIVE_FILE
from barlow_lab.foreign_text import shown, shown_lines
from barlow_lab.journal import Journal
from barlow_lab.outcome import Outcome
from barlow_lab.run_folder import JOURNAL
from barlow_lab.specs import Spec, SpecError, load_spec_file, parse_spec
from barlow_lab.specs.image_size import with_size
from trainer import by_hand
from trainer.data.errors import DataError
from trainer.failures import BadSpec, Diverged, of_exception
from trainer.runtime import process_group, rendezvous, watchdog
from trainer.runtime.context import Context
from trainer.runtime.precision import set_products
from trainer.runtime.rank_exit import end_process
from trainer.runtime.retention import Retention
from trainer.runtime.stopping import StopRequests

FIRST_CAUSE_SECONDS = 5.0


def execute(
    spec_file: Path,
    run_folder: Path,
    *,
    attempt: int | None,
    backbone: Path | None,
    data: Mapping[str, str] | None = None,
    data_sets: Path | None = None,
    threads: int | None,
) -> NoReturn:
    """Run the job of `spec_file` in `run_folder`, and end this process: with 0 if the end is `ok` or `stopped`, else 1.

    `attempt` is given by a worker, which has made the attempt's folder with its inputs.json, and publishes the
    backbone when the attempt has ended; without it the run is by hand and sees to these itself, from `backbone`,
    the folders of `data` by name and the datasets.yaml `data_sets`.

    However this ends, outcome.json names the first cause, and no rank waits for one that is gone: a failure ends the
    process at once, which breaks the collectives that the others wait in.
    """
    ours = attempt is None
    folder = None if attempt is None else folders.attempt_folder(run_folder, attempt)
    context: Context | None = None
    said: list[str] = []
    try:
        watchdog.watch_lease(folder)
        if threads is not None:
            torch.set_num_threads(threads)
        spec = parse_spec(load_spec_file(spec_file))
        with rendezvous.watched(partial(_lost_before_meeting, folder)):
            place = process_group.join()
        if attempt is None:
            attempt, spec = _begin_by_hand(place, run_folder, spec, backbone, data or {}, data_sets, said.append)
            folder = folders.attempt_folder(run_folder, attempt)
        context = _context(place, run_folder, attempt)
        if ours and place.rank == 0:
            context.retention = Retention(run_folder)
            context.retention.finish()
        for warning in said:
            context.warn(warning)
        end = _run(spec, context)
        if context.journal is not None:
            _conclude(context, end, publishing=ours)
        process_group.leave()
    except BaseException as error:
        try:
            _fail(error, folder, context)
        except BaseException as unsaid:  # a full disk, for one, takes neither outcome.json nor a journal line
            with contextlib.suppress(OSError):
                traceback.print_exception(unsaid)
        finally:
            end_process(1)
    end_process(0)


def _lost_before_meeting(folder: Path | None, rank: int) -> None:
    """A peer ended before there was a process group; if it knew why, it has said so."""
    message = f"rank {rank} ended before the ranks had met, perhaps killed"
    try:
        if folder is not None:
            outcome.publish(folder, Outcome("crashed", message))
    finally:
        watchdog.end(message)


def _begin_by_hand(
    place: process_group.Rank,
    run_folder: Path,
    spec: Spec,
    backbone: Path | None,
    data: Mapping[str, str],
    data_sets: Path | None,
    warn: Callable[[str], None],
) -> tuple[int, Spec]:
    """The attempt that rank 0 has begun, and the spec with its image size settled, on every rank."""
    attempt = side = 0
    if place.rank == 0:
        try:
            sources = by_hand.data_sources(data, data_sets, warn)
            by_hand.hold(run_folder)
            side = by_hand.image_side(run_folder, spec, backbone, sources) or 0
            spec = _with_side(spec, side)
            attempt = by_hand.begin(run_folder, spec, backbone, sources)
        except BaseException:
            with contextlib.suppress(RuntimeError):  # the others are to tell of no broken connection
                process_group.broadcast_integers([0, 0], place.device)
            raise
    attempt, side = process_group.broadcast_integers([attempt, side], place.device)
    if not attempt:
        raise BadSpec("rank 0 did not begin, and says why")
    return attempt, _with_side(spec, side)


def _with_side(spec: Spec, side: int) -> Spec:
    return with_size(spec, trained_at=side, data_side=None) if side else spec


def _context(place: process_group.Rank, run_folder: Path, attempt: int) -> Context:
    folder = folders.attempt_folder(run_folder, attempt)
    watchdog.watch_peers(folder)
    return Context(
        rank=place.rank,
        world_size=place.world_size,
        device=place.device,
        threads=torch.get_num_threads(),
        run_folder=run_folder,
        attempt_folder=folder,
        attempt=attempt,
        inputs=folders.read_inputs(folder),
        journal=Journal(folder / JOURNAL) if place.rank == 0 else None,
        stop=StopRequests(folder / folders.CONTROL, rank=place.rank, device=place.device),
    )


def _run(spec: Spec, context: Context) -> Outcome:
    context.say(f"attempt {context.attempt} in {context.run_folder}: {spec.kind} on {context.world_size} rank(s)")
    set_products(spec.products, context.device)
    # Late: no kind needs what the others import. And before the journal's first line: it is what a worker gives time
    # for.
    module, _, name = spec.run_by.partition(":")
    end = getattr(importlib.import_module(module), name)(spec, context)
    assert isinstance(end, Outcome)
    return end


def _conclude(context: Context, end: Outcome, *, publishing: bool) -> None:
    """Rank 0's last words: the result, the end of the journal, then outcome.json."""
    journal = context.journal
    assert journal is not None
    context.progress("finishing", step=end.step)  # the result, and the others at the exit barrier
    if end.outcome == "stopped":
        journal.append("stopped", step=end.step, reason=context.stop.reason)
    else:
        if end.result is not None:
            journal.append("result", step=end.step, result=end.result)
        if publishing and end.backbone is not None:
            folders.publish_backbone(context.run_folder, context.attempt_folder / end.backbone)
        journal.append("finished", step=end.step, outcome=end.outcome)
    journal.sync()
    if outcome.publish(context.attempt_folder, end):
        context.say(f"{end.outcome}: {end.message}")


def _fail(error: BaseException, folder: Path | None, context: Context | None) -> None:
    """Publish what the failure means, if no other rank knew a cause before, and say it in the journal."""
    if ALIVE_FILE in os.environ and _asks_environment(error):
        error.add_note("ranks get of a worker's environment what computing needs; BARLOW_RANK_ENVIRONMENT names more")
    end = of_exception(error, context.step if context is not None else None)
    if isinstance(error, SpecError):
        for line in error.lines:
            print(shown(line), file=sys.stderr)
    elif isinstance(error, KeyboardInterrupt):
        print("interrupted: no checkpoint was written; the same command goes on from the last one", file=sys.stderr)
    elif isinstance(error, BadSpec | DataError | Diverged) or (context is None and isinstance(error, OSError)):
        print(shown_lines(str(error)), file=sys.stderr)
    else:
        print(shown_lines("".join(traceback.format_exception(error))), end="", file=sys.stderr)
    if folder is None or not folder.is_dir():
        return
    outcome.publish(folder, end)
    first = outcome.read(folder, wait_seconds=FIRST_CAUSE_SECONDS)
    if context is not None and context.journal is not None and first is not None:
        context.journal.append("failed", step=first["step"], outcome=first["outcome"], message=first["message"])
        context.journal.sync()
        context.say(f"{first['outcome']}: {first['message']}")


def _asks_environment(error: BaseException) -> bool:
    """Whether a variable that is not set was read."""
    frames = traceback.extract_tb(error.__traceback__)
    return isinstance(error, KeyError) and bool(frames) and frames[-1].filename == os.__file__
