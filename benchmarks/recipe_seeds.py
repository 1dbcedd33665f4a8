"""An experiment of a recipe with several seeds, by the trainer alone; prints a table of its headline scores.

    python benchmarks/recipe_seeds.py recipes/demo.yaml [--seeds 0 1 2] [--jobs knn linear] [--runs DIR]

The recipe has a job `pretrain`, evaluations of it, and beside each the same one of other features, which is named
after it: `knn`, `knn-untrained`, `knn-pixels`. A directory that holds finished runs is not trained again.
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
FEATURES = {"-pixels": "raw pixels", "-untrained": "untrained", "": "pretrained"}
"""What ends the name of a job: the features it judges; those of the pretraining are called by its objective."""


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
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--jobs", nargs="+", metavar="NAME", help="only these evaluations; left out: all")
    parser.add_argument("--runs", type=Path, default=None, help="keep the run directories here")
    arguments = parser.parse_args()
    jobs = yaml.safe_load(arguments.recipe.read_text())["jobs"]
    judged = [name for name, spec in jobs.items() if (spec.get("backbone_from") or {}).get("job") == "pretrain"]
    if unknown := sorted(set(arguments.jobs or ()) - set(judged)):
        parser.error(f"{arguments.recipe} has no evaluation {', '.join(unknown)} of its pretraining; it has {judged}")
    judged = [name for name in judged if name in (arguments.jobs or judged)]
    rows = [suffix for suffix in FEATURES if any(name + suffix in jobs for name in judged)]
    scores: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        runs = (arguments.runs or Path(scratch)).resolve()
        for seed in arguments.seeds:
            began = time.monotonic()
            pretraining = runs / f"seed-{seed}" / "pretrain"
            run(seeded(jobs["pretrain"], seed), pretraining)
            print(f"seed {seed}: pretrained in {time.monotonic() - began:.0f} s", flush=True)
            for name in (each + suffix for suffix in rows for each in judged if each + suffix in jobs):
                backbone = pretraining / "backbone" if name in judged else None
                result = run(seeded(jobs[name], seed), runs / f"seed-{seed}" / name, backbone=backbone)
                scores.setdefault(name, []).append(result["scores"][result["headline"]]["last"])
    print(f"headline scores, %, mean ± standard deviation of seeds {arguments.seeds}")
    print("\n".join(f"| {' | '.join(cells)} |" for cells in (["", *judged], ["---"] * (len(judged) + 1))))
    named = FEATURES | {"": jobs["pretrain"].get("objective", {}).get("name", "barlow_twins")}
    for suffix in rows:
        print(f"| {named[suffix]} | {' | '.join(_spread(scores.get(name + suffix, [])) for name in judged)} |")


def _spread(values: list[float]) -> str:
    if not values:
        return "-"
    each = ", ".join(f"{value:.1f}" for value in values)
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.1f} ± {deviation:.1f} ({each})"


if __name__ == "__main__":
    main()
