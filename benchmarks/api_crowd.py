"""What a reader of a list feels while others crowd the API: 500 followers of a job, then fourteen large bodies at once.

    python benchmarks/api_crowd.py [--followers 500]

A reader asks for the list of jobs again and again; the longest wait is what counts. The clients run on the same machine
and take their share of its cores.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
from api_load import SPEC, api, show

BODIES = 14
BYTES = 48_000
Crowd = Callable[[httpx.AsyncClient], Awaitable[None]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--followers", type=int, default=500)
    arguments = parser.parse_args()
    limits = {"BARLOW_MAX_STREAMS": "2000", "BARLOW_MAX_STREAMS_PER_TOKEN": "2000"}
    with tempfile.TemporaryDirectory() as scratch, api(Path(scratch), limits) as (address, _):
        print(f"{'a list of jobs while ...':<44} {'n':>6} {'p50':>8} {'p90':>8} {'p99':>8} {'max':>8}  ms")
        asyncio.run(crowds(address, arguments.followers))


async def crowds(address: str, followers: int) -> None:
    """Each crowd beside a reader."""
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=f"{address}/api/v1", timeout=120, limits=limits) as client:
        for number in range(50):
            answer = await client.post("/jobs?experiment=crowd", json={**SPEC, "name": f"job-{number}"})
            answer.raise_for_status()
        job = answer.json()["id"]
        show("nothing else is asked", await read(address, asyncio.sleep(3)))
        for kind in ("events", "logs"):
            crowd = follow(client, f"/jobs/{job}/{kind}", followers)
            show(f"{followers} follow a job's {kind}", await read(address, crowd))
        for name, body in bodies().items():
            show(f"{BODIES} bodies: {name}", await read(address, post(client, body)))


def bodies() -> dict[str, Any]:
    """Experiments of about BYTES that nothing good comes of, each dear in another way."""

    def many(job: Callable[[int], Any], characters: int) -> dict[str, Any]:
        count = BYTES // characters
        return {"name": "crowd-all", "jobs": {f"job-{i}-of-a-large-sweep": job(i) for i in range(count)}}

    def unknown(i: int, count: int) -> dict[str, Any]:
        return {**SPEC, "run": {"after": [f"job-{i}-off-a-lrge-sweep-{n}" for n in range(count)]}}

    return {
        "unknown names in run.after": many(lambda i: unknown(i, 90), 2900),
        "unknown fields": many(lambda i: {**SPEC, **{f"batch_siz{n}": 1 for n in range(200)}}, 3900),
        "unknown backbones": many(lambda i: {**SPEC, "backbone": {"name": f"resnet-{i}"}}, 260),
        "good jobs": many(lambda i: SPEC, 250),
        "small broken jobs": {"name": "crowd-all", "jobs": {f"j{i}": {"kind": "knn"} for i in range(BYTES // 24)}},
    }


async def post(client: httpx.AsyncClient, body: Any) -> None:
    """All bodies at once, each under a name of its own."""
    named = [{**body, "name": f"crowd-{number}-{time.monotonic_ns()}"} for number in range(BODIES)]
    await asyncio.gather(*(submit(client, one) for one in named))


async def submit(client: httpx.AsyncClient, body: Any) -> None:
    """One body, sent again where it is one too many, as the command line does."""
    while (answer := await client.post("/experiments", json=body)).status_code == 429:
        await asyncio.sleep(2)
    if answer.status_code not in (201, 422):
        raise SystemExit(f"{answer.status_code} {answer.text[:500]}")


async def follow(client: httpx.AsyncClient, path: str, followers: int) -> None:
    """All followers at once, for some seconds after the last of them is connected."""
    there, gone = asyncio.Semaphore(0), asyncio.Event()

    async def one() -> None:
        async with client.stream("GET", path, headers={"Accept": "text/event-stream"}) as answer:
            if answer.status_code != 200:
                raise SystemExit(f"{answer.status_code} {(await answer.aread()).decode()[:500]}")
            async for _ in answer.aiter_raw():
                there.release()
                break
            await gone.wait()

    async with asyncio.TaskGroup() as group:
        for _ in range(followers):
            group.create_task(one())
        for _ in range(followers):
            await there.acquire()
        await asyncio.sleep(5)
        gone.set()


async def read(address: str, crowd: Awaitable[None]) -> list[float]:
    """Seconds of each list that a reader asks for while the crowd is there."""
    durations: list[float] = []
    async with httpx.AsyncClient(base_url=f"{address}/api/v1", timeout=120) as client:
        work = asyncio.ensure_future(crowd)
        while not work.done():
            began = time.perf_counter()
            (await client.get("/jobs")).raise_for_status()
            durations.append(time.perf_counter() - began)
            await asyncio.sleep(0.05)
        await work
    return durations


if __name__ == "__main__":
    main()
