"""Why a job is not running: a code with data, stored when it changes, worded when it is read."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from service.ledger.states import JobState, Verb


class ReasonCode(StrEnum):
    """Each code with the data it carries."""

    WAITS_FOR_JOB = "waits_for_job"  # jobs: [{id, name}]
    DEPENDENCY_FAILED = "dependency_failed"  # id, name, state
    NO_NODE = "no_node"
    NODES_AWAY = "nodes_away"  # nodes: [name]
    NO_DATA = "no_data"  # data, nodes: [name]
    NO_WEIGHTS = "no_weights"  # weights, data, nodes: [name]
    TOO_LARGE = "too_large"  # slots, node, total
    NEEDS_SLOTS = "needs_slots"  # slots, node, free, quarantined
    BACKING_OFF = "backing_off"  # retry, of, until, why
    REQUEUED = "requeued"  # why
    PLACED = "placed"  # node
    BEHIND = "behind"  # slots
    RESERVED = "reserved"  # slots, node, free
    PREEMPTING = "preempting"  # slots, node, free
    PREEMPTED = "preempted"  # by: {id, name}
    STOPPING = "stopping"  # actor, verb
    PAUSED = "paused"  # actor
    CANCELLED = "cancelled"  # actor


def words(code: str, data: dict[str, Any]) -> str:
    """The reason as a person reads it.

    Raises:
        ValueError: the code is unknown.
    """
    match ReasonCode(code):
        case ReasonCode.WAITS_FOR_JOB:
            return f"waits for {_jobs(data['jobs'])}"
        case ReasonCode.DEPENDENCY_FAILED:
            return f"cancelled: {_jobs([data])}, which it waited for, {JobState(data['state']).words}"
        case ReasonCode.NO_NODE:
            return "no node seen yet"
        case ReasonCode.NODES_AWAY:
            return f"no node is up; known: {', '.join(data['nodes'])}"
        case ReasonCode.NO_DATA:
            return f"data set {data['data']} can be used on no node that is up ({', '.join(data['nodes'])})"
        case ReasonCode.NO_WEIGHTS:
            return (
                f"weights {data['weights']} are on no node that is up and can use data set {data['data']} "
                f"({', '.join(data['nodes'])}); put them below BARLOW_BACKBONES_DIR of one"
            )
        case ReasonCode.TOO_LARGE:
            return f"needs {_slots(data['slots'])} on one node; the largest, {data['node']}, has {data['total']}"
        case ReasonCode.NEEDS_SLOTS:
            locked = f" and {data['quarantined']} in quarantine" if data["quarantined"] else ""
            return f"needs {_slots(data['slots'])} on one node, {data['free']} free{locked} on {data['node']}"
        case ReasonCode.BACKING_OFF:
            left = (datetime.fromisoformat(data["until"]) - datetime.now(UTC)).total_seconds()
            return f"retry {data['retry']} of {data['of']} in {max(0, round(left))} s: {data['why']}"
        case ReasonCode.REQUEUED:
            return f"queued again: {data['why']}"
        case ReasonCode.PLACED:
            return f"starts on {data['node']}"
        case ReasonCode.BEHIND:
            return f"needs {_slots(data['slots'])} on one node; other jobs stand before it"
        case ReasonCode.RESERVED:
            return (
                f"has waited long: {data['node']} is kept free for it, {data['free']} of {_slots(data['slots'])} so far"
            )
        case ReasonCode.PREEMPTING:
            return (
                f"jobs of lower priority on {data['node']} make room for it, "
                f"{data['free']} of {_slots(data['slots'])} free so far"
            )
        case ReasonCode.PREEMPTED:
            return f"queued again: it made room for {_jobs([data['by']])}, which has a higher priority"
        case ReasonCode.STOPPING:
            asked = {Verb.CANCEL: "cancelled", Verb.PAUSE: "paused"}[Verb(data["verb"])]
            return f"is being stopped: {asked} by {data['actor']}"
        case ReasonCode.PAUSED:
            return f"paused by {data['actor']}"
        case ReasonCode.CANCELLED:
            return f"cancelled by {data['actor']}"


def _jobs(jobs: Iterable[dict[str, str]]) -> str:
    return ", ".join(f"job {job['name']} ({job['id']})" for job in jobs)


def _slots(count: int) -> str:
    return f"{count} slot{'' if count == 1 else 's'}"
