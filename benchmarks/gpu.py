"""The trainer against the reference on one GPU, in under ten minutes.

    python benchmarks/gpu.py [--minutes 9.5]
    python benchmarks/gpu.py --rehearse

Needs trainer/, benchmarks/ and what they import: torch 2.11 or newer with torchvision, Pillow, NumPy, pydantic, PyYAML;
no other part of the project. Sixteen cores feed the card. The result, with the predictions that were written down
beforehand, goes to benchmarks/results/gpu.json after every part, so that a run that is cut off leaves what it has; a
part for which too little time is left is named as left out. Compiling a network takes a minute or two, and there are
four to compile. --rehearse runs all of it on a CPU with tiny sizes, which measures nothing, and writes nothing.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # trainer/ beside benchmarks/, installed or not

import gpu_parts
import measuring
import torch
from gpu_steps import REHEARSAL, Sizes

Part = Callable[[], dict[str, Any] | Iterable[dict[str, Any]]]


def main() -> None:
    """Run part by part, as long as there is time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=9.5, help="no part begins that may not end within them")
    parser.add_argument("--rehearse", action="store_true", help="tiny, on the CPU: does every part run?")
    given = parser.parse_args()
    if not given.rehearse and not torch.cuda.is_available():
        raise SystemExit("no GPU is visible; --rehearse runs every part on the CPU")
    device = torch.device("cpu" if given.rehearse else "cuda")
    deadline = time.monotonic() + 60 * given.minutes
    with tempfile.TemporaryDirectory(prefix="barlow-jpegs-") as scratch:
        file = (Path(scratch) if given.rehearse else measuring.RESULTS) / "gpu.json"
        result = measuring.begin("gpu", f"python benchmarks/gpu.py{' --rehearse' if given.rehearse else ''}")
        result["machine"] |= gpu_state()
        print(*(f"{key}: {value}" for key, value in result["machine"].items()), sep="\n", flush=True)
        result["parts"] = []
        for name, seconds, part in parts(REHEARSAL if given.rehearse else Sizes(), Path(scratch), device):
            left = deadline - time.monotonic()
            if left < seconds:
                result["parts"].append({"what": name, "figures": {"left out": f"{left:.0f} s were left for it"}})
            else:
                result["parts"] += run(name, part)
            measuring.write(result, file)
        missed = [part["what"] for part in result["parts"] if not measuring.met(part)]
        print(f"{file.name} is written; bars and checks missed: {', '.join(missed) or 'none'}")


def parts(sizes: Sizes, folder: Path, device: torch.device) -> Iterable[tuple[str, float, Part]]:
    """Name, seconds it may take, and the part; what matters most comes first."""
    large, small = max(sizes.batches), min(sizes.batches)
    yield "ceilings", 15, lambda: gpu_parts.ceilings(sizes, device)
    yield "JPEG files and loading", 60, lambda: gpu_parts.data_set(sizes, folder, device)
    yield "equality", 30, lambda: gpu_parts.equality(sizes, device)
    yield f"steps at {small}", 150, lambda: gpu_parts.steps(sizes, small, device, rungs=True)
    if large != small:
        yield f"steps at {large}", 170, lambda: gpu_parts.steps(sizes, large, device, rungs=False)
    yield "end to end", 7 * sizes.seconds, lambda: gpu_parts.end_to_end(sizes, folder, device, "auto")
    yield f"batch {sizes.largest_batch}", 100, lambda: gpu_parts.largest(sizes, device)
    yield "curves", 20, lambda: gpu_parts.curves(sizes, device)


def run(name: str, part: Part) -> list[dict[str, Any]]:
    """What a part found, printed; a part that fails says so and stops nothing."""
    begun = time.monotonic()
    try:
        found = part()
        entries = [found] if isinstance(found, dict) else list(found)
    except Exception as error:
        entries = [{"what": name, "figures": {"failed": f"{type(error).__name__}: {error}"}, "failed": True}]
    for entry in entries:
        print(f"\n{entry['what']} ({time.monotonic() - begun:.0f} s)", flush=True)
        for key in ("ratio", "ratio_worst_against_best", "bar", "met", "figures", "predicted", "checks"):
            if key in entry:
                print(f"  {key}: {entry[key]}", flush=True)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return entries


def gpu_state() -> dict[str, Any]:
    """The card, and what it did before the run; nothing without nvidia-smi."""
    if not torch.cuda.is_available():
        return {"gpu": "none: a rehearsal"}
    query = "clocks.sm,clocks.max.sm,temperature.gpu,power.limit,utilization.gpu"
    command = ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader"]
    try:
        state = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.splitlines()[0]
    except (OSError, subprocess.SubprocessError, IndexError):
        state = "unknown"
    cores = measuring.threads_per_core()
    return {"gpu": torch.cuda.get_device_name(), f"state ({query})": state, "threads per core": cores}


if __name__ == "__main__":
    main()
