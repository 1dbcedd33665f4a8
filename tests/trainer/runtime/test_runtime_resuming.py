"""Which checkpoint an attempt goes on from: the newest whole one of its run, then what a retry was handed."""

import shutil
from pathlib import Path

import pytest
import runs
import torch

from barlow_lab.specs.common import CheckpointSpec
from trainer.runtime import checkpoints
from trainer.runtime.context import Context
from trainer.runtime.resuming import agree_on_checkpoint

DIGEST = "d" * 64


def _write(context: Context, step: int, digest: str = DIGEST) -> Path:
    return checkpoints.write_checkpoint(
        context,
        {"weights": torch.full((3,), float(step))},
        step=step,
        epoch=1,
        spec={},
        spec_digest=digest,
        policy=CheckpointSpec(),
        milestone=False,
        metrics={},
    )


def _sha256(folder: Path) -> str:
    return checkpoints.read_manifest(folder).sha256


def _flip_a_bit(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


DAMAGE = {
    "no state": lambda folder, other: (folder / "state.pt").unlink(),
    "truncated": lambda folder, other: (folder / "state.pt").write_bytes((folder / "state.pt").read_bytes()[:-1]),
    "empty": lambda folder, other: (folder / "state.pt").write_bytes(b""),
    "one bit": lambda folder, other: _flip_a_bit(folder / "state.pt"),
    "no manifest": lambda folder, other: (folder / "manifest.json").unlink(),
    "empty manifest": lambda folder, other: (folder / "manifest.json").write_bytes(b""),
    "zeroed manifest": lambda folder, other: (folder / "manifest.json").write_bytes(b"\0" * 300),
    "torn manifest": lambda folder, other: (folder / "manifest.json").write_text('{"step": 7'),
    "poor manifest": lambda folder, other: (folder / "manifest.json").write_text('{"step": 7}'),
    "no object": lambda folder, other: (folder / "manifest.json").write_text("[]"),
    "another's manifest": lambda folder, other: shutil.copy(other / "manifest.json", folder / "manifest.json"),
    "a file in its place": lambda folder, other: (shutil.rmtree(folder), folder.write_text("")),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_one_is_passed_over_with_a_warning_and_the_one_before_is_used(tmp_path, damage):
    first = runs.context(tmp_path)
    older, newer = _write(first, 3), _write(first, 7)
    context = runs.context(tmp_path, 2)
    assert agree_on_checkpoint(context, DIGEST) == newer
    assert runs.events(tmp_path, 2, "warning") == []
    damage(newer, older)
    assert agree_on_checkpoint(context, DIGEST) == older
    warnings = runs.events(tmp_path, 2, "warning")
    assert [w.data["checkpoint"] for w in warnings] == ["attempts/0001/checkpoints/step-00000007"]


@pytest.mark.parametrize("damage", ["one bit", "empty manifest"])
def test_with_all_broken_it_starts_from_the_beginning_and_says_so(tmp_path, damage):
    first = runs.context(tmp_path)
    folders = [_write(first, step) for step in (3, 7)]
    for folder in folders:
        DAMAGE[damage](folder, folder)
    assert agree_on_checkpoint(runs.context(tmp_path, 2), DIGEST) is None
    warnings = [w.data for w in runs.events(tmp_path, 2, "warning")]
    assert [w.get("checkpoint", "")[-8:] for w in warnings] == ["00000007", "00000003", ""]
    assert warnings[2]["message"] == "none of 2 checkpoints can be used: training starts from the beginning"


def test_without_any_nothing_is_said(tmp_path):
    assert agree_on_checkpoint(runs.context(tmp_path), DIGEST) is None
    assert runs.events(tmp_path) == []


def _retry(folder: Path, *handed: tuple[Path, str], attempt: int = 1) -> Context:
    context = runs.context(folder, attempt)
    context.inputs["resume"] = [{"path": str(path), "sha256": sha256} for path, sha256 in handed]
    return context


def test_a_retry_goes_on_from_the_first_whole_one_that_it_was_handed(tmp_path):
    source = runs.context(tmp_path / "old")
    folders = [_write(source, step) for step in (9, 6, 3)]
    handed = [(folder, _sha256(folder)) for folder in folders]
    assert agree_on_checkpoint(_retry(tmp_path / "a", *handed), DIGEST) == folders[0]
    _flip_a_bit(folders[0] / "state.pt")
    assert agree_on_checkpoint(_retry(tmp_path / "b", *handed), DIGEST) == folders[1]
    warning = runs.events(tmp_path / "b", 1, "warning")[0].data
    assert warning["checkpoint"] == "old/attempts/0001/checkpoints/step-00000009"

    # Whole, but not the file that was recorded.
    handed[1] = (folders[1], "0" * 64)
    assert agree_on_checkpoint(_retry(tmp_path / "c", *handed), DIGEST) == folders[2]
    # Of another spec, or gone.
    shutil.rmtree(folders[1])
    assert agree_on_checkpoint(_retry(tmp_path / "d", *handed), "e" * 64) is None
    said = [w.data["message"] for w in runs.events(tmp_path / "d", 1, "warning")]
    assert len(said) == 4
    assert "it belongs to another spec" in said[2]


def test_a_run_s_own_checkpoint_comes_before_what_it_was_handed(tmp_path):
    far = _write(runs.context(tmp_path / "old"), 90)
    handed = (far, _sha256(far))
    own = _write(_retry(tmp_path / "new", handed), 4)
    assert agree_on_checkpoint(_retry(tmp_path / "new", handed, attempt=2), DIGEST) == own
    _flip_a_bit(own / "state.pt")
    assert agree_on_checkpoint(_retry(tmp_path / "new", handed, attempt=3), DIGEST) == far


def test_one_beyond_the_step_its_successor_went_on_from_does_not_count(tmp_path):
    """It could not be read then, say; the journals in between count only up to that step."""
    first = runs.context(tmp_path)
    older, _ = _write(first, 3), _write(first, 7)
    second = runs.context(tmp_path, 2)
    assert second.journal is not None
    second.journal.append("started", step=3, resume_step=3)
    assert agree_on_checkpoint(runs.context(tmp_path, 3), DIGEST) == older
    newest = _write(second, 5)
    assert agree_on_checkpoint(runs.context(tmp_path, 4), DIGEST) == newest


def test_hashing_a_checkpoint_and_writing_one_is_told_piece_by_piece(tmp_path, monkeypatch):
    monkeypatch.setattr("trainer.runtime.context.PROGRESS_SECONDS", 0.0)
    monkeypatch.setattr("barlow_lab.disk.PIECE_BYTES", 100)
    monkeypatch.setattr(checkpoints, "PIECE_BYTES", 100)
    _write(runs.context(tmp_path), 3)
    written = [e.data["phase"] for e in runs.events(tmp_path, 1, "progress")]
    assert set(written) == {"checkpoint"}
    agree_on_checkpoint(runs.context(tmp_path, 2), DIGEST)
    hashed = [e.data["phase"] for e in runs.events(tmp_path, 2, "progress")]
    assert set(hashed) == {"checking checkpoints"}
    size = (tmp_path / "attempts/0001/checkpoints/step-00000003/state.pt").stat().st_size
    assert len(hashed) == -(-size // 100)
    assert len(written) >= size // 100
