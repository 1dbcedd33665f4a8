"""Lists of labelled images: balanced, always the same, and from files as they are published."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.data.datasets import ArrayDataSet
from trainer.data.errors import DataError
from trainer.data.registry import open_data_set
from trainer.evaluation.label_lists import balanced, choose_labels, listed
from trainer.specs.classification import LabelsSpec
from trainer.specs.data_sets import ImageFolderSource

SIZES = st.lists(st.integers(1, 40), min_size=1, max_size=6)


class Named(ArrayDataSet):
    """Images with the names of files."""

    def __init__(self, names, labels, classes):
        super().__init__(np.zeros((len(names), 2, 2, 3), np.uint8), np.array(labels, np.int64), classes)
        self.names = names

    def name(self, index):
        return self.names[index]


def folders(sizes):
    """Names CLASS/NAME and labels of classes with so many images."""
    labels = np.array([label for label, size in enumerate(sizes) for _ in range(size)], dtype=np.int64)
    return [f"c{label}/{place}.jpg" for place, label in enumerate(labels)], labels


def silent(message):
    raise AssertionError(message)


@pytest.mark.parametrize(
    ("percent", "seed", "digest"),
    [
        (1, 0, "292eba10dfc00cdb81bd179a05e6a0cd23bbf319916eb7c87b5809d80c037d91"),
        (10, 0, "046c7414335dde8cdc444b98d6f472ee143705ffe7c397a1849d877bd014ceaf"),
        (1, 1, "7679a460b05f3b303e8e139fb226d69194d5e029f4dad640dd27fb024415569d"),
    ],
)
def test_a_list_of_digits_is_the_same_for_ever(percent, seed, digest):
    digits = open_data_set("digits", "train")
    chosen = choose_labels(LabelsSpec(percent=percent, seed=seed), digits, None, warn=lambda said: None)
    assert chosen.digest == digest
    counts = Counter(digits.labels()[chosen.indices].tolist())
    assert counts == {label: {1: 1, 10: 14}[percent] for label in range(10)}


@settings(max_examples=60, deadline=None)
@given(sizes=SIZES, percent=st.floats(0.1, 99.9), seed=st.integers(0, 2**31 - 1))
def test_every_class_gives_the_same_number_or_all_it_has(sizes, percent, seed):
    names, labels = folders(sizes)
    indices = balanced(names, labels, classes=len(sizes), percent=percent, seed=seed)
    count = max(1, round(percent / 100 * sum(sizes) / len(sizes)))
    assert np.bincount(labels[indices], minlength=len(sizes)).tolist() == [min(count, size) for size in sizes]
    assert indices.tolist() == sorted(set(indices.tolist()))


@settings(max_examples=40, deadline=None)
@given(data=st.data(), sizes=SIZES, percent=st.floats(1, 99))
def test_a_list_does_not_depend_on_the_order_of_the_images(data, sizes, percent):
    names, labels = folders(sizes)
    order = data.draw(st.permutations(range(len(names))))
    ours = balanced(names, labels, classes=len(sizes), percent=percent, seed=3)
    theirs = balanced([names[i] for i in order], labels[list(order)], classes=len(sizes), percent=percent, seed=3)
    assert {names[i] for i in ours} == {names[order[i]] for i in theirs}


def test_a_smaller_list_is_part_of_a_larger_one_and_another_seed_is_another_list():
    names, labels = folders([100] * 4)
    few, many, other = (
        set(balanced(names, labels, classes=4, percent=percent, seed=seed).tolist())
        for percent, seed in ((1, 0), (10, 0), (10, 1))
    )
    assert few < many
    assert len(many) == len(other) == 40
    assert len(many & other) < 20


def test_all_labels_are_all_also_where_classes_are_uneven():
    names, labels = folders([3, 30])
    assert balanced(names, labels, classes=2, percent=100, seed=0).tolist() == list(range(33))


def test_uneven_classes_are_told():
    names, labels = folders([2, 40])
    data = Named([name.split("/")[1] for name in names], labels, ("c0", "c1"))
    said = []
    chosen = choose_labels(LabelsSpec(percent=50), data, None, warn=said.append)
    assert len(chosen.indices) == 2 + 10
    assert said[0] == "1 of 2 classes have fewer than 10 images and give all of them: 12 labels in all"


@pytest.mark.parametrize(
    ("sizes", "percent", "said"),
    [
        (
            [25] * 8,
            1,
            ["1 % of 200 images in 8 classes are 8 labels here, 4 %"],
        ),
        ([100] * 8, 1, []),
        ([100] * 8, 10, []),
    ],
)
def test_a_share_that_cannot_be_kept_is_told(sizes, percent, said):
    names, labels = folders(sizes)
    data = Named([name.split("/")[1] for name in names], labels, tuple(f"c{n}" for n in range(len(sizes))))
    heard = []
    choose_labels(LabelsSpec(percent=percent), data, None, warn=heard.append)
    assert [line.split(":")[0] for line in heard] == said


@pytest.mark.parametrize(
    "text",
    [
        "b/2.jpg\na/0.jpg\n",
        "2.jpg\n\n  0.jpg  \n",
        "train/b/2.jpg\r\n./a/0.jpg\r\n",
        "b/2.jpg\n0.jpg",
        "\ufeff2.jpg\n0.jpg",
    ],
)
def test_a_file_names_images_with_or_without_folders(tmp_path, text):
    (tmp_path / "list.txt").write_bytes(text.encode())
    data = Named(["0.jpg", "1.jpg", "2.jpg"], [0, 0, 1], ("a", "b"))
    source = ImageFolderSource(format="image_folder", root=tmp_path, lists={"few": tmp_path / "list.txt"})
    chosen = choose_labels(LabelsSpec(list="few"), data, source, warn=silent)
    assert chosen.indices.tolist() == [0, 2]
    # SHA-256 of "a/0.jpg\nb/2.jpg\n", whatever the file looks like.
    assert chosen.digest == "d778253b699a3c7c20d7f7b72c061d8943e9fc59343cfaef224722568c4eb80b"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a/0.jpg\na/9.jpg\nb/0.jpg\n8.jpg\n", r"a/9\.jpg, 8\.jpg: not in the data set \(2 of 4 lines\)"),
        ("0.jpg\n", r"0\.jpg: the name of several images; put the folder of the class before it \(1 of 1 lines\)"),
        ("a/0.jpg\n1.jpg\nx/a/0.jpg\n", r"x/a/0\.jpg is there twice"),
        ("\n \n", "names no image"),
        (b"\xff\xfe\x00", "cannot be read"),
    ],
)
def test_a_list_that_does_not_name_each_image_once_is_refused(tmp_path, text, said):
    file = tmp_path / "list.txt"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DataError, match=said):
        listed(file, ["a/0.jpg", "b/0.jpg", "a/1.jpg"])
    with pytest.raises(DataError, match="cannot be read"):
        listed(tmp_path / "nowhere.txt", ["a/0.jpg"])


def test_a_list_that_the_host_does_not_have_is_refused(tmp_path):
    data = Named(["0.jpg"], [0], ("a",))
    with pytest.raises(DataError, match=r"no list 'few' in this host's datasets\.yaml \(it has none\)"):
        choose_labels(LabelsSpec(list="few"), data, None, warn=silent)
    source = ImageFolderSource(format="image_folder", root=tmp_path, lists={"1percent": tmp_path / "x"})
    with pytest.raises(DataError, match=r"no list 'few' .*\(known: 1percent\)"):
        choose_labels(LabelsSpec(list="few"), data, source, warn=silent)
