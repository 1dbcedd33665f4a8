"""CIFAR and STL-10 from their binary files: pixels, planes and classes where they belong, damage named."""

import gc
import os

import numpy as np
import pytest
import runs

from barlow_lab.specs.data_sets import CifarSource, Stl10Source, parse_source
from barlow_lab.specs.faults import SplitUse
from trainer.data.checks.inspection import told_of
from trainer.data.errors import DataError
from trainer.data.registry import open_data_set, open_images
from trainer.pretraining import pretrain
from trainer.survey import survey

TEN = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def images_of(seed, count, side):
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


@pytest.fixture
def cifar10(tmp_path):
    for number, file in enumerate([*(f"data_batch_{n}.bin" for n in range(1, 6)), "test_batch.bin"]):
        pixels = images_of(number, 3, 32).transpose(0, 3, 1, 2).reshape(3, -1)
        labels = np.array([[number], [9 - number], [4]], np.uint8)
        np.concatenate([labels, pixels], axis=1).tofile(tmp_path / file)
    (tmp_path / "batches.meta.txt").write_text("\n".join(TEN) + "\n\n")
    return tmp_path


def cifar(root, split="train", form="cifar10", name="mine"):
    return open_data_set(name, split, source=CifarSource(format=form, root=root))


def test_cifar_10_is_the_batches_one_after_the_other(cifar10):
    data = cifar(cifar10)
    assert data.classes == tuple(TEN)
    assert data.labels().tolist() == [0, 9, 4, 1, 8, 4, 2, 7, 4, 3, 6, 4, 4, 5, 4]
    for batch in range(5):
        for row, image in enumerate(images_of(batch, 3, 32)):
            np.testing.assert_array_equal(data.image(3 * batch + row), image)
    assert data.image(0).flags.c_contiguous
    assert data.name(14) == "deer/14"
    np.testing.assert_array_equal(cifar(cifar10, "test").image(-1), images_of(5, 3, 32)[-1])
    with pytest.raises(IndexError):
        data.image(15)


def test_cifar_100_has_the_fine_classes(tmp_path):
    for file, fine in (("train.bin", [99, 0]), ("test.bin", [5, 6])):
        pixels = images_of(fine[0], 2, 32).transpose(0, 3, 1, 2).reshape(2, -1)
        np.concatenate([np.array([[19, fine[0]], [3, fine[1]]], np.uint8), pixels], axis=1).tofile(tmp_path / file)
    (tmp_path / "fine_label_names.txt").write_text("\n".join(f"fine {n}" for n in range(100)))
    data = cifar(tmp_path, form="cifar100", name="cifar100")
    assert (data.labels().tolist(), data.classes[99]) == ([99, 0], "fine 99")
    np.testing.assert_array_equal(data.image(1), images_of(99, 2, 32)[1])


def test_the_fingerprint_of_binary_files_is_of_their_sizes_and_classes(cifar10):
    before = cifar(cifar10).fingerprint
    assert cifar(cifar10).fingerprint == before != cifar(cifar10, "test").fingerprint
    raw = bytearray((cifar10 / "data_batch_2.bin").read_bytes())
    raw[0] = 5
    (cifar10 / "data_batch_2.bin").write_bytes(raw)
    assert cifar(cifar10).fingerprint != before


def damage(root, file, change):
    raw = (root / file).read_bytes()
    (root / file).write_bytes(change(raw))


@pytest.mark.parametrize(("file", "change", "message"), [
    ("data_batch_3.bin", lambda raw: raw[:-1], r"data_batch_3.bin has 9,218 bytes, .* records of 3,073: .*cut short"),
    ("data_batch_3.bin", lambda raw: b"", "has 0 bytes"),
    ("data_batch_3.bin", lambda raw: raw[:3073] + b"\x0a" + raw[3074:], "record 1 is of class 10, and there are 10"),
    ("batches.meta.txt", lambda raw: b"cat\ndog\n", "names 2 classes, and there are 10"),
])  # fmt: skip
def test_damage_is_named_with_its_file(cifar10, file, change, message):
    damage(cifar10, file, change)
    with pytest.raises(DataError, match=message):
        cifar(cifar10)


def test_the_python_version_is_never_unpickled_and_the_archive_to_take_is_named(tmp_path):
    trap = tmp_path / "ran"
    for name in ("batches.meta", "data_batch_1"):
        (tmp_path / name).write_bytes(f"cposix\nsystem\n(S'touch {trap}'\ntR.".encode())
    with pytest.raises(DataError, match=r"python version, whose pickles are not read.*unpack cifar-10-binary.tar.gz"):
        cifar(tmp_path)
    assert not trap.exists()
    with pytest.raises(DataError, match=r"\(train.bin, fine_label_names.txt: .*cifar-100-binary.tar.gz"):
        cifar(tmp_path, form="cifar100")
    with pytest.raises(DataError, match=r"no split 'val'; its splits: train, test"):
        cifar(tmp_path, "val")


@pytest.fixture
def stl10(tmp_path):
    for seed, split in enumerate(("train", "test", "unlabeled")):
        images_of(seed, 2, 96).transpose(0, 3, 2, 1).tofile(tmp_path / f"{split}_X.bin")  # planes, column by column
    np.array([1, 10], np.uint8).tofile(tmp_path / "train_y.bin")
    np.array([3, 3], np.uint8).tofile(tmp_path / "test_y.bin")
    (tmp_path / "class_names.txt").write_text("\n".join(TEN))
    return tmp_path


def stl(root, split, opener=open_data_set, **more):
    return opener("stl10", split, source=Stl10Source(format="stl10", root=root), **more)


def test_stl_10_is_column_by_column_and_counts_its_classes_from_one(stl10):
    data = stl(stl10, "train")
    assert (data.labels().tolist(), data.classes) == ([0, 9], tuple(TEN))
    for row, image in enumerate(images_of(0, 2, 96)):
        np.testing.assert_array_equal(data.image(row), image)
    assert stl(stl10, "test").labels().tolist() == [2, 2]


def test_the_unlabeled_images_of_stl_10_are_for_pretraining_alone(stl10):
    data = stl(stl10, "unlabeled", open_images)
    np.testing.assert_array_equal(data.image(1), images_of(2, 2, 96)[1])
    assert not hasattr(data, "labels")
    first = stl(stl10, "unlabeled", open_images, limit=1)
    assert (len(first), hasattr(first, "labels")) == (1, False)
    np.testing.assert_array_equal(first.image(0), data.image(0))
    with pytest.raises(DataError, match="split 'unlabeled' of data set 'stl10' has no labels: it is for pretraining"):
        stl(stl10, "unlabeled")


@pytest.mark.parametrize(("file", "change", "message"), [
    ("train_X.bin", lambda raw: raw[:-5], "no whole number of records of 27,648"),
    ("train_y.bin", lambda raw: raw[:1], "2 images stand in train_X.bin, and 1 labels"),
    ("train_y.bin", lambda raw: b"\x01\x0b", "record 1 is of class 11, and there are 10, from 1"),
    ("train_y.bin", lambda raw: b"\x00\x01", "record 0 is of class 0"),
])  # fmt: skip
def test_damage_of_stl_10_is_named_with_its_file(stl10, file, change, message):
    damage(stl10, file, change)
    with pytest.raises(DataError, match=message):
        stl(stl10, "train")


def test_a_file_cut_short_is_the_disk_s_fault_and_the_data_set_closes_its_files(stl10):
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    data = stl(stl10, "train")
    assert len(os.listdir("/proc/self/fd")) == before + 1
    damage(stl10, "train_X.bin", lambda raw: b"")
    with pytest.raises(OSError, match="cut short after it had been opened"):
        data.image(0)
    del data
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before
    (stl10 / "class_names.txt").unlink()
    with pytest.raises(DataError, match=r"not in it: class_names.txt\); unpack stl10_binary.tar.gz"):
        stl(stl10, "train")


def heard(root, split="train", form="cifar10"):
    """What opening a split says, and a look through its records."""
    said: list[str] = []
    source = parse_source({"format": form, "root": str(root)})
    images = open_images("mine", split, source=source, warn=said.append)
    return images, [*said, *told_of(images, lambda: None)]


def of_published_length(monkeypatch):
    for module in ("cifar", "stl10"):
        monkeypatch.setattr(f"trainer.data.formats.{module}.other_than_published", lambda *_: None)


def test_files_of_other_lengths_than_published_are_told_with_the_number_expected(cifar10, stl10):
    _, (said,) = heard(cifar10)
    assert said.startswith("data set 'mine': split 'train': data_batch_1.bin holds 3, data_batch_2.bin holds 3, ")
    assert "data_batch_5.bin holds 3 images, and the published file 10,000. If it is not a set of your own" in said
    assert "test_batch.bin holds 3 images, and the published file 10,000" in heard(cifar10, "test")[1][0]
    for split, count in (("train", "5,000"), ("test", "8,000"), ("unlabeled", "100,000")):
        assert f"{split}_X.bin holds 2 images, and the published file {count}" in heard(stl10, split, "stl10")[1][0]
    labels = np.zeros((10_000, 3073), np.uint8)
    labels[:, 1:5] = np.arange(10_000, dtype=">u4").view(np.uint8).reshape(-1, 4)
    labels[:, 5:] = 200
    labels.tofile(cifar10 / "test_batch.bin")
    assert heard(cifar10, "test")[1] == []
    damage(cifar10, "test_batch.bin", lambda raw: raw[:-3073])
    assert "test_batch.bin holds 9,999 images, and the published file 10,000" in heard(cifar10, "test")[1][0]


def test_records_that_hold_nothing_are_counted_and_the_first_is_named(cifar10, stl10, monkeypatch):
    of_published_length(monkeypatch)
    assert heard(cifar10)[1] == []
    damage(cifar10, "data_batch_2.bin", lambda raw: raw[:3073] + bytes(2 * 3073))
    red = bytes([4]) + b"\xff" * 1024 + bytes(2048)
    dark = bytes([4, *[1, 0] * 1536])
    damage(cifar10, "data_batch_3.bin", lambda raw: raw[:3073] + red + dark)
    one_colour, dark_ones = heard(cifar10)[1]
    assert one_colour.startswith("3 of 15 images are of one colour throughout, ")
    assert ", first airplane/4: if that is not meant, unpack the archive again (docs" in one_colour
    assert dark_ones.startswith("1 of 15 images are almost black: 99.9 % of an image's levels are below 64 of 255, ")
    assert ", first deer/8: " in dark_ones
    (stl10 / "test_X.bin").write_bytes((stl10 / "train_X.bin").read_bytes())
    damage(stl10, "unlabeled_X.bin", lambda raw: raw[:27648] + bytes(27648))
    (said,) = heard(stl10, "unlabeled", "stl10")[1]
    assert said.startswith("1 of 2 images are of one colour throughout, ")
    source = parse_source({"format": "stl10", "root": str(stl10)})
    notes = survey("mine", source, lambda said: None).notes
    assert [note for note in notes if "one colour" in note] == [f"data set 'mine', split 'unlabeled': {said}"]
    both = "data set 'mine': of the 2 images of split 'test', which are judged, 2 are learned from in split 'train': "
    assert [note.partition("scores")[0] for note in notes if "judged" in note] == [both]


def test_a_batch_that_is_there_twice_is_told_whatever_its_classes(cifar10, monkeypatch):
    of_published_length(monkeypatch)
    first = bytearray((cifar10 / "data_batch_1.bin").read_bytes())
    first[0] = 7
    (cifar10 / "data_batch_4.bin").write_bytes(first)
    assert heard(cifar10)[1] == [
        "3 images are there more than once, 1 of them with different classes, first airplane/0 and horse/9 (2 times; "
        "of 'airplane', 'horse'): each time counts as an image; take out those that are not meant"
    ]


def test_records_are_looked_through_once_in_a_process(cifar10):
    ticks: list[None] = []
    for _ in range(2):
        assert len(cifar(cifar10).records(lambda: ticks.append(None)).identities) == 15
    assert len(ticks) == 15


def test_a_run_says_what_its_records_lack(cifar10, tmp_path):
    damage(cifar10, "data_batch_2.bin", lambda raw: raw[:3073] + bytes(2 * 3073))
    spec = runs.spec(data={"name": "own"}, epochs=1, batch_size=5)
    context = runs.context(tmp_path / "run")
    context.inputs["data"] = {"own": {"format": "cifar10", "root": str(cifar10)}}
    pretrain(spec, context)
    said = [event.data["message"] for event in runs.events(tmp_path / "run", kind="warning")]
    assert any("split 'train': 2 of 15 images are of one colour throughout" in one for one in said), said
    assert any("data_batch_5.bin holds 3 images, and the published file 10,000" in one for one in said), said


def pictures(count, side):
    """Smooth ones of many colours, brighter above, as photographs are."""
    rng = np.random.default_rng(0)
    down = np.linspace(1, -1, side)[:, None, None]
    across = np.linspace(0, 1, side)[None, :, None]
    tilt, waves, hue = (
        rng.normal(1, 1, (count, 1, 1, 1)),
        rng.uniform(-9, 9, (count, 1, 1, 1)),
        rng.random((count, 1, 1, 3)),
    )
    levels = 60 + 120 * hue + 20 * tilt * down + 25 * np.sin(waves * (across + down) + 6 * hue)
    return np.clip(levels, 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("axes", "words"),
    [
        ((0, 3, 1, 2), None),
        ((0, 1, 2, 3), "the pixels seem to be written red, green, blue one after the other (height, width, channel)"),
        ((0, 3, 2, 1), "the images seem to lie on their side: in 100 looked at the left half is brighter on average"),
    ],
)
def test_pixels_in_another_order_than_the_format_s_are_told(cifar10, stl10, monkeypatch, axes, words):
    of_published_length(monkeypatch)
    records = pictures(100, 32).transpose(axes).reshape(100, -1)
    np.concatenate([np.zeros((100, 1), np.uint8), records], axis=1).tofile(cifar10 / "test_batch.bin")
    said = heard(cifar10, "test")[1]
    assert [one.startswith(words) for one in said] == [True] if words else said == []
    swapped = {(0, 3, 1, 2): (0, 3, 2, 1), (0, 3, 2, 1): (0, 3, 1, 2)}.get(
        axes, axes
    )  # its planes are column by column
    pictures(100, 96).transpose(swapped).tofile(stl10 / "unlabeled_X.bin")
    said = heard(stl10, "unlabeled", "stl10")[1]
    assert [one.startswith(words) for one in said] == [True] if words else said == []


def test_noise_and_records_of_one_colour_have_no_order(cifar10, monkeypatch):
    of_published_length(monkeypatch)
    noise = np.random.default_rng(0).integers(0, 256, (100, 3073), dtype=np.uint8)
    noise[:, 0] = 0
    noise[50:, 1:] = 77
    noise.tofile(cifar10 / "test_batch.bin")
    assert [one.partition(",")[0] for one in heard(cifar10, "test")[1]] == [
        "50 of 100 images are of one colour throughout"
    ]


def test_splits_that_are_there_count_without_those_that_are_not(cifar10, stl10):
    """Each fixture is the same folder: CIFAR-10 and STL-10 have no file's name in common."""
    gone = {"cifar10": ("test_batch.bin", "test"), "stl10": ("unlabeled_X.bin", "unlabeled")}
    for form, (file, split) in gone.items():
        (cifar10 / file).unlink()
        entry = survey("mine", parse_source({"format": form, "root": str(stl10)}), lambda said: None)
        assert entry.fault is None
        assert split not in entry.splits
        assert "train" in entry.splits
        (note,) = [note for note in entry.notes if "is not in" in note]
        assert f"split {split!r} is not in {stl10} for want of {file}; unpack " in note
        with pytest.raises(DataError, match=rf"is not in .* for want of {file}; unpack .* there: train"):
            heard(stl10, split, form)
    (cifar10 / "data_batch_3.bin").unlink()
    assert "data_batch_3.bin" in survey("mine", parse_source({"format": "cifar10", "root": str(stl10)}), print).fault


def test_a_file_of_records_that_is_of_no_split_is_told(cifar10):
    (cifar10 / "data_batch_6.bin").write_bytes((cifar10 / "data_batch_1.bin").read_bytes())
    notes = survey("mine", parse_source({"format": "cifar10", "root": str(cifar10)}), lambda said: None).notes
    assert [note for note in notes if "data_batch_6.bin" in note] == [
        "data set 'mine': files of no split, not used: 1 (data_batch_6.bin); a split of cifar10 is of the files that "
        "are published with it alone: put records into these"
    ]


def test_a_job_that_needs_a_split_of_missing_files_is_refused_with_their_names(stl10):
    (stl10 / "unlabeled_X.bin").unlink()
    entry = survey("mine", parse_source({"format": "stl10", "root": str(stl10)}), lambda said: None)
    (fault,) = SplitUse("/data/split", "unlabeled", labelled=False).faults("mine", entry)
    assert fault.message.startswith("mine has no split 'unlabeled'; it has train (2 images), test (2 images): ")
    assert "for want of unlabeled_X.bin; unpack stl10_binary.tar.gz again" in fault.message
    assert SplitUse("/data/split", "train").faults("mine", entry) == []
