"""The demo's experiment with several seeds, by the trainer alone; prints the README's table.

    python benchmarks/demo_seeds.py [--seeds 0 1 2] [--runs DIR]

A directory that holds finished runs is not trained again.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
ROWS = {"raw pixels": "-pixels", "untrained": "-untrained", "Barlow Twins": ""}


def run(spec: dict[str, Any], folder: Path, *, backbone: Path | None = None) -> dict[str, Any]:
    """Run one spec by `python -m trainer`, from its checkpoint if it was stopped; returns the result."""
    if (done := result_of(folder)) is not None:
        return done
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "given.yaml"
    file.write_text(yaml.safe_dump(spec))
    command = [sys.executable, "-m", "trainer", str(file), "--run-dir", str(folder)]
    command += ["--backbone", str(backbone)] if backbone else []
    subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
    result = result_of(folder)
    if result is None:
        raise SystemExit(f"{folder} was stopped; the same command goes on from there")
    return result


def result_of(folder: Path) -> dict[str, Any] | None:
    """The result of a finished run, None if there is none yet."""
    outcomes = [json.loads(file.read_text()) for file in sorted(folder.glob("attempts/*/outcome.json"))]
    return next((outcome["result"] for outcome in outcomes if outcome["outcome"] == "ok"), None)


def seeded(spec: dict[str, Any], seed: int) -> dict[str, Any]:
    """The spec with `seed` for the training and for an untrained backbone."""
    spec = {**spec, "seed": seed}
    if "random" in spec.get("backbone_from", {}):
        spec["backbone_from"] = {"random": seed}
    return spec


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--runs", type=Path, default=None, help="keep the run directories here")
    arguments = parser.parse_args()
    jobs = yaml.safe_load((ROOT / "recipes/demo.yaml").read_text())["jobs"]
    top1: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        runs = (arguments.runs or Path(scratch)).resolve()
        for seed in arguments.seeds:
            began = time.monotonic()
            pretraining = runs / f"seed-{seed}" / "pretrain"
            run(seeded(jobs["pretrain"], seed), pretraining)
            print(f"seed {seed}: pretrained in {time.monotonic() - began:.0f} s", flush=True)
            for suffix in ROWS.values():
                for kind in ("knn", "linear"):
                    name = kind + suffix
                    backbone = None if suffix else pretraining / "backbone"
                    spec = jobs[name] if suffix else {**jobs[name], "backbone_from": {"job": "pretrain"}}
                    result = run(seeded(spec, seed), runs / f"seed-{seed}" / name, backbone=backbone)
                    top1.setdefault(name, []).append(result["scores"]["top1"]["last"])
    print(f"top-1 on the 1,000 test textures, %, mean ± standard deviation of seeds {arguments.seeds}")
    print("| | kNN | linear |\n| --- | --- | --- |")
    for row, suffix in ROWS.items():
        print(f"| {row} | {_spread(top1['knn' + suffix])} | {_spread(top1['linear' + suffix])} |")


def _spread(values: list[float]) -> str:
    each = ", ".join(f"{value:.1f}" for value in values)
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.1f} ± {deviation:.1f} ({each})"


if __name__ == "__main__":
    main()
