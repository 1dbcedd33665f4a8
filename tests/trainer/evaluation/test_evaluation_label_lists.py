"""Lists of labelled images: balanced, always the same, and from files as they are published."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from barlow_lab.specs.data_sets import ImageFolderSource, parse_source
from barlow_lab.specs.kinds.semi_supervised import LabelsSpec
from trainer.data.datasets import ArrayDataSet
from trainer.data.errors import DataError
from trainer.data.registry import open_data_set
from trainer.evaluation import list_lines
from trainer.evaluation.label_lists import balanced, choose_labels, keys, listed

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
    chosen = choose_labels(
        LabelsSpec(percent=percent, seed=seed), "digits", digits, None, split="train", warn=lambda said: None
    )
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
    data = Named(names, labels, ("c0", "c1"))
    said = []
    chosen = choose_labels(LabelsSpec(percent=50), "mine", data, None, split="train", warn=said.append)
    assert len(chosen.indices) == 2 + 10
    assert said[0] == "1 of 2 classes have fewer than 10 images and give all of them: 12 labels in all"


@pytest.mark.parametrize(
    ("sizes", "percent", "said"),
    [
        (
            [25] * 8,
            1,
            [
                "1 % of 200 images would be 2; each of the 8 classes gives the same whole number of images, 1, so 8 "
                "labels are drawn, 4 %"
            ],
        ),
        ([100] * 8, 1, []),
        ([100] * 8, 10, []),
    ],
)
def test_a_share_that_cannot_be_kept_is_told(sizes, percent, said):
    names, labels = folders(sizes)
    data = Named(names, labels, tuple(f"c{n}" for n in range(len(sizes))))
    heard = []
    choose_labels(LabelsSpec(percent=percent), "mine", data, None, split="train", warn=heard.append)
    assert heard == said


class AsLargeAsImageNet:
    """Names and labels of 1,281,167 images in 1,000 classes, and nothing else."""

    classes = tuple(f"n{number:08d}" for number in range(1000))
    fingerprint = ""

    def __len__(self):
        return 1_281_167

    def labels(self):
        return np.arange(len(self)) % 1000

    def name(self, index):
        return f"n{index % 1000:08d}/{index}.JPEG"


def test_a_percentage_of_imagenet_tells_its_draw_and_the_published_list_s_size():
    heard = []
    chosen = choose_labels(
        LabelsSpec(percent=1), "imagenet", AsLargeAsImageNet(), None, split="train", warn=heard.append
    )
    assert len(chosen.indices) == 13_000
    assert heard == [
        "1 % of 1,281,167 images would be 12,812; each of the 1,000 classes gives the same whole number of images, 13, "
        "so 13,000 labels are drawn, 1.01 %. Published numbers are of the list 1percent.txt, which has 12,811: name it "
        "under `lists` in datasets.yaml and ask for labels: {list: NAME} to compare with them"
    ]


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
    data = Named(["a/0.jpg", "a/1.jpg", "b/2.jpg"], [0, 0, 1], ("a", "b"))
    source = ImageFolderSource(format="image_folder", root=tmp_path, lists={"few": tmp_path / "list.txt"})
    chosen = choose_labels(LabelsSpec(list="few"), "mine", data, source, split="train", warn=silent)
    assert chosen.indices.tolist() == [0, 2]
    # SHA-256 of "a/0.jpg\nb/2.jpg\n", whatever the file looks like.
    assert chosen.digest == "d778253b699a3c7c20d7f7b72c061d8943e9fc59343cfaef224722568c4eb80b"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "a/0.jpg\na/9.jpg\nb/0.jpg\n8.jpg\n",
            r"a/9\.jpg, 8\.jpg: not in the data set \(2 of 4 lines; .* such as a/0\.jpg",
        ),
        ("0.jpg\n", r"0\.jpg: the name of several images; put more of its folders before it \(1 of 1 lines;"),
        ("a/0.jpg\n1.jpg\nx/a/0.jpg\n", r"x/a/0\.jpg is there twice"),
        ("\n \n", "names no image"),
        (b"\xff\xfe\x00", "cannot be read: list.txt: it is no text in UTF-8; save it as that"),
        ("a\\0.jpg\n", r"a\\0.jpg: not in the data set; write / between folders in place of "),
        (
            "filename,label\na/0.jpg,a\n",
            r"filename,label, a/0.jpg,a: not in the data set; a line is the name of one image",
        ),
        (
            '"a/0.jpg";0\n',
            r"not in the data set; .* without a heading, quotes, commas or semicolons, so write a table's col",
        ),
    ],
)
def test_a_list_that_does_not_name_each_image_once_is_refused(tmp_path, text, said):
    file = tmp_path / "list.txt"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DataError, match=said):
        listed(file, ["a/0.jpg", "b/0.jpg", "a/1.jpg"], ["a", "b", "a"])
    with pytest.raises(DataError, match="cannot be read"):
        listed(tmp_path / "nowhere.txt", ["a/0.jpg"], ["a"])


def test_a_list_that_the_host_does_not_have_is_refused(tmp_path):
    data = Named(["a/0.jpg"], [0], ("a",))
    with pytest.raises(DataError, match=r"no list 'few' in this host's datasets\.yaml \(it has none\)"):
        choose_labels(LabelsSpec(list="few"), "mine", data, None, split="train", warn=silent)
    source = ImageFolderSource(format="image_folder", root=tmp_path, lists={"1percent": tmp_path / "x"})
    with pytest.raises(DataError, match=r"no list 'few' .*\(known: 1percent\)"):
        choose_labels(LabelsSpec(list="few"), "mine", data, source, split="train", warn=silent)


NESTED = ["a/100CANON/0.png", "a/101CANON/0.png", "b/100CANON/0.png", "b/1.png"]
YEARS = ["1/0.png", "3/0.png", "3/1/x.png"]  # classes that are called like a folder of another class
OF_A_LIST = ["photos/abbey/x.jpg", "photos/abbey/y.jpg", "photos/bar/x.jpg", "flat.jpg"]


@pytest.mark.parametrize(
    ("names", "classes", "line", "place"),
    [
        (NESTED, "aabb", "a/101CANON/0.png", 1),
        (NESTED, "aabb", "train/a/101CANON/0.png", 1),
        (NESTED, "aabb", "/data/nested/train/b/100CANON/0.png", 2),
        (NESTED, "aabb", "101CANON/0.png", 1),  # of one class alone
        (NESTED, "aabb", "b/0.png", 2),  # of its class the only one
        (NESTED, "aabb", "1.png", 3),
        (OF_A_LIST, "0010", "photos/abbey/x.jpg", 0),
        (OF_A_LIST, "0010", "photos/abbey/x.jpg 0", 0),  # a line of the list that makes the data set
        (OF_A_LIST, "0010", "photos/bar/x.jpg\t1", 2),
        (OF_A_LIST, "0010", "images/photos/bar/x.jpg", 2),
        (OF_A_LIST, "0010", "abbey/y.jpg", 1),
        (OF_A_LIST, "0010", "y.jpg", 1),
        (OF_A_LIST, "0010", "0/x.jpg", 0),  # class and file name, as every list could be written before
        (OF_A_LIST, "0010", "images/flat.jpg", 3),
        (YEARS, "133", "3/1/x.png", 2),
        (YEARS, "133", "3/x.png", 2),
        (["photos/1/x.jpg", "photos/2/x.jpg"], "01", "1/x.jpg 0", 0),  # the line says the class itself
        (["b/1.jpg", "a/b/1.jpg"], "ba", "b/1.jpg", 0),
        (["b/1.jpg", "a/b/1.jpg"], "ba", "x/a/b/1.jpg", 1),
        (["a/two words 1.jpg"], "a", "a/two words 1.jpg", 0),
        (["3/17", "4/18"], "34", "17", 0),
        (["a/caf\u0065\u0301.jpg"], "a", "a/caf\u00e9.jpg", 0),  # as macOS writes it, and as the others do
        (["a/caf\u0065\u0301.jpg", "a/caf\u00e9.jpg"], "aa", "a/caf\u00e9.jpg", 1),
        (["a/\u2028.jpg"], "a", "a/\u2028.jpg", 0),
        (["a/\\xff.jpg"], "a", b"a/\xff.jpg", 0),
    ],
)
def test_a_line_names_an_image_in_every_form_in_which_its_data_set_does(tmp_path, names, classes, line, place):
    file = tmp_path / "list.txt"
    file.write_bytes(line if isinstance(line, bytes) else line.encode())
    assert listed(file, names, list(classes)).tolist() == [place]


@pytest.mark.parametrize(
    ("names", "classes", "line", "said"),
    [
        (NESTED, "aabb", "a/0.png", "the name of several images"),
        (NESTED, "aabb", "100CANON/0.png", "the name of several images"),
        (NESTED, "aabb", "b/101CANON/0.png", "not in the data set"),
        (NESTED, "aabb", "a/101CANON/0.png b", "not in the data set"),  # which is of class a
        (OF_A_LIST, "0010", "x.jpg", "the name of several images"),
        (OF_A_LIST, "0010", "1/flat.jpg", "not in the data set"),
        (["3/17", "4/18"], "34", "4/17", "not in the data set"),
        (YEARS, "133", "1/x.png", "not in the data set"),  # that which is there is of class 3
        (["x/a/0.png", "a/sub/0.png"], "xa", "a/0.png", "the name of several images"),
    ],
)
def test_a_line_that_may_mean_two_images_or_none_is_refused(tmp_path, names, classes, line, said):
    file = tmp_path / "list.txt"
    file.write_text(line)
    with pytest.raises(DataError, match=said):
        listed(file, names, list(classes))


def folders_of(path):
    return [part for part in path.split("/") if part not in ("", ".")]


def looked_up(line, names, classes):
    """The images that a line may mean, found by a look at every one."""

    def named(said, of):
        paths = {place: folders_of(name) for place, name in enumerate(names)}
        candidates = [place for place, path in paths.items() if path[-1] == said[-1]]

        def is_whole(place):
            path = paths[place]
            alone = len(path) == 1 and len(said) > 1
            return said[-len(path) :] == path and (not alone or said[-2] == classes[place] or said[-2] not in classes)

        if whole := [place for place in candidates if is_whole(place)]:
            longest = max(len(paths[place]) for place in whole)
            return [place for place in whole if len(paths[place]) == longest]
        found = [p for p in candidates if paths[p][-len(said) :] == said or said[-2:] == [classes[p], said[-1]]]
        begins_with_class = of is None and len(said) > 1 and said[0] in classes
        if begins_with_class and all(classes[place] != said[0] for place in found):
            return []
        return found

    parts = line.rsplit(None, 1)
    for said, of in [(line, None), *([tuple(parts)] if len(parts) == 2 else [])]:
        found = [place for place in named(folders_of(said), of) if of in (None, classes[place])]
        if found:
            return found
    return []


FOLDERS = st.lists(st.sampled_from("abx"), max_size=3)
FILE = st.sampled_from(["1", "2", "1 a"])
PATHS = st.builds(lambda folders, file: "/".join([*folders, file]), FOLDERS, FILE)


@settings(max_examples=200, deadline=None)
@given(
    names=st.lists(st.tuples(PATHS, st.sampled_from("abc")), min_size=1, max_size=8, unique_by=lambda one: one[0]),
    line=st.builds(lambda path, of: path + of, PATHS, st.sampled_from(["", " a", " b"])),
)
def test_a_line_means_what_a_look_at_every_image_finds(tmp_path_factory, names, line):
    file = tmp_path_factory.mktemp("list") / "list.txt"
    file.write_text(line)
    paths, classes = zip(*names, strict=True)
    wanted = looked_up(line, paths, classes)
    if len(wanted) == 1:
        assert listed(file, paths, classes).tolist() == wanted
    else:
        with pytest.raises(DataError, match="the name of several images" if wanted else "not in the data set"):
            listed(file, paths, classes)


def test_many_images_of_one_name_are_looked_at_once_each(tmp_path, monkeypatch):
    looks = Counter()
    folders = list_lines._folders

    def counted(path):
        looks["at a path"] += 1
        return folders(path)

    monkeypatch.setattr(list_lines, "_folders", counted)
    names = [f"a/{number}/0.jpg" for number in range(400)]
    file = tmp_path / "list.txt"
    file.write_text("\n".join(names))
    assert len(listed(file, names, ["a"] * len(names))) == len(names)
    assert looks["at a path"] <= 3 * len(names), "each image, and each line twice"


def tree(root):
    """Two cameras, which count from the same number, in each of two classes, and the same images as a list."""
    lines = []
    for label, name in enumerate("ab"):
        for camera in ("100CANON", "101CANON"):
            for number in range(6):
                path = f"{name}/{camera}/IMG_{number}.png"
                (root / "train" / path).parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (4, 4)).save(root / "train" / path)
                lines.append(f"train/{path} {label}\n")
    (root / "all.txt").write_text("".join(lines))
    (root / "few.txt").write_text("a/100CANON/IMG_0.png\na/101CANON/IMG_0.png\nb/101CANON/IMG_5.png\n")
    (root / "lines.txt").write_text("".join(lines[place] for place in (0, 6, 23)))
    return root


@pytest.mark.parametrize("form", ["image_folder", "file_list"])
def test_files_of_one_name_in_several_folders_are_images_of_their_own(tmp_path, form):
    root = tree(tmp_path)
    splits = {} if form == "image_folder" else {"splits": {"train": "all.txt"}}
    lists = {"few": root / "few.txt", "lines": root / "lines.txt"}
    source = parse_source({"format": form, "root": str(root), "lists": lists, **splits})
    data = open_data_set("mine", "train", source=source)
    names = keys(data)
    assert len(set(names)) == 24
    few = choose_labels(LabelsSpec(list="few"), "mine", data, source, split="train", warn=silent)
    below = "" if form == "image_folder" else "train/"
    wanted = {f"{below}{name}" for name in ("a/100CANON/IMG_0.png", "a/101CANON/IMG_0.png", "b/101CANON/IMG_5.png")}
    assert {names[index] for index in few.indices} == wanted
    if form == "file_list":
        assert (
            choose_labels(LabelsSpec(list="lines"), "mine", data, source, split="train", warn=silent).digest
            == few.digest
        )
    draws = {
        choose_labels(LabelsSpec(percent=25, seed=s), "mine", data, source, split="train", warn=silent).digest
        for s in range(40)
    }
    assert len(draws) > 30, "150 pairs of either class; where both cameras shared a key there were 9 draws of both"


def test_an_image_that_a_list_names_twice_has_two_keys(tmp_path):
    data = Named(["x.jpg", "y.jpg", "x.jpg"], [0, 0, 0], ("0",))
    assert keys(data) == ["x.jpg", "y.jpg", "x.jpg (2)"]
    data = Named(["x.jpg", "x.jpg", "x.jpg (2)", "x.jpg"], [0, 0, 0, 0], ("0",))
    assert keys(data) == ["x.jpg", "x.jpg (3)", "x.jpg (2)", "x.jpg (4)"]
