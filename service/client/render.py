"""What the `barlow` command prints."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from barlow_lab.specs import SpecError
from barlow_lab.specs.kinds import MAKERS
from barlow_lab.specs.parsing import and_more
from barlow_lab.specs.protocols import shown_protocol
from service.api.schemas import DataSets, DataSetView, JobBrief, JobDetail, JobView, Nodes
from service.ledger.states import JobState

_COLOURS = {
    JobState.WAITING: "yellow",
    JobState.QUEUED: "yellow",
    JobState.RUNNING: "cyan",
    JobState.PAUSED: "blue",
    JobState.SUCCEEDED: "green",
    JobState.FAILED: "red",
    JobState.CANCELLED: "magenta",
}


def faults(error: SpecError) -> str:
    """The faults of a spec, one a line."""
    lines = [f"{fault.pointer or '(spec)'}: {fault.message}" for fault in error.faults]
    if error.left_out:
        lines.append(and_more(error.left_out))
    return "the spec has faults:" + "".join(f"\n  {line}" for line in lines)


def submitted(console: Console, experiment: str, jobs: Sequence[JobView | JobBrief]) -> None:
    """What a submit has made."""
    for job in jobs:
        console.print(f"{job.id}  {experiment}/{job.name}  ", _state(job.state), sep="")


def jobs(console: Console, items: Iterable[JobView], *, more: bool) -> None:
    """A table of jobs."""
    table = plain_table("id", "job", "user", "kind", "state", "progress", "created")
    for job in items:
        table.add_row(
            str(job.id),
            f"{job.experiment}/{job.name}",
            job.submitted_by or "-",
            job.kind,
            _state(job.state),
            _progress(job),
            _time(job.created_at),
        )
    print_table(console, table)
    if more:
        console.print("there are more; narrow the list, or raise --limit")


def job(console: Console, job: JobDetail, url: str, mlflow: str | None) -> None:
    """Everything a person asks about one job; `mlflow` is the link to its run."""
    table = Table.grid(padding=(0, 2))
    table.add_row("job", f"{job.experiment}/{job.name} ({job.kind})")
    table.add_row("id", str(job.id))
    table.add_row("user", job.submitted_by or "-")
    table.add_row("state", _state(job.state))
    if job.reason:
        table.add_row("why", Text(job.reason.words))
    if job.place is not None:
        table.add_row("place", f"{job.place} in the queue")
    if progress := _progress(job):
        table.add_row("progress", progress)
    if job.verbs:
        table.add_row("you can", Text(", ".join(f"barlow {verb}" for verb in job.verbs)))
    if job.retry_of:
        table.add_row("retry of", str(job.retry_of))
    if job.retries:
        table.add_row("retried as", ", ".join(map(str, job.retries)))
    table.add_row("slots", str(job.slots))
    table.add_row("attempts", str(job.attempts))
    for name, moment in (("created", job.created_at), ("started", job.started_at), ("finished", job.finished_at)):
        if moment is not None:
            table.add_row(name, _time(moment))
    if job.labels:
        table.add_row("labels", Text(", ".join(f"{key}={value}" for key, value in sorted(job.labels.items()))))
    table.add_row("digest", job.spec_digest)
    table.add_row("recorded", f"Postgres {job.recording.postgres}, MLflow {job.recording.mlflow}")
    table.add_row("API", f"{url}{job.links.self}")
    console.print(table)
    if mlflow is not None:  # whole, whatever the terminal's width: it is to be clicked
        console.print(Text(f"MLflow: {mlflow}"), soft_wrap=True)
    for warning in job.warnings:
        again = f" ({warning.times:,} times)" if warning.times > 1 else ""
        console.print(Text(f"warning: {warning.message}{again}", style="yellow"), soft_wrap=True)
    if job.more_warnings:
        console.print(f"and {job.more_warnings:,} other warnings: barlow logs {job.id}")
    # The metrics of a job that makes no backbone are the numbers of its result.
    if job.last_metrics and (job.kind in MAKERS or not job.result):
        metrics = plain_table("metric", "step", "value")
        for key, point in job.last_metrics.items():
            metrics.add_row(key, str(point.step), value_words(point.value))
        print_table(console, metrics)
    _outcome(console, job)


def asked(console: Console, job: JobView) -> None:
    """Where a job is after something was asked of it."""
    words = job.reason.words if job.reason else ""
    said = words if words.startswith(job.state) else f"{job.state}{f': {words}' if words else ''}"
    interrupted = job.attempts > 0 and (job.pause_requested or job.state == JobState.PAUSED)
    console.print(Text(f"{job.name}  {said}{'' if job.goes_on or not interrupted else '; it will start over'}"))


def ending(console: Console, job: JobView) -> None:
    """How a watched job stands at the end: its result or error, why it was cancelled or does not go on."""
    _outcome(console, job)
    if job.state in (JobState.CANCELLED, JobState.PAUSED, JobState.WAITING) and job.reason:
        console.print(Text(f"{job.name}: {job.reason.words}"))
    if job.state == JobState.PAUSED:
        how = "go on where it was" if job.goes_on else "start over"
        console.print(Text(f"  `barlow resume {job.id}` has it {how}"))


def _outcome(console: Console, job: JobView) -> None:
    if job.result and "scores" in job.result:
        _scores(console, job.name, job.result)
    elif job.result:
        rest = {key: value for key, value in job.result.items() if key != "health"}
        console.print(Text(f"{job.name}: {json.dumps(rest, indent=2)}"))
        for sentence in job.result.get("health", []):
            console.print(Text(f"{job.name}: {sentence}"), soft_wrap=True)
    if job.error:
        console.print(Text(f"{job.name} failed ({job.error.get('class')}): {job.error.get('message')}", style="red"))
        for line in job.error.get("log_tail") or []:
            console.print(Text(f"  {line}"))


def _scores(console: Console, name: str, result: dict[str, Any]) -> None:
    """An evaluation's result: the protocol, every score with the headline first, the rest of it below."""
    data = result["data"]
    console.print(
        Text(f"{name}: {shown_protocol(result['protocol'])}, {data['test_images']:,} test images of {data['name']}")
    )
    table = plain_table("", "last, %", "best, %")
    for score in sorted(result["scores"], key=lambda score: (score != result["headline"], score)):
        at = result["scores"][score]
        style = "bold" if score == result["headline"] else ""
        table.add_row(f"  {score}", f"{at['last']:.2f}", f"{at['best']:.2f}", style=style)
    print_table(console, table)
    for field, values in sorted(result["departures"].items()):
        said = (
            f"  not the protocol's: {field} {value_words(values['here'])} in place of {value_words(values['protocol'])}"
        )
        console.print(Text(said))
    rest = {k: v for k, v in result.items() if k not in ("protocol", "headline", "scores", "departures")}
    console.print(Text(f"  {json.dumps(rest)}"))


def nodes(console: Console, found: Nodes) -> None:
    """A table of slots by node."""
    if not found.items:
        console.print("no node has registered yet; start a worker with python -m worker")
        return
    table = plain_table("node", "how it is", "seen", "slot", "kind", "memory", "what it does")
    for node in found.items:
        facts = (node.name, node.words, _time(node.seen_at))
        for slot in node.slots:
            table.add_row(*facts, str(slot.index), slot.kind, f"{slot.memory_bytes / 1e9:.1f} GB", slot.words)
    print_table(console, table)
    for node in found.items:
        for slot in node.slots:
            if slot.quarantined_at is not None:
                console.print(f"nothing runs on it any more? barlow release {shlex.quote(node.name)} {slot.index}")


def data_sets(console: Console, found: DataSets) -> None:
    """A table of data sets, and below it what is wrong with one on a node, or lies in its folders and is not used."""
    table = plain_table("name", "splits", "classes", "annotations", "where", "state", "what")
    for entry in found.items:
        table.add_row(
            entry.name,
            ", ".join(f"{name} {count:,}" for name, count in entry.splits.items()) or "-",
            value_words(entry.classes),
            ", ".join(entry.annotations) or "none",
            "built in" if entry.built_in else ", ".join(entry.nodes),
            _data_set_state(entry),
            Text(entry.description),
        )
    print_table(console, table)
    for entry in found.items:
        for node, fault in entry.faults.items():
            console.print(Text(f"{entry.name} on {node}: {fault}"), soft_wrap=True)
        for node, notes in entry.notes.items():
            for note in notes:
                console.print(Text(f"{node}: {note}"), soft_wrap=True)


def _data_set_state(entry: DataSetView) -> str:
    if entry.faults:
        usable = len(entry.faults) < len(entry.nodes)
        return f"cannot be used on {', '.join(entry.faults)}" if usable else "cannot be used"
    if not entry.checked:
        return "being counted"
    return "ready, see below" if entry.notes else "ready"


_FOLDED = 24
"""Characters of the last column of a table that are beside each other at least."""


def plain_table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column, no_wrap=column is not columns[-1], overflow="fold")
    return table


def print_table(console: Console, table: Table) -> None:
    """A plain table, no column of which is cut: where the terminal is too narrow the last one is folded, and where that
    is not enough lines run over."""
    wide = console.options.update(max_width=10_000)
    for column in table.columns:
        whole = max(console.measure(cell, options=wide).maximum for cell in (column.header, *column.cells))
        column.min_width = whole if column.no_wrap else min(whole, _FOLDED)
    needed = console.measure(table, options=wide).minimum
    table.width = needed if needed > console.width else None
    console.print(table, crop=False)


def _state(state: JobState) -> Text:
    return Text(state, style=_COLOURS[state])


def _progress(job: JobView) -> str:
    at = job.progress
    if at is None or job.state not in (JobState.RUNNING, JobState.QUEUED, JobState.PAUSED):
        return ""
    parts = [f"{100 * at.fraction:.0f} %"] if at.fraction is not None else []
    if at.step is not None and at.steps is not None:
        parts.append(f"step {at.step}/{at.steps}")
    return ", ".join(parts)


def value_words(value: Any) -> str:
    """A value of a spec, a metric or a result."""
    if isinstance(value, float):
        return f"{value:.6g}"
    return "-" if value is None else value if isinstance(value, str) else json.dumps(value)


def _time(moment: datetime) -> str:
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S")
