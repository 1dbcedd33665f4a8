"""The trainer against the reference on a CPU: views, loss, LARS, hand-over, and training from JPEG files.

    make bench
    python benchmarks/trainer_cpu.py [--rounds 5] [--parts views loss lars hand-over toy]

Both sides run in turn within one run, so that ratios hold on a machine that does other things, too; figures that are
quoted are from an idle one. Writes benchmarks/results/trainer_cpu.json and the tables of docs/performance.md when all
parts have run. All of it takes two minutes on two cores.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cpu_parts
import cpu_pipelines
import gpu_parts
import jpegs
import measuring
import tables
import torch

FILES = 256


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="how often each side is measured")
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS), help="measure only these")
    given = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    torch.set_num_threads(cores)
    result = measuring.begin("trainer_cpu", "make bench")
    result["parts"] = []
    with tempfile.TemporaryDirectory(prefix="barlow-jpegs-") as scratch:
        total = jpegs.write_folder(Path(scratch) / "train", FILES, processes=cores)
        print(f"{FILES} JPEG files of {total / FILES / 1e3:.0f} KB on average")
        for name in given.parts:
            begun = time.monotonic()
            entries = PARTS[name](Path(scratch), given.rounds)
            for entry in entries:
                show(entry)
            print(f"  {name}: {time.monotonic() - begun:.0f} s", flush=True)
            result["parts"] += entries
    missed = [part["what"] for part in result["parts"] if not measuring.met(part)]
    print(f"bars and checks missed: {', '.join(missed) or 'none'}")
    if given.parts == list(PARTS):
        measuring.write(result, measuring.RESULTS / "trainer_cpu.json")
        tables.main()


def _views(folder: Path, rounds: int) -> list[dict[str, Any]]:
    torch.set_num_threads(1)  # per core
    try:
        return cpu_pipelines.views(folder, rounds, images=128)
    finally:
        torch.set_num_threads(len(os.sched_getaffinity(0)))


def _toy(folder: Path, rounds: int) -> list[dict[str, Any]]:
    measured = cpu_pipelines.toy(folder, max(1, rounds - 2), steps=6, workers=len(os.sched_getaffinity(0)))
    return [*measured, gpu_parts.equality(cpu_pipelines.TOY, cpu_pipelines.CPU)]


PARTS: dict[str, Callable[[Path, int], list[dict[str, Any]]]] = {
    "views": _views,
    "loss": lambda folder, rounds: [cpu_parts.loss(2 * rounds)],
    "lars": lambda folder, rounds: [cpu_parts.lars(4 * rounds)],
    "hand-over": lambda folder, rounds: [cpu_parts.hand_over(rounds)],
    "toy": _toy,
}


def show(entry: dict[str, Any]) -> None:
    """One part on the terminal."""
    print(f"\n{entry['what']}")
    for side in ("reference", "ours"):
        if side in entry:
            print(f"  {side:10}" + "  ".join(f"{k} {v:g}" for k, v in entry[side].items()) + f"  ({entry['unit']})")
    if "ratio" in entry:
        bar = f"  bar {entry['bar']:g}: {'met' if entry['met'] else 'MISSED'}" if "bar" in entry else ""
        print(f"  ratio {entry['ratio']:g}  worst against best {entry['ratio_worst_against_best']:g}{bar}")
    for name, value in entry.get("figures", {}).items():
        print(f"  {name}: {value}")
    for checked in entry.get("checks", []):
        print(f"  {checked['what']}: {checked['value']:g} (limit {checked['limit']:g})")


if __name__ == "__main__":
    main()
