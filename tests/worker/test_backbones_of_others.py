"""A file in this host's folder of backbones, judged by a real trainer that a worker starts."""

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from worker_host import Host, at_work

from barlow_lab.disk import sha256_of
from barlow_lab.specs import BackboneSpec
from service.settings import Settings
from trainer.models.backbones import build_backbone
from trainer.models.exported import backbone_digest

KNN = {"kind": "knn", "data": {"name": "digits"}, "images": {"size": 16, "resize": 16}}
SMALL = {"name": "tiny_resnet", "stem": "small"}


@pytest.fixture
def host(database: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    yield from at_work(Host(database, backbones_dir=tmp_path))


def test_the_result_names_the_file_and_a_wrong_architecture_is_told_the_right_one(host: Host, tmp_path: Path) -> None:
    source = build_backbone(BackboneSpec.model_validate(SMALL), seed=4).state_dict()
    (tmp_path / "others").mkdir()
    file = tmp_path / "others" / "checkpoint.pth"
    torch.save({"model": {f"module.backbone.{name}": tensor for name, tensor in source.items()}}, file)
    backbone_from = {"file": "others/checkpoint.pth"}
    right = host.post({**KNN, "backbone_from": backbone_from, "backbone": SMALL})
    wrong = host.post({**KNN, "backbone_from": backbone_from, "backbone": {"name": "tiny_resnet"}})
    judged = host.finish(right)
    assert (judged.state, judged.error) == ("succeeded", None)
    assert judged.result is not None
    said = {"file": "others/checkpoint.pth", "name": "tiny_resnet", "read": file.name, "sha256": sha256_of(file)}
    assert judged.result["backbone"] == {"source": said, "digest": backbone_digest(source), "features": 128}
    refused = host.finish(wrong)
    assert refused.state == "failed"
    assert refused.error is not None
    assert refused.error["class"] == "bad_spec"
    assert "set backbone to {name: tiny_resnet, stem: small}" in refused.error["message"]
    assert len(host.attempts_of(wrong)) == 1


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (os.mkfifo, "ours/config.json does not describe a backbone .*it is a named pipe"),
        (lambda path: path.symlink_to("/dev/zero"), "it leads out of .*put the file itself there, not a link to it"),
        (lambda path: path.write_text("[" * 100_000), "it is nested too deeply"),
    ],
)
def test_a_config_that_is_no_file_or_no_end_of_brackets_is_bad_data_at_once(
    host: Host, tmp_path: Path, make: Callable[[Path], None], said: str
) -> None:
    (tmp_path / "ours").mkdir()
    make(tmp_path / "ours" / "config.json")
    job = host.finish(host.post({**KNN, "backbone_from": {"file": "ours"}}))
    assert job.error is not None
    assert job.error["class"] == "bad_data"
    assert re.search(said, job.error["message"]), job.error["message"]
    assert not (host.folder(job.id) / "trainer.log").exists()
