"""Files of weights that are refused, whatever network is asked for: what would execute, is damaged, or holds none."""

from __future__ import annotations

import argparse
import os
import pickle
import struct
import sys
import types
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from foreign_weights import features, loaded, saved, source, weights
from safetensors.torch import save_file
from torch import nn

from trainer.models.foreign_files import read_tensors


class Evil:
    """Makes a file when a pickle of it is loaded."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self._path),)


@pytest.mark.parametrize("how", ["torch.save", "torch.save, formerly", "pickle", "under a wrapper"])
def test_a_pickle_that_would_execute_something_is_refused_unopened(tmp_path: Path, how: str) -> None:
    evil = Evil(tmp_path / "executed")
    path = tmp_path / "weights.pth"
    if how == "pickle":
        path.write_bytes(pickle.dumps({"conv1.weight": evil}, protocol=2))
    else:
        value = {"state_dict": weights(), "args": evil} if how == "under a wrapper" else {**weights(), "x": evil}
        torch.save(value, path, _use_new_zipfile_serialization=how != "torch.save, formerly")
    with pytest.raises(ValueError, match=r"weights.pth holds .*mkdir beside .* is not opened") as refused:
        loaded(path)
    assert "weights_only" not in str(refused.value)
    assert not (tmp_path / "executed").exists()
    torch.load(path, weights_only=False) if how != "pickle" else pickle.loads(path.read_bytes())
    assert (tmp_path / "executed").exists()  # it would have been


def test_objects_beside_the_weights_are_refused_with_the_remedy(tmp_path: Path) -> None:
    path = saved(tmp_path, {"model": weights(), "args": argparse.Namespace(lr=1)})
    with pytest.raises(ValueError, match=r"holds argparse.Namespace beside tensors.*save its state_dict alone"):
        loaded(path)


@pytest.mark.parametrize("former", [False, True])
def test_a_learner_of_fastai_is_called_so_and_its_remedy_gives_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, former: bool
) -> None:
    module = types.ModuleType("fastai.learner")
    monkeypatch.setitem(sys.modules, "fastai", types.ModuleType("fastai"))
    monkeypatch.setitem(sys.modules, "fastai.learner", module)
    module.Learner = type("Learner", (), {"__module__": "fastai.learner"})  # type: ignore[attr-defined]
    learner = module.Learner()
    learner.model = nn.Sequential(nn.Sequential(*source().children()), nn.Linear(2, 2))
    path = tmp_path / "export.pkl"
    torch.save(learner, path, pickle_protocol=2, _use_new_zipfile_serialization=not former)
    with pytest.raises(ValueError, match=r"export.pkl is a Learner that fastai exported \(it holds fastai") as refused:
        loaded(path)
    assert "`torch.save(load_learner('export.pkl').model[0].state_dict(), 'body.pth')`" in str(refused.value)
    body = saved(tmp_path, learner.model[0].state_dict())
    assert torch.equal(features(loaded(body)), features(source()))


@pytest.mark.parametrize("former", [False, True])
@pytest.mark.parametrize("part", [0.0, 0.001, 0.01, 0.5, 0.999])
def test_a_truncated_file_is_refused(tmp_path: Path, part: float, former: bool) -> None:
    path = saved(tmp_path, weights(), _use_new_zipfile_serialization=not former)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(part * len(whole))])
    with pytest.raises(ValueError, match=r"weights.pth is damaged, or no file of .*; get it again"):
        loaded(path)


def test_truncated_safetensors_are_refused(tmp_path: Path) -> None:
    save_file(weights(), tmp_path / "w.safetensors")
    whole = (tmp_path / "w.safetensors").read_bytes()
    for part in (0, 4, len(whole) // 2, len(whole) - 1):
        (tmp_path / "w.safetensors").write_bytes(whole[:part])
        with pytest.raises(ValueError, match="get it again"):
            loaded(tmp_path / "w.safetensors")


def test_a_compressed_archive_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path, weights())
    with zipfile.ZipFile(path) as plain, zipfile.ZipFile(tmp_path / "small.pth", "w", zipfile.ZIP_DEFLATED) as small:
        for entry in plain.namelist():
            small.writestr(entry, plain.read(entry))
    with pytest.raises(ValueError, match="compressed archive; unpack it"):
        loaded(tmp_path / "small.pth")


def test_an_archive_whose_list_of_parts_is_read_in_two_ways_is_refused(tmp_path: Path) -> None:
    """zipfile takes the list that ends where the end record begins, torch the one that the record names."""
    path = saved(tmp_path, weights())
    with zipfile.ZipFile(path) as plain, zipfile.ZipFile(tmp_path / "two.pth", "w", zipfile.ZIP_DEFLATED) as small:
        for entry in plain.namelist():
            small.writestr(entry, plain.read(entry))
    with zipfile.ZipFile(tmp_path / "two.pth") as small:
        parts = len(small.infolist())
        start, whole = small.start_dir, (tmp_path / "two.pth").read_bytes()
    listed, end = whole[start:-22], whole[-22:]
    stored, place = bytearray(listed), 0
    for _ in range(parts):
        stored[place + 10 : place + 12] = b"\0\0"
        place += 46 + sum(struct.unpack_from("<3H", listed, place + 28))
    (tmp_path / "two.pth").write_bytes(whole[:start] + listed + bytes(stored) + end)
    with zipfile.ZipFile(tmp_path / "two.pth") as seen:
        assert {entry.compress_type for entry in seen.infolist()} == {zipfile.ZIP_STORED}
    with pytest.raises(ValueError, match=r"no archive as torch\.save writes them"):
        loaded(tmp_path / "two.pth")


def test_an_archive_whose_parts_lie_over_one_another_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "one.pth", "w") as one:
        one.writestr("archive/data/0", bytes(10_000))
    whole = (tmp_path / "one.pth").read_bytes()
    start = struct.unpack_from("<L", whole, len(whole) - 6)[0]
    listed = whole[start:-22] * 16
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 16, 16, len(listed), start, 0)
    (tmp_path / "one.pth").write_bytes(whole[:start] + listed + end)
    with pytest.raises(ValueError, match=r"no archive as torch\.save writes them"):
        loaded(tmp_path / "one.pth")


def test_a_tensor_that_claims_more_than_the_file_holds_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path, weights())
    with zipfile.ZipFile(path) as whole, zipfile.ZipFile(tmp_path / "cut.pth", "w") as cut:
        for entry in whole.namelist():
            cut.writestr(entry, whole.read(entry)[:64] if "/data/" in entry else whole.read(entry))
    with pytest.raises(ValueError, match=r"cut.pth is damaged"):
        loaded(tmp_path / "cut.pth")


def test_a_file_beyond_all_measure_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path, weights())
    monkeypatch.setattr("trainer.models.foreign_files.MAX_BYTES", path.stat().st_size - 1)
    with pytest.raises(ValueError, match="larger than 0 GiB"):
        loaded(path)


WEIGHT = {"weight": torch.ones(1, 1)}


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ([torch.ones(3)], "holds a list, not tensors by name"),
        (torch.ones(3), "holds a Tensor, not tensors by name"),
        ({"epoch": 3}, "no named tensors but epoch"),
        ({}, "no named tensors but nothing"),
        ({"model": {"a": torch.ones(1)}, "state_dict": {"a": torch.ones(1)}}, "under state_dict and model"),
        ({"student": {"a": torch.ones(1)}}, "no named tensors but student"),
        ({"online": WEIGHT, "target": WEIGHT | {}}, r"holds weights under online, target; save .*True\)\['online'\], "),
        ({"net": [torch.ones(1, 1), torch.ones(1)] * 2}, "under net; put them, which have no names there, into the"),
        ({"net": [WEIGHT]}, r"holds weights under net.0; save .*True\)\['net'\]\[0\], 'alone.pth'\)"),
    ],
)
def test_what_holds_no_weights_is_refused(tmp_path: Path, value: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        loaded(saved(tmp_path, value))


def test_a_key_that_holds_itself_twice_at_every_level_is_not_written_out(tmp_path: Path) -> None:
    key: Any = (1,)
    for _ in range(18):
        key = (key, key)
    torch.save({key: 1, "a" * 10_000: 2}, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match=r"no named tensors but a tuple, a{100}; save") as caught:
        read_tensors(tmp_path / "weights.pth")
    assert len(str(caught.value)) < 300


def test_a_mapping_that_holds_itself_is_refused(tmp_path: Path) -> None:
    value: dict[str, Any] = {}
    value["model"] = value
    with pytest.raises(ValueError, match="below 4 wrappers or more"):
        loaded(saved(tmp_path, value))
