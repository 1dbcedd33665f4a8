"""Writes the committed results into docs/performance.md, between the markers of each benchmark.

python benchmarks/tables.py
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from measuring import RESULTS

PAGE = Path(__file__).parents[1] / "docs" / "performance.md"


def main() -> None:
    """Renew every table whose result is there."""
    page = PAGE.read_text("utf-8")
    for file in sorted(RESULTS.glob("*.json")):
        page = renewed(page, json.loads(file.read_text("utf-8")))
    PAGE.write_text(page, "utf-8")


def renewed(page: str, result: dict[str, Any]) -> str:
    """The page with the tables of one result."""
    name = result["benchmark"]
    begin, end = f"<!-- {name}: written by benchmarks/tables.py -->", f"<!-- {name}: end -->"
    pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    if not pattern.search(page):
        raise SystemExit(f"{PAGE.name} has no place for {name}: add the lines {begin} and {end}")
    text = f"{begin}\n{rendered(result)}\n{end}"
    return pattern.sub(lambda _: text, page)


def rendered(result: dict[str, Any]) -> str:
    """Machine and versions, the comparisons, the single figures, and the checks."""
    machine, versions = dict(result["machine"]), result["versions"]
    load = ", ".join(f"{value:g}" for value in machine.pop("load_average_at_start"))
    lines = [
        f"`{result['command']}`, {result['at'][:10]}: " + ", ".join(f"{k} {v}" for k, v in machine.items()) + ";",
        ", ".join(f"{k} {v}" for k, v in versions.items()) + f"; load average at the start {load}.",
        "",
        "| what | reference: median (worst, best) | ours: median (worst, best) | ratio | worst against best | bar |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    parts = result["parts"]
    lines += [_comparison(part) for part in parts if "ratio" in part]
    for key, title in (("figures", "single figures"), ("predicted", "predicted beforehand")):
        found = [(part, name, value) for part in parts for name, value in part.get(key, {}).items()]
        if found:
            lines += ["", f"| {title} | |", "| --- | --- |"]
            lines += [f"| {part['what']}: {name} | {value} |" for part, name, value in found]
    checks = [check for part in parts for check in part.get("checks", [])]
    if checks:
        lines += ["", "| equality, in the same run | found | limit | |", "| --- | --- | --- | --- |"]
        lines += [f"| {c['what']} | {c['value']:g} | {c['limit']:g} | {_word(c['met'])} |" for c in checks]
    return "\n".join(lines)


def _comparison(part: dict[str, Any]) -> str:
    sides = [
        f"{_figure(side['median'], part['unit'])} ({_figure(side['worst'], part['unit'])}, "
        f"{_figure(side['best'], part['unit'])})"
        for side in (part["reference"], part["ours"])
    ]
    bar = f"≥ {part['bar']:g}×: {_word(part['met'])}" if "bar" in part else ""
    worst = part["ratio_worst_against_best"]
    return f"| {part['what']} | {sides[0]} | {sides[1]} | **{part['ratio']:.3g}×** | {worst:.3g}× | {bar} |"


def _figure(value: float, unit: str) -> str:
    if unit == "s":
        return f"{value:.3g} s" if value >= 1 else f"{value * 1e3:.3g} ms"
    return f"{value:,.0f} {unit}" if value >= 100 else f"{value:.3g} {unit}"


def _word(met: bool) -> str:
    return "met" if met else "**missed**"


if __name__ == "__main__":
    main()
