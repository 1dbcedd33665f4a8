"""A file in this host's folder of backbones, judged by a real trainer that a worker starts."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from worker_host import Host, at_work

from service.settings import Settings
from trainer.models.backbones import build_backbone
from trainer.models.exported import backbone_digest
from trainer.specs import BackboneSpec
from worker.folders import sha256_of

KNN = {"kind": "knn", "data": {"name": "digits"}, "images": {"size": 16, "resize": 16}}
SMALL = {"name": "tiny_resnet", "stem": "small"}


@pytest.fixture
def host(database: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    yield from at_work(Host(database, backbones_dir=tmp_path))


def test_the_result_names_the_file_and_a_wrong_architecture_ends_the_job_with_the_right_one(
    host: Host, tmp_path: Path
) -> None:
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
