"""How the trainer's benchmarks measure: in turn within one run, medians and worst cases, checks beside the times."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("torch", "torchvision", "pillow", "numpy")


def in_turn(work: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """What each piece of work returns (say seconds), `rounds` times: A B C, C B A, A B C ... after one unmeasured.

    Whatever else slows the machine down slows all of them down, and none is always the first.
    """
    for one in work.values():
        one()
    found: dict[str, list[float]] = {name: [] for name in work}
    for turn in range(rounds):
        for name in list(work)[:: 1 if turn % 2 == 0 else -1]:
            found[name].append(work[name]())
    return found


def seconds_of(work: Callable[[], Any], repeat: int = 1, clock: Callable[[], float] = time.perf_counter) -> float:
    """Seconds of one of `repeat` runs on average."""
    begun = clock()
    for _ in range(repeat):
        work()
    return (clock() - begun) / repeat


def rates(amount: float, seconds: Sequence[float]) -> list[float]:
    """Amount per second of each measurement."""
    return [amount / s for s in seconds]


def compared(reference: Sequence[float], ours: Sequence[float], *, bar: float | None, more_is_better: bool) -> Any:
    """Medians, worst and best of both, and how many times better ours is: by medians, and worst against best."""
    worst, best = (min, max) if more_is_better else (max, min)

    def times_better(of_ours: float, of_reference: float) -> float:
        return of_ours / of_reference if more_is_better else of_reference / of_ours

    ratio = times_better(statistics.median(ours), statistics.median(reference))
    entry: dict[str, Any] = {
        "ratio": rounded(ratio),
        "ratio_worst_against_best": rounded(times_better(worst(ours), best(reference))),
    }
    for name, values in (("reference", reference), ("ours", ours)):
        summary = {"median": statistics.median(values), "worst": worst(values), "best": best(values)}
        entry[name] = {key: rounded(value) for key, value in summary.items()} | {"measurements": len(values)}
    if bar is not None:
        entry |= {"bar": bar, "met": ratio >= bar}
    return entry


def check(what: str, value: float, limit: float) -> dict[str, Any]:
    """One equality: `value` must not be above `limit`."""
    return {"what": what, "value": rounded(value), "limit": limit, "met": bool(value <= limit)}


def rounded(value: float, digits: int = 4) -> float:
    """To `digits` significant ones: what a measurement is worth."""
    return float(f"{value:.{digits}g}")


def machine() -> dict[str, Any]:
    """What the figures depend on, without names or paths of this machine."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory / 2**30),
        "load_average_at_start": [round(load, 2) for load in os.getloadavg()],
        "system": f"{platform.system()} {platform.machine()}",
    }


def _cpu_model() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or "unknown"


def cpu_flags() -> set[str]:
    """What the processor can do, by the names of /proc/cpuinfo; empty where there is none."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((set(line.split()) for line in lines if line.startswith("flags")), set())


def versions() -> dict[str, str]:
    """Of Python and of what does the work."""
    return {"python": platform.python_version()} | {name: metadata.version(name) for name in PACKAGES}


def threads_per_core() -> int | None:
    """Hardware threads of a core, where the system says so."""
    file = Path("/sys/devices/system/cpu/cpu0/topology/thread_siblings_list")
    if not file.exists():
        return None
    spans = [span.partition("-") for span in file.read_text().strip().split(",")]
    return sum(int(last or first) - int(first) + 1 for first, _, last in spans)


def begin(benchmark: str, command: str) -> dict[str, Any]:
    """The head of a result."""
    at = datetime.now(UTC).isoformat(timespec="seconds")
    return {"benchmark": benchmark, "at": at, "command": command, "machine": machine(), "versions": versions()}


def write(result: dict[str, Any], file: Path) -> None:
    """The result as JSON."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(result, indent=1, allow_nan=False) + "\n", "utf-8")


def met(part: dict[str, Any]) -> bool:
    """Whether a part ran, reached its bar if it has one, and all of its checks hold."""
    checks = [entry["met"] for entry in part.get("checks", [])]
    return not part.get("failed", False) and part.get("met", True) and all(checks)
