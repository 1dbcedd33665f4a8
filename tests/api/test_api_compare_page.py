"""`GET /compare.html`: what the page holds, in which size, and what it leaves out."""

from __future__ import annotations

import base64
import json
import re
import uuid
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from api_kit import PRETRAIN, faults_of
from compared import FEATURES, STEPS, compared
from lab import Lab
from sqlalchemy import event, text
from sqlalchemy.orm import Session

from barlow_lab.specs import parse_spec
from service.api.routers import jobs as router
from service.comparison.plots import curves, matrices
from service.comparison.plots import record_arrays as module
from service.comparison.plots.record_arrays import record_arrays
from service.database.tables import Job, Metric
from service.settings import Settings


@pytest.fixture
def lab(database: Settings) -> Iterator[Lab]:
    made = Lab(database)
    yield made
    made.engine.dispose()


def held(answer: httpx.Response) -> Any:
    """The data of a page."""
    assert answer.status_code == 200, answer.text
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', answer.text, re.DOTALL)
    assert found
    return json.loads(found[1])


def two_jobs(api: httpx.Client, session: Session) -> dict[str, list[str]]:
    """That have begun, as parameters."""
    ids = [api.post("/jobs", json={**PRETRAIN, "seed": seed}).json()["id"] for seed in range(2)]
    for one in ids:
        session.get_one(Job, uuid.UUID(one)).started_at = datetime.now(UTC)
    session.commit()
    return {"job": ids}


def tell(session: Session, job: str, values: dict[int, float], key: str = "loss") -> None:
    at = datetime.now(UTC)
    rows = [
        Metric(job_id=uuid.UUID(job), key=key, step=step, value=one, at=at, attempt=1) for step, one in values.items()
    ]
    session.add_all(rows)
    session.commit()


def test_a_page_of_an_experiment_holds_its_lines_records_and_scores(
    api: httpx.Client, lab: Lab, database: Settings
) -> None:
    made = compared(lab, database)
    answer = api.get("/compare.html", params={"experiment": made.row().name})
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "connect-src" not in policy, "default-src refuses every connection"
    assert re.findall(r'(?:src|href)="([^"]*)"', answer.text.partition('<script type="application/json"')[0]) == [
        "data:,"
    ]
    page = held(answer)
    assert [(group["name"], group["n"]) for group in page["groups"]][:2] == [
        ("pretrain-lambda_0.01, 2 seeds", 2), ("pretrain-lambda_0.05, 2 seeds", 2),
    ]  # fmt: skip
    loss = page["curves"]["metrics"]["loss"]["lines"]
    assert [(group, seed) for group, seed, *_ in loss[:4]] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert page["curves"]["steps"][loss[0][2]][-1] == 40
    records = page["matrices"]
    assert (records["steps"], records["jobs"]) == (list(STEPS), [4, 4])
    first = records["panels"][0]["records"][-1]
    assert (first["dim"], first["side"], first["said"]) == (FEATURES, FEATURES, "")
    cells = np.frombuffer(base64.b64decode(first["cells"]), np.uint8).reshape(FEATURES, FEATURES)
    assert np.diag(cells).min() > 200, "C is nearly the identity, in which 1 is 254"
    assert first["spectra"]["spectrum"][0] == list(range(1, FEATURES + 1))
    (row,) = page["scores"]
    assert [(one["mean"], one["n"], one["points"]) for one in row["backbones"]] == [
        (80.5, 2, [80.0, 81.0]), (82.5, 2, [82.0, 83.0]), (20.0, 1, [20.0]),
    ]  # fmt: skip
    assert "<td>80.50 ± 0.71 (n=2)</td>" in answer.text


def test_another_job_asks_the_database_no_more_often(api: httpx.Client, lab: Lab, database: Settings) -> None:
    made = compared(lab, database)
    asked: list[str] = []
    engine = api._transport._inner.app.state.engine  # type: ignore[attr-defined]
    event.listen(engine, "before_cursor_execute", lambda *said: asked.append(said[2]))
    counts = []
    for names in (list(made.jobs)[:2], list(made.jobs)):
        asked.clear()
        held(api.get("/compare.html", params={"job": [str(made.jobs[name].id) for name in names]}))
        counts.append(sum("FROM metrics" in one or "FROM correlations" in one for one in asked))
    assert counts == [5, 5]


def test_a_line_is_thinned_to_steps_that_seeds_share_and_keeps_its_last(
    api: httpx.Client, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(curves, "MOST_POINTS", 20)
    asked = two_jobs(api, session)
    tell(session, asked["job"][0], {step: float(step) for step in range(1, 101)})
    tell(session, asked["job"][1], {step: float(step) for step in range(1, 31)} | {31: float("nan")})
    found = held(api.get("/compare.html", params=asked))["curves"]
    (_, _, whole, values), (_, _, part, others) = found["metrics"]["loss"]["lines"]
    assert found["steps"][whole] == [1, *range(8, 101, 8), 100] == values
    assert found["steps"][part] == [1, *range(2, 31, 2), 31]
    assert others[-1] is None
    assert found["thinned"] == [2, 2]
    assert {1, *range(8, 31, 8)} <= set(found["steps"][part])


def test_of_a_long_line_few_points_are_read(
    api: httpx.Client, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(curves, "MOST_POINTS", 20)
    asked = two_jobs(api, session)
    (job, _) = asked["job"]
    session.execute(
        text(
            "INSERT INTO metrics (job_id, key, step, value, at, attempt) "
            "SELECT :job, 'loss', step, 1, now(), 1 FROM generate_series(1, 30000) AS step"
        ),
        {"job": job},
    )
    session.execute(text("ANALYZE metrics"))
    session.commit()
    plans: list[Any] = []

    def explained(_: Any, statement: Any, given: Any) -> Any:
        plan = text("EXPLAIN (ANALYZE, FORMAT JSON) " + statement.text)
        plans.append(session.execute(plan, given).scalar_one()[0]["Plan"])
        return session.execute(statement, given)

    lines = [curves._Line(*row) for row in explained(session, curves._LINES, {"jobs": [job], "most": 21})]
    assert [(line.key, line.first, line.last, line.count) for line in lines] == [("loss", 1, 30000, 21)]
    columns = zip(*lines[0].asked(20), strict=True)
    names = ("jobs", "keys", "begins", "ends", "every", "most")
    explained(session, curves._POINTS, dict(zip(names, map(list, columns), strict=True)))
    assert max(read(plan) for plan in plans) < 100


def read(plan: Any) -> float:
    """The most rows that one node of a plan had from the table of metrics."""
    mine = plan["Actual Rows"] * plan["Actual Loops"] if plan.get("Relation Name") == "metrics" else 0
    return max([mine + plan.get("Rows Removed by Filter", 0), *(read(one) for one in plan.get("Plans", []))])


@pytest.mark.parametrize("path", ["/compare", "/compare.html"])
def test_a_job_that_is_named_twice_is_one(api: httpx.Client, session: Session, path: str) -> None:
    first, second = two_jobs(api, session)["job"]
    refused = api.get(path, params={"job": [first, first.upper()]})
    assert (refused.status_code, faults_of(refused)) == (
        422, {"job": "the ids are of one job; give those of 2 to 20 jobs"},
    )  # fmt: skip
    found = api.get(path, params={"job": [first, second, first]})
    assert found.status_code == 200
    if path == "/compare.html":
        assert sum(group["n"] for group in held(found)["groups"]) == 2


def test_a_page_that_takes_the_database_too_long_is_refused(
    api: httpx.Client, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(session: Session, *_: Any, **__: Any) -> None:
        session.execute(text("SELECT pg_sleep(10)"))

    monkeypatch.setattr(router, "PAGE_STATEMENT_SECONDS", "0.05")
    monkeypatch.setattr(router, "compare_page", slow)
    refused = api.get("/compare.html", params=two_jobs(api, session))
    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "10")
    assert "compare some jobs by ids" in refused.json()["detail"]


def test_what_is_left_out_is_counted(
    api: httpx.Client, lab: Lab, database: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, most in (("MOST_JOBS", 3), ("MOST_STEPS", 2), ("ALL_CELLS", 3 * 2 * 8 * 8)):
        monkeypatch.setattr(matrices, name, most)
    monkeypatch.setattr(curves, "MOST_JOBS", 3)
    made = compared(lab, database)
    page = held(api.get("/compare.html", params={"experiment": made.row().name}))
    records = page["matrices"]
    assert (records["jobs"], records["kept"], records["steps"]) == ([3, 4], [2, 3], [STEPS[0], STEPS[-1]])
    assert [panel["name"] for panel in records["panels"]] == [
        "pretrain-lambda_0.01-seed_0", "pretrain-lambda_0.01-seed_1", "pretrain-lambda_0.05-seed_0",
    ]  # fmt: skip
    assert {(one["side"], one["apart"], one["said"]) for panel in records["panels"] for one in panel["records"]} == {
        (8, 2, "1 feature of 2")
    }
    assert page["curves"]["jobs"] == [3, 9]
    assert [(group, seed) for group, seed, *_ in page["curves"]["metrics"]["loss"]["lines"]] == [(0, 0), (1, 0), (2, 0)]


def test_jobs_without_common_steps_show_the_last_record_that_each_had(
    api: httpx.Client, lab: Lab, database: Settings
) -> None:
    made = compared(lab, database)
    slow, quick = (made.jobs[name] for name in ("pretrain-lambda_0.01-seed_0", "pretrain-lambda_0.05-seed_0"))
    with lab.engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM correlations WHERE job_id = %s AND step > 0", (slow.id,))
        connection.exec_driver_sql("UPDATE correlations SET step = 30 WHERE job_id = %s AND step = 40", (slow.id,))
    page = held(api.get("/compare.html", params={"job": [str(slow.id), str(quick.id)]}))["matrices"]
    assert page["steps"] == list(STEPS)
    shown = [[panel["records"][at]["step"] for at in panel["at"]] for panel in page["panels"]]
    assert shown == [[0, 0, 0], [0, 20, 40]]


def test_a_record_without_its_file_is_said_to_have_none(api: httpx.Client, lab: Lab, database: Settings) -> None:
    made = compared(lab, database)
    job = made.jobs["pretrain-lambda_0.01-seed_0"]
    (job.folder / f"correlation/step-{STEPS[0]:08d}.npz").unlink()
    panels = held(api.get("/compare.html", params={"experiment": made.row().name}))["matrices"]["panels"]
    assert ["cells" in one for one in panels[0]["records"]] == [False, True, True]


def test_of_an_experiment_a_retry_stands_for_what_it_retries(api: httpx.Client, session: Session) -> None:
    asked = two_jobs(api, session)
    former, later = (session.get_one(Job, uuid.UUID(one)) for one in asked["job"])
    later.retry_of = former.id
    session.commit()
    answer = api.get("/compare.html", params={"experiment": "default"})
    assert [group["name"] for group in held(answer)["groups"]] == [later.name]
    assert "1 are left out, for a retry stands for each." in answer.text
    assert sum(group["n"] for group in held(api.get("/compare.html", params=asked))["groups"]) == 2, "named each"


@pytest.mark.parametrize(
    ("arrays", "fault"),
    [
        ({"correlation": np.zeros((2000, 2000), np.float16)}, "larger than"),
        ({"correlation": np.zeros((2, 3), np.float16)}, "equal dimensions"),
        ({"spectrum": np.array([{}], object)}, "no array of 1 equal"),
        ({"spectrum": np.array(["a"])}, "no array of 1 equal"),
    ],
    ids=["large", "oblong", "objects", "texts"],
)
def test_arrays_that_no_record_has_are_refused(
    lab: Lab, database: Settings, arrays: dict[str, Any], fault: str, tmp_path: Path
) -> None:
    np.savez_compressed(tmp_path / "made.npz", allow_pickle=True, **arrays)
    with pytest.raises(ValueError, match=fault):
        record_arrays(tmp_path / "made.npz", within=tmp_path)


def bare_array(head: str, values: bytes = b"\0" * 64) -> bytes:
    """An array in numpy's format with this in its head."""
    line = f"{{'descr': '<f4', {head}}}\n".encode()
    return b"\x93NUMPY\1\0" + len(line).to_bytes(2, "little") + line + values


def archive_of(folder: Path, raw: bytes, how: int = zipfile.ZIP_DEFLATED) -> Path:
    path = folder / "made.npz"
    with zipfile.ZipFile(path, "w", how) as archive:
        archive.writestr("spectrum.npy", raw)
    return path


@pytest.mark.parametrize(
    ("head", "how"),
    [
        ("'fortran_order': False, 'shape': (True,)", zipfile.ZIP_DEFLATED),
        ("'fortran_order': False, 'shape': (-1,)", zipfile.ZIP_DEFLATED),
        (f"'fortran_order': False, 'shape': ({10**400},)", zipfile.ZIP_DEFLATED),
        ("'fortran_order': False, 'shape': (1,", zipfile.ZIP_DEFLATED),
        ("'fortran_order': False, 'shape': (\"\"\"1,", zipfile.ZIP_DEFLATED),
        ("'fortran_order': False, 'shape': (16,)", zipfile.ZIP_LZMA),
    ],
    ids=["bool", "negative", "huge", "open", "text", "lzma"],
)
def test_heads_that_nobody_writes_are_refused(tmp_path: Path, head: str, how: int) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        record_arrays(archive_of(tmp_path, bare_array(head), how), within=tmp_path)


def test_damaged_and_overlarge_archives_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = archive_of(tmp_path, np.random.default_rng(0).bytes(4096))
    raw = bytearray(whole.read_bytes())
    raw[60:90] = b"\xff" * 30
    (tmp_path / "damaged.npz").write_bytes(raw)
    with pytest.raises(ValueError, match="cannot be read"):
        record_arrays(tmp_path / "damaged.npz", within=tmp_path)
    with zipfile.ZipFile(tmp_path / "many.npz", "w") as archive:
        for number in range(1000):
            archive.writestr(f"{number:050d}", b"")
    with pytest.raises(ValueError, match="list of its parts"):
        record_arrays(tmp_path / "many.npz", within=tmp_path)
    monkeypatch.setattr(module, "MOST_FILE_BYTES", 100)
    with pytest.raises(ValueError, match="larger than 100 bytes"):
        record_arrays(whole, within=tmp_path)


def test_an_array_by_columns_is_read_as_one(tmp_path: Path) -> None:
    matrix = np.arange(9, dtype=np.float32).reshape(3, 3)
    np.savez_compressed(tmp_path / "made.npz", correlation=np.asfortranarray(matrix))
    assert np.array_equal(record_arrays(tmp_path / "made.npz", within=tmp_path)["matrix"], matrix)


def test_what_is_no_archive_or_lies_elsewhere_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.npz").write_text("text")
    with pytest.raises(ValueError, match="cannot be read"):
        record_arrays(tmp_path / "text.npz", within=tmp_path)
    (tmp_path / "runs").mkdir()
    with pytest.raises(OSError, match="leads out of"):
        record_arrays(tmp_path / "text.npz", within=tmp_path / "runs")
    with pytest.raises(FileNotFoundError):
        record_arrays(tmp_path / "none.npz", within=tmp_path)


def test_a_matrix_in_blocks_is_shown_by_their_rms(tmp_path: Path) -> None:
    blocks = np.full((256, 256), 0.5, np.float16)
    np.savez_compressed(tmp_path / "made.npz", correlation=np.zeros((8, 8), np.float16), block_rms=blocks)
    found = matrices._picture(record_arrays(tmp_path / "made.npz", within=tmp_path), 2048, 128)
    assert (found["side"], found["apart"], found["said"]) == (128, 16, "RMS of blocks of 16")
    assert set(base64.b64decode(found["cells"])) == {191}


def test_an_entry_that_is_no_number_is_not_shown_as_one() -> None:
    matrix = np.array([[1, np.nan], [np.inf, -1]], np.float32)
    found = matrices._picture({"matrix": matrix}, 2, 128)
    assert (list(base64.b64decode(found["cells"])), found["gaps"]) == ([254, 255, 255, 0], True)
    assert matrices._picture({"matrix": np.eye(2)}, 2, 128)["gaps"] is False


def test_the_unit_of_a_score_is_that_of_its_kind() -> None:
    judged = {"data": "digits", "backbone_from": {"job": "pretrain"}}
    specs = [parse_spec({"kind": kind, **judged}) for kind in ("invariance", "closed_form", "svm")]
    scores = curves.score_keys([*specs, parse_spec(PRETRAIN)])
    units = {
        "invariance_ris": "%", "invariance_ris_crop": "%", "closed_form_held_out": "%", "svm_map_11_point": "%",
        "probe_top1": "%", "images_per_second": "images/s", "closed_form_loss": "", "my_own_ap": "",
    }  # fmt: skip
    assert {key: curves._unit(key, scores) for key in units} == units


@pytest.mark.parametrize(
    "asked", [{}, {"job": ["a"]}, {"job": ["a", "b"], "experiment": "c"}], ids=["nothing", "one", "both"]
)
def test_the_selection_is_that_of_the_comparison(api: httpx.Client, asked: dict[str, Any]) -> None:
    page, comparison = (api.get(path, params=asked) for path in ("/compare.html", "/compare"))
    assert faults_of(page) == faults_of(comparison) != {}
