"""What data sets this host has: named at once when the worker registers, counted by a process of its own afterwards."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from barlow_lab.environment import PARENT_PID
from barlow_lab.specs import SpecError
from barlow_lab.specs.catalogue import DataSetEntry, built_in_data_sets
from barlow_lab.specs.data_sets import DataSource, load_data_sets, read_data_sets, unchecked
from barlow_lab.specs.known_data_sets import where_from
from service.settings import Settings
from service.storable import storable
from worker.environment import passed_on

FILE_NAME = "datasets.yaml"
END_SECONDS = 5.0
STALL_SECONDS = 600.0
"""So long a set may be counted without a word; the count says every 10 s how far it is."""
COMMAND = (sys.executable, "-P", "-m", "trainer.survey")

log = logging.getLogger(__name__)

Entries = dict[str, DataSetEntry]


def data_sets_file(settings: Settings) -> Path | None:
    """The datasets.yaml of this host, absolute; None: there is none, and nobody said that there is."""
    if settings.datasets_file is not None:
        return settings.datasets_file.absolute()
    file = None if settings.data_dir is None else settings.data_dir.absolute() / FILE_NAME
    return file if file is not None and file.is_file() else None


def configured(settings: Settings) -> dict[str, DataSource]:
    """The data sets of this host's datasets.yaml.

    Raises:
        ValueError: it cannot be read; names all faults.
    """
    file = data_sets_file(settings)
    if file is None:
        return {}
    try:
        return load_data_sets(file)
    except OSError as error:
        raise ValueError(f"{file} cannot be read: {error.strerror}; correct BARLOW_DATASETS_FILE") from error
    except SpecError as error:
        raise ValueError(f"{file}: {error}") from error


def source_on_host(name: str, settings: Settings) -> dict[str, Any] | None:
    """Where a data set is, as inputs.json says it; None: it is built in. Looks at datasets.yaml as it is now, and at no
    other entry of it: a slip in one ends no job on another.

    Raises:
        ValueError: this host does not have it, or its entry has faults; says what to do.
        RuntimeError: the file cannot be read now, perhaps it is being written; worth another try.
    """
    if name in built_in_data_sets():
        return None
    file = data_sets_file(settings)
    try:
        sources, faults = read_data_sets(file) if file is not None else ({}, [])
    except (OSError, SpecError) as error:
        raise RuntimeError(f"{file} cannot be read: {error}; correct it, or BARLOW_DATASETS_FILE") from error
    if mine := [fault for fault in faults if fault.pointer.split("/")[1] == name]:
        raise ValueError(f"{file}: {SpecError(mine)}")
    if name not in sources:
        there = f"{file} has {', '.join(sources) or 'none'}" if file else "it has no datasets.yaml (docs/data-sets.md)"
        raise ValueError(f"data set {name!r} is not on this host: {there}. {where_from(name)}".rstrip())
    return sources[name].model_dump(mode="json")


class Survey:
    """Counts the data sets of datasets.yaml in a process of its own, for a big tree takes minutes and the readers load
    torch. What is wrong with a set becomes its fault: a job would end with it."""

    def __init__(self, settings: Settings, report: Callable[[Entries], None]) -> None:
        """`report` is called from a thread with all entries whenever one more is known.

        Raises:
            ValueError: datasets.yaml cannot be read; names all its faults.
        """
        self._file = data_sets_file(settings)
        self._environment = passed_on(settings)
        self._report = report
        self._entries = {name: unchecked(source) for name, source in configured(settings).items()}
        self._process: subprocess.Popen[str] | None = None
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="data-sets", daemon=True)

    @property
    def entries(self) -> Entries:
        """What is known by now, of the built-in sets as well."""
        return built_in_data_sets() | self._entries

    def remember(self, former: dict[str, Any]) -> None:
        """Say of a set what this host said before it was last started, until it is counted again: a big tree takes
        minutes. Only of the same entry of datasets.yaml, and if nothing was wrong with it."""
        for name, entry in self._entries.items():
            there = former.get(name, {})
            if there.get("source") == entry.source and there.get("checked") and not there.get("fault"):
                self._entries[name] = DataSetEntry.model_validate(there)

    def start(self) -> None:
        """Begin to count, if there is anything to count."""
        if self._entries:
            self._thread.start()

    def stop(self) -> None:
        """Count no further."""
        self._stopped.set()
        if self._process is not None:
            self._process.kill()
        if self._thread.is_alive():
            self._thread.join(END_SECONDS)

    def _run(self) -> None:
        left = list(self._entries)
        while left and not self._stopped.is_set():
            stalled = self._count(left)
            left = [name for name in left if not self._entries[name].checked]
            if not stalled or not left:
                break
            log.error("data set %s stands still, for %g s: does its disk answer?", left.pop(0), STALL_SECONDS)
        left = [name for name, entry in self._entries.items() if not entry.checked]
        if left and not self._stopped.is_set():
            log.error("not counted, and so not checked when a job is submitted: %s", ", ".join(left))

    def _count(self, names: Sequence[str]) -> bool:
        """Have these counted, one after the other; whether that was ended because nothing came for too long."""
        # This thread lives as long as the process: the kernel ends it with the thread that began it.
        environment = self._environment | {
            PARENT_PID: str(os.getpid()),
            "OMP_NUM_THREADS": "1",
            "CUDA_VISIBLE_DEVICES": "",
        }
        stalled = threading.Event()

        def end(process: subprocess.Popen[str]) -> None:
            stalled.set()
            process.kill()

        try:
            with subprocess.Popen(
                [*COMMAND, str(self._file), *names],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                encoding="utf-8",
                errors="backslashreplace",
            ) as self._process:
                assert self._process.stdout is not None
                if self._stopped.is_set():
                    self._process.kill()
                while True:
                    clock = threading.Timer(STALL_SECONDS, end, (self._process,))
                    clock.daemon = True
                    clock.start()
                    line = self._process.stdout.readline()
                    clock.cancel()
                    if not line:
                        break
                    self._hear(line.rstrip())
        except Exception:
            log.exception("the data sets of this host are not counted")
        return stalled.is_set()

    def _hear(self, line: str) -> None:
        try:
            said = storable(json.loads(line))
            name, entry = said["name"], DataSetEntry.model_validate(said["entry"])
        except (ValueError, KeyError, TypeError):
            log.info("data sets: %s", line)
            return
        self._entries = self._entries | {name: entry}
        if entry.fault is not None:
            log.warning("data set %s cannot be used: %s", name, entry.fault)
        else:
            splits = ", ".join(f"{split} {count:,}" for split, count in entry.splits.items())
            log.info("data set %s: %s images, %s classes", name, splits, entry.classes)
        self._report(self.entries)
