"""What holds for every placement decision, and for many of them in a row under an adversary."""

from __future__ import annotations

import random
import uuid
from collections import Counter
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from service.ledger.dependants import PRIORITY_SECONDS
from service.scheduling.placement import RESERVE_AFTER_SECONDS, decide
from service.scheduling.placement_values import AttemptSnapshot, Candidate, Decision, NodeSnapshot, SlotSnapshot

NOW = datetime(2026, 1, 1, tzinfo=UTC)
TICK = timedelta(seconds=2)
DATA_SETS = ("digits", "textures")
WEIGHTS = ("a.pth", "b.pth")
Fleet = tuple[list[NodeSnapshot], list[SlotSnapshot], list[AttemptSnapshot]]


def an_id(draw: random.Random) -> uuid.UUID:
    return uuid.UUID(int=draw.getrandbits(128))


def fleet(draw: random.Random) -> Fleet:
    """Up to four hosts of one to eight slots in any state."""
    nodes, slots, attempts = [], [], []
    for name in "abcd"[: draw.randint(0, 4)]:
        held = frozenset(name for name in DATA_SETS if draw.random() < 0.8)
        weights = frozenset(name for name in WEIGHTS if draw.random() < 0.5) if draw.random() < 0.7 else None
        nodes.append(NodeSnapshot(name, draw.random() < 0.8, held, weights))
        states = [draw.choice("fffrrq") for _ in range(draw.randint(1, 8))]
        slots += [SlotSnapshot(name, i, free=s == "f", quarantined=s == "q") for i, s in enumerate(states)]
        busy = states.count("r")
        while busy:
            size = draw.randint(1, busy)
            busy -= size
            since = NOW - timedelta(seconds=draw.random() * 1000)
            low, leaving = draw.random() < 0.6, draw.random() < 0.3
            attempts.append(AttemptSnapshot(an_id(draw), name, size, draw.randint(-2, 2), low, leaving, since))
    return nodes, slots, attempts


def queue(draw: random.Random) -> list[Candidate]:
    """Up to twelve jobs of all kinds, some with a reservation; each node is reserved by one at most."""
    unreserved = ["a", "b", "c", "d"]
    draw.shuffle(unreserved)
    found = []
    for _ in range(draw.randint(0, 12)):
        reserved = unreserved.pop() if unreserved and draw.random() < 0.3 else None
        found.append(
            Candidate(
                an_id(draw),
                draw.choice([1, 1, 2, 3, 4, 8]),
                draw.choice(DATA_SETS),
                draw.randint(-2, 3),
                NOW - timedelta(seconds=draw.choice([0, 1000])),
                reserved,
                reserved is not None and draw.random() < 0.5,
                weights=draw.choice([None, None, *WEIGHTS]),
            )
        )
    return found


@settings(max_examples=400, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_whatever_the_input(seed: int) -> None:
    draw = random.Random(seed)
    (nodes, slots, attempts), candidates = fleet(draw), queue(draw)
    decision = decide(candidates, nodes, slots, attempts, NOW)
    by_id = {candidate.job_id: candidate for candidate in candidates}
    by_name = {node.name: node for node in nodes}

    # No slot twice, none that is not free; all of a job on one open node that holds its data.
    taken = [(p.node, index) for p in decision.placements for index in p.indices]
    free = {(slot.node, slot.index) for slot in slots if slot.free and by_name[slot.node].open}
    assert len(taken) == len(set(taken))
    assert set(taken) <= free
    for placement in decision.placements:
        candidate = by_id[placement.job_id]
        assert len(placement.indices) == candidate.slots
        node = by_name[placement.node]
        assert candidate.data_set in node.data_sets
        assert candidate.weights is None or node.weights is None or candidate.weights in node.weights
    # Every job is placed or told why it waits.
    assert {p.job_id for p in decision.placements} ^ set(decision.reasons) == set(by_id)
    preempts(decision, by_id, attempts)
    keeps_its_room(decision, candidates, nodes, slots)
    # The order in which rows come out of the database does not matter.
    for rows in (nodes, slots, attempts):
        draw.shuffle(rows)
    assert decide(candidates, nodes, slots, attempts, NOW) == decision


def preempts(decision: Decision, by_id: dict[uuid.UUID, Candidate], attempts: list[AttemptSnapshot]) -> None:
    """Only lower and preemptible ones have to leave, nobody twice, nobody in vain, and for a claim that is kept."""
    told = [attempt_id for preemption in decision.preemptions for attempt_id in preemption.attempt_ids]
    assert len(told) == len(set(told))
    known = {attempt.attempt_id: attempt for attempt in attempts}
    for preemption in decision.preemptions:
        candidate = by_id[preemption.job_id]
        assert preemption.attempt_ids
        for victim in (known[attempt_id] for attempt_id in preemption.attempt_ids):
            assert victim.preemptible
            assert not victim.leaving
            assert victim.priority < candidate.priority
            assert victim.node == preemption.node
        after = decision.reservations.get(candidate.job_id)
        if after is None:
            assert candidate.preempting
            assert candidate.job_id not in decision.reservations
            assert candidate.reserved_node == preemption.node
        else:
            assert after.preempting
            assert after.node == preemption.node


def keeps_its_room(
    decision: Decision, candidates: list[Candidate], nodes: list[NodeSnapshot], slots: list[SlotSnapshot]
) -> None:
    """One claim a node; those behind it (all, where others were told to leave) get there only what it leaves."""
    claims: dict[str, Candidate] = {}
    for candidate in candidates:
        if candidate.job_id not in decision.reasons:
            continue
        node, preempting = candidate.reserved_node, candidate.preempting
        if candidate.job_id in decision.reservations:
            new = decision.reservations[candidate.job_id]
            node, preempting = (new.node, new.preempting) if new else (None, False)
        if node is not None:
            assert node not in claims
            claims[node] = replace(candidate, reserved_node=node, preempting=preempting)
    order = [candidate.job_id for candidate in candidates]
    for node, claimant in claims.items():
        free = sum(slot.node == node and slot.free for slot in slots)
        everyone = claimant.preempting and claimant.job_id not in decision.reservations
        behind = [
            placement
            for placement in decision.placements
            if placement.node == node and (everyone or order.index(placement.job_id) > order.index(claimant.job_id))
        ]
        left = free - sum(len(p.indices) for p in decision.placements if p.node == node)
        assert not behind or left >= claimant.slots


@dataclass
class Run:
    """A job in its slots; `leaves_in` counts the ticks down once it was told to make room."""

    candidate: Candidate
    node: str
    indices: tuple[int, ...]
    since: datetime
    leaves_in: int | None = None


class World:
    """Hosts on which jobs run until the test ends them; all else is as the scheduler decides."""

    STOP_TICKS = 2

    def __init__(self, **sizes: int) -> None:
        self.sizes = sizes
        self.now = NOW
        self.queue: dict[uuid.UUID, tuple[float, Candidate]] = {}
        self.running: dict[uuid.UUID, Run] = {}
        self.preemptible: set[uuid.UUID] = set()
        self.told: Counter[tuple[uuid.UUID, uuid.UUID]] = Counter()

    def submit(self, job_id: uuid.UUID, slots: int, priority: int = 0) -> uuid.UUID:
        key = self.now.timestamp() - PRIORITY_SECONDS * priority
        self.queue[job_id] = key, Candidate(job_id, slots, "digits", priority, self.now)
        return job_id

    def tick(self) -> Decision:
        self.now += TICK
        self._those_who_were_told_leave()
        held = {(run.node, index) for run in self.running.values() for index in run.indices}
        nodes = [NodeSnapshot(name, True, frozenset({"digits"})) for name in self.sizes]
        slots = [SlotSnapshot(name, i, (name, i) not in held) for name, size in self.sizes.items() for i in range(size)]
        decision = decide(self._in_order(), nodes, slots, self._attempts(), self.now)
        for placement in decision.placements:
            candidate = self.queue.pop(placement.job_id)[1]
            self.running[placement.job_id] = Run(candidate, placement.node, placement.indices, self.now)
        for job_id, kept in decision.reservations.items():
            key, candidate = self.queue[job_id]
            node, preempting = (kept.node, kept.preempting) if kept else (None, False)
            self.queue[job_id] = key, replace(candidate, reserved_node=node, preempting=preempting)
        for preemption in decision.preemptions:
            for victim in preemption.attempt_ids:
                self.running[victim].leaves_in = self.STOP_TICKS
                self.told[preemption.job_id, victim] += 1
        return decision

    def _in_order(self) -> list[Candidate]:
        return [candidate for _, candidate in sorted(self.queue.values(), key=lambda row: (row[0], row[1].job_id))]

    def _attempts(self) -> list[AttemptSnapshot]:
        return [
            AttemptSnapshot(
                job_id,
                run.node,
                run.candidate.slots,
                run.candidate.priority,
                job_id in self.preemptible,
                run.leaves_in is not None,
                run.since,
            )
            for job_id, run in self.running.items()
        ]

    def _those_who_were_told_leave(self) -> None:
        for job_id, run in list(self.running.items()):
            if run.leaves_in == 0:
                del self.running[job_id]
                self.submit(job_id, run.candidate.slots, run.candidate.priority)
            elif run.leaves_in is not None:
                run.leaves_in -= 1


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32), small_priority=st.integers(-1, 1))
def test_a_stream_of_small_jobs_starves_no_large_one(seed: int, small_priority: int) -> None:
    draw = random.Random(seed)
    world = World(a=4, b=4, c=2)
    ends: dict[uuid.UUID, datetime] = {}
    # Small ones that are worth ten minutes more come first for ten minutes.
    until_first = (RESERVE_AFTER_SECONDS + PRIORITY_SECONDS * max(0, small_priority)) / TICK.total_seconds()
    longest = 40  # ticks that a job runs
    large = [world.submit(an_id(draw), 4) for _ in range(3)]
    for _ in range(int(until_first) + (len(large) + 1) * longest):
        while len(world.queue) < 20:
            world.submit(an_id(draw), draw.choice([1, 1, 2]), small_priority)
        for placement in world.tick().placements:
            ends[placement.job_id] = world.now + draw.randint(1, longest) * TICK
        for job_id in [job_id for job_id in world.running if ends[job_id] <= world.now]:
            del world.running[job_id]
        if not set(large) & set(world.queue):
            return
    raise AssertionError("a large job was never placed")


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_preemption_serves_the_higher_at_once_and_comes_to_an_end(seed: int) -> None:
    draw = random.Random(seed)
    world = World(a=4, b=4, c=2)
    low = [world.submit(an_id(draw), draw.choice([1, 1, 2, 3, 4])) for _ in range(12)]
    world.preemptible = set(low)
    world.tick()
    before = set(world.running)
    # Four of at most two slots fit side by side, however they are spread.
    high = {world.submit(an_id(draw), draw.choice([1, 2]), priority=draw.randint(1, 3)) for _ in range(4)}
    # A node is claimed by one at a time; each claim is met as soon as those who were told have left.
    for _ in range(len(high) * (World.STOP_TICKS + 2)):
        world.tick()
    assert not high & set(world.queue)
    assert all(count == 1 for count in world.told.values())
    assert {victim for _, victim in world.told} <= before | set(low)
    # Everybody who had to leave gets back, and nobody has to leave any more.
    told = sum(world.told.values())
    for _ in range(200):
        for job_id in [job_id for job_id in world.running if job_id in high or draw.random() < 0.3]:
            del world.running[job_id]
        world.tick()
        if not world.queue:
            break
    assert not world.queue
    assert sum(world.told.values()) == told
