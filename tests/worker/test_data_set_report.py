"""A worker says at once which data sets its host has, and counts them beside its work."""

from __future__ import annotations

import json
import queue
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lab import Lab
from PIL import Image
from worker_host import Host

from barlow_lab.specs.backbone_files import BackboneFiles
from service.database.tables import Node
from service.ledger import nodes
from service.settings import Settings
from worker import backbone_report, data_sets
from worker.backbone_report import BackboneReport
from worker.data_sets import Survey, configured, data_sets_file, source_on_host
from worker.supervisor import Supervisor


def make_tree(root: Path) -> None:
    for split, count in (("train", 4), ("val", 2)):
        for number in range(count):
            path = root / split / f"class-{number % 2}" / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((8, 8, 3), number, np.uint8)).save(path)


def put(folder: Path, **entries: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "datasets.yaml").write_text(json.dumps(entries))
    return folder / "datasets.yaml"


TREE = {"format": "image_folder", "root": "tree", "splits": {"train": "train", "test": "val"}}


def test_the_file_is_the_one_named_or_the_one_in_data_dir(database: Settings, tmp_path: Path) -> None:
    of_dir = database.model_copy(update={"data_dir": tmp_path})
    assert (data_sets_file(database), data_sets_file(of_dir), configured(of_dir)) == (None, None, {})
    file = put(tmp_path, own=TREE)
    assert data_sets_file(of_dir) == file
    assert configured(of_dir)["own"].root == tmp_path / "tree"
    named = of_dir.model_copy(update={"datasets_file": tmp_path / "other.yaml"})
    with pytest.raises(ValueError, match=r"other.yaml cannot be read: No such file.*correct BARLOW_DATASETS_FILE"):
        configured(named)


def test_a_name_becomes_its_source_or_an_error_that_says_what_is_here(database: Settings, tmp_path: Path) -> None:
    assert source_on_host("digits", database) is None
    with pytest.raises(ValueError, match=r"'coco' is not on this host: it has no datasets.yaml .*cocodataset.org"):
        source_on_host("coco", database)
    settings = database.model_copy(update={"datasets_file": put(tmp_path, own=TREE)})
    found = source_on_host("own", settings)
    assert found is not None
    assert (found["format"], found["root"]) == ("image_folder", str(tmp_path / "tree"))
    with pytest.raises(ValueError, match=r"'other' is not on this host: .*datasets.yaml has own\.$"):
        source_on_host("other", settings)
    put(tmp_path, own={"format": "stl10"}, other=TREE, digits=TREE)
    with pytest.raises(ValueError, match=r"/own/root: [^;]*$"):
        source_on_host("own", settings)
    assert source_on_host("other", settings) == found, "the slip is another one's"
    with pytest.raises(ValueError, match=r"/own/root: .*; /digits: .*built in"):
        Survey(settings, lambda entries: None)
    (tmp_path / "datasets.yaml").write_text("other: {format: [")
    with pytest.raises(RuntimeError, match=r"datasets.yaml cannot be read: .*; correct it"):
        source_on_host("other", settings)


@pytest.fixture
def counting(database: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    """A registered node with one good data set and one whose folder is not there."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    make_tree(tmp_path / "tree")
    file = put(tmp_path, own=TREE | {"description": "mine"}, gone={"format": "stl10", "root": "nowhere"})
    host = Host(database, datasets_file=file)
    host.node.register()  # type: ignore[attr-defined]
    yield host
    host.engine.dispose()


def reported(host: Lab) -> dict[str, Any]:
    with host.sessions() as session:
        return session.get_one(Node, "host-1").data_sets


def backbones(host: Lab) -> dict[str, Any] | None:
    with host.sessions() as session:
        return session.get_one(Node, "host-1").backbones


def test_sets_are_registered_unchecked_then_counted_and_a_fault_is_the_set_s(counting: Host) -> None:
    first = reported(counting)
    assert {"digits", "textures", "scenes"} < set(first)
    assert (first["own"]["checked"], first["own"]["splits"], first["own"]["annotations"]) == (False, {}, ["class"])
    assert (first["own"]["description"], first["digits"]["checked"]) == ("mine", True)
    counting.node.start()  # type: ignore[attr-defined]
    try:
        counting.wait(lambda: all(entry["checked"] for entry in reported(counting).values()))
        own, gone = (reported(counting)[name] for name in ("own", "gone"))
        assert (own["splits"], own["classes"], own["fault"]) == ({"train": 4, "test": 2}, 2, None)
        assert gone["splits"] == {}
        assert "'gone' has no folder" in gone["fault"]
        assert reported(counting)["digits"] == first["digits"]
        counting.wait(lambda: backbones(counting) == {"names": [], "complete": True, "folder": False})
    finally:
        counting.node.drain()  # type: ignore[attr-defined]
    again = Supervisor(counting.settings, counting.engine)
    again.register()
    assert backbones(counting) is None
    assert reported(counting)["own"] == own  # what it was before it was started again, until it is counted
    assert not reported(counting)["gone"]["checked"]


def test_a_fault_that_quotes_what_the_database_refuses_is_reported_all_the_same(counting: Host) -> None:
    survey = counting.node._survey  # type: ignore[attr-defined]
    faulty = survey.entries["own"].model_dump() | {"checked": True, "fault": "\0 and \udcff"}
    survey._hear(json.dumps({"name": "own", "entry": faulty}))
    assert reported(counting)["own"]["fault"] == "\\x00 and \\udcff"


def test_what_was_counted_of_another_entry_is_not_remembered(counting: Host) -> None:
    survey = Survey(counting.settings, lambda entries: None)
    entry = survey.entries["own"]
    former = entry.model_copy(update={"checked": True, "splits": {"train": 4}}).model_dump()
    survey.remember({"own": former | {"source": "another"}})
    assert survey.entries["own"] == entry
    survey.remember({"own": former})
    assert survey.entries["own"].splits == {"train": 4}


def test_a_drain_does_not_wait_for_a_count(counting: Host) -> None:
    survey = Survey(counting.settings, lambda entries: None)
    survey.start()
    survey.stop()
    assert not survey._thread.is_alive()
    assert not survey.entries["own"].checked


def test_a_report_of_a_replaced_worker_changes_nothing(lab: Lab) -> None:
    with lab.sessions.begin() as session:
        assert not nodes.report_data_sets(session, "gpu-1", uuid.uuid4(), {})
    with lab.sessions.begin() as session:
        assert nodes.report_data_sets(session, "gpu-1", lab.instances["gpu-1"], {"own": {"fault": None}})
    with lab.sessions() as session:
        assert session.get_one(Node, "gpu-1").data_sets == {"own": {"fault": None}}


def test_backbones_are_told_when_they_change_and_not_otherwise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backbone_report, "LOOK_SECONDS", 0.01)
    told = queue.SimpleQueue[BackboneFiles]()
    report = BackboneReport(tmp_path / "weights", told.put)
    report.start()
    assert told.get(timeout=60) == BackboneFiles(folder=False)
    (tmp_path / "weights").mkdir()
    assert told.get(timeout=60) == BackboneFiles()
    (tmp_path / "weights/a.pth").touch()
    assert told.get(timeout=60).names == ["a.pth"]
    (tmp_path / "weights/a.pth").rename(tmp_path / "weights/b.pth")
    while (found := told.get(timeout=60)).names != ["b.pth"]:  # between the two names it has none or both, perhaps
        assert found.names in ([], ["a.pth", "b.pth"])
    report.stop()
    assert not report._thread.is_alive()
    assert told.empty()


def test_a_report_of_backbones_is_that_of_the_worker_that_has_the_name(lab: Lab) -> None:
    said = BackboneFiles(names=["a.pth"]).model_dump()
    with lab.sessions.begin() as session:
        assert not nodes.report_backbones(session, "gpu-1", uuid.uuid4(), {})
        assert nodes.report_backbones(session, "gpu-1", lab.instances["gpu-1"], said)
    with lab.sessions() as session:
        assert session.get_one(Node, "gpu-1").backbones == said


def test_nothing_is_placed_where_the_set_has_a_fault(lab: Lab) -> None:
    entry = {"splits": {"train": 500}, "classes": 3}
    lab.node("gpu-1", data_sets={"own": {**entry, "fault": "its folder is gone"}})
    job = lab.submit(data="own")
    lab.place()
    assert lab.job(job).state == "queued"
    lab.node("gpu-2", data_sets={"own": entry})
    lab.place()
    assert lab.attempt(job).node == "gpu-2"


def test_a_set_that_stands_still_is_given_up_and_the_others_are_counted(
    database: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = {"splits": {"train": 1}, "classes": 1, "description": "", "annotations": ["class"], "checked": True}
    script = (
        "import json, sys, time\n"
        "for name in sys.argv[2:]:\n"
        "    time.sleep(3600 if name == 'deaf' else 0)\n"
        f"    print(json.dumps({{'name': name, 'entry': {entry!r}}}), flush=True)\n"
    )
    monkeypatch.setattr(data_sets, "COMMAND", (sys.executable, "-S", "-c", script))
    monkeypatch.setattr(data_sets, "STALL_SECONDS", 5.0)
    file = put(tmp_path, first=TREE, deaf=TREE, last=TREE)
    told = queue.SimpleQueue[set[str]]()
    survey = Survey(
        database.model_copy(update={"datasets_file": file}),
        lambda entries: told.put({name for name, entry in entries.items() if entry.checked}),
    )
    survey.start()
    while not told.get(timeout=60) >= {"first", "last"}:
        pass
    assert not survey.entries["deaf"].checked
    survey.stop()
