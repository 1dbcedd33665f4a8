"""CIFAR and STL-10 from their binary files: pixels, planes and classes where they belong, damage named."""

import gc
import os

import numpy as np
import pytest

from trainer.data.errors import DataError
from trainer.data.registry import open_data_set, open_images
from trainer.specs.data_sets import CifarSource, Stl10Source

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


def test_a_file_that_is_cut_short_under_a_run_is_the_disk_s_fault_and_files_are_closed_with_the_data_set(stl10):
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
