"""What an attempt says of the conditions that it runs under."""

import runs
from odd_trees import make_split

from barlow_lab.specs.data_sets import ImageFolderSource
from trainer.data.decoding import jpeg
from trainer.data.decoding.jpeg import JpegDecoder
from trainer.runtime import started


def journalled(folder, source):
    context = runs.context(folder)
    spec = runs.spec(data={"name": "photos"})
    context.inputs["data"] = {"photos": source}
    started.journal_started(context, spec, resume_step=0)
    (event,) = runs.events(folder, kind="started")
    return event.data, [warning.data["message"] for warning in runs.events(folder, kind="warning")]


def test_a_run_records_its_jpeg_decoder_and_warns_where_the_fast_one_is_lost(tmp_path, monkeypatch):
    make_split(tmp_path / "photos/train", 4)
    source = ImageFolderSource(format="image_folder", root=tmp_path / "photos").model_dump(mode="json")
    facts, warnings = journalled(tmp_path / "fast", source)
    assert facts["jpeg_decoder"] == jpeg.jpeg_decoder().name
    assert facts["jpeg_decoder"].startswith("torchcodec ")
    assert warnings == []
    lost = JpegDecoder("pillow 13.0.0", None, "torchcodec cannot be used: no such file")
    monkeypatch.setattr(started, "jpeg_decoder", lambda: lost)
    facts, (warning,) = journalled(tmp_path / "slow", source)
    assert facts["jpeg_decoder"] == "pillow 13.0.0"
    assert "decoded by Pillow" in warning
    assert lost.lost in warning


def test_images_that_are_no_files_need_no_decoder(tmp_path, monkeypatch):
    monkeypatch.setattr(started, "jpeg_decoder", lambda: 1 / 0)
    for name, source in (("built-in", None), ("records", {"format": "cifar10", "root": str(tmp_path)})):
        facts, warnings = journalled(tmp_path / name, source)
        assert "jpeg_decoder" not in facts
        assert warnings == []
