"""A tree of image files as a data set: what is in it, in which order, and what is said of a tree that is wrong."""

import errno
import hashlib
import os
import shutil

import numpy as np
import pytest
from grey_images import levels, put

from barlow_lab.specs.data_sets import ImageFolderSource, ImagesSource
from barlow_lab.specs.views import ViewsSpec
from trainer.data.errors import DataError, UnreadableImage
from trainer.data.loading.training import TrainingBatches
from trainer.data.registry import open_data_set, open_images


@pytest.fixture
def tree(tmp_path):
    for level, place in enumerate(["b/2.png", "b/10.PNG", "b/sub/1.webp", "a/x.jpg", "a/y.jpeg", "B/z.gif", "b/3.bmp"]):
        put(tmp_path / "train" / place, level)
    return tmp_path


def opened(root, split="train", **more):
    return open_data_set("own", split, source=ImageFolderSource(format="image_folder", root=root), **more)


def test_images_come_one_of_each_class_in_turn_sorted_by_their_bytes(tree):
    data = opened(tree)
    assert data.classes == ("B", "a", "b")
    # a: x y; b: 10 2 3 sub/1 ("1" sorts before "2", capitals before small letters, whatever the locale)
    assert levels(data) == [5, 3, 1, 4, 0, 6, 2]
    assert data.labels().tolist() == [0, 1, 2, 1, 2, 2, 2]
    assert data.labels().dtype == np.int64
    assert [data.label(index) for index in range(7)] == data.labels().tolist()
    assert data.image(0).shape == (4, 6, 3)
    assert data.image(-1)[0, 0, 0] == 2
    assert levels(opened(tree, limit=3)) == [5, 3, 1]
    with pytest.raises(IndexError):
        data.image(7)


def test_the_fingerprint_is_of_names_and_sizes(tree):
    base = opened(tree).fingerprint
    copy = tree / "copy"
    for path in sorted(tree.glob("train/**/*.*"), reverse=True):  # another order on the disk
        (copy / path.relative_to(tree)).parent.mkdir(parents=True, exist_ok=True)
        (copy / path.relative_to(tree)).write_bytes(path.read_bytes())
    assert opened(copy).fingerprint == base
    seen = {base}

    def changed():
        seen.add(opened(copy).fingerprint)
        return len(seen)

    (copy / "train/a/x.jpg").rename(copy / "train/a/w.jpg")
    assert changed() == 2
    (copy / "train/a/w.jpg").rename(copy / "train/B/w.jpg")
    assert changed() == 3
    with (copy / "train/a/y.jpeg").open("ab") as file:
        file.write(b"\0")
    assert changed() == 4
    (copy / "train/a").rename(copy / "train/c")
    assert changed() == 5


def test_the_fingerprint_of_a_tree_without_system_folders_is_as_in_earlier_versions(tree):
    digest = hashlib.sha256()
    for name in ("B", "a", "b"):
        files = sorted(
            os.fsencode(file.relative_to(tree / "train" / name)) for file in (tree / "train" / name).rglob("*.*")
        )
        sizes = ((file, os.path.getsize(os.path.join(os.fsencode(tree / "train" / name), file))) for file in files)
        of_class = hashlib.sha256(b"".join(b"%b\0%d\0" % one for one in sizes)).digest()
        digest.update(b"%b\0%b" % (name.encode(), of_class))
    assert opened(tree).fingerprint == digest.hexdigest()


def test_what_is_passed_over_is_counted_by_its_kind(tree):
    said = []
    assert len(opened(tree, warn=said.append)) == 7
    assert said == []
    for name in (".DS_Store", "a/._x.jpg", ".git/x.png", "a/@eaDir/x.jpg/SYNOPHOTO_THUMB_M.jpg", "b/sub/@EADIR/t.jpg"):
        (tree / "train" / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / "train" / name).write_bytes(b"?")
    for name in ("a/list.txt", "a/more.TXT", "b/photo.heic", "b/README", "b/.keep", "b/.old/1.png", "a/.x.jpg"):
        (tree / "train" / name).parent.mkdir(exist_ok=True)
        (tree / "train" / name).write_bytes(b"?")
    os.mkfifo(tree / "train/a/pipe.png")
    (tree / "train/a/gone.jpg").symlink_to(tree / "nowhere")
    (tree / "train/a/round").symlink_to(tree)
    assert len(opened(tree, warn=said.append)) == 7
    (message,) = said
    for part in (
        "hidden images, not used: 2 (a/.x.jpg, b/.old/1.png)",
        "links to folders, not followed: 1 (a/round)",
        "system folders and files, passed over: 2 x @eaDir, 1 x .DS_Store, 1 x ._* (macOS), 1 x .git",
        "files passed over: 2 x .txt, 1 x .heic, 1 x dead link, 1 x no ending, 1 x no regular file; endings of images",
    ):
        assert part in message


def test_notes_beside_images_are_no_news_unless_there_is_nothing_else(tree):
    said = []
    for name in ("a/a_boxes.txt", "b/b_boxes.TXT", "classes.csv"):
        (tree / "train" / name).write_text("?")
    assert len(opened(tree, warn=said.append)) == 7
    assert said == []
    put_notes = tree / "train/notes"
    put_notes.mkdir()
    (put_notes / "n.txt").write_text("?")
    with pytest.raises(DataError, match=r"no image in class folder 'notes' .*files passed over: 3 x \.txt, 1 x \.csv"):
        opened(tree)


def test_hidden_folders_are_looked_at_with_an_end_and_the_looking_is_told(tree, monkeypatch):
    ticks = []
    opened(tree, tick=lambda: ticks.append(1))
    without = len(ticks)
    for folder, ending in ((".cache", "bin"), ("a/.old", "png")):
        (tree / "train" / folder).mkdir()
        for number in range(30):
            (tree / "train" / folder / f"{number}.{ending}").write_bytes(b"?")
    said = []
    opened(tree, tick=lambda: ticks.append(1), warn=said.append)
    assert len(ticks) == 2 * without + 60
    assert "hidden images, not used: 30 (" in said[0]
    monkeypatch.setattr("trainer.data.formats.passed_over.MOST_HIDDEN", 40)
    opened(tree, warn=said.append)
    assert "hidden images, not used: at least 10 (" in said[1]
    monkeypatch.setattr("trainer.data.formats.passed_over.MOST_HIDDEN", 20)
    opened(tree, warn=said.append)
    assert "hidden images: none among 20 files in hidden folders, and there are more" in said[2]


def test_links_are_followed_but_never_round_in_a_circle(tree, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    (other / "linked").symlink_to(tree / "train")
    (other / "real/c").mkdir(parents=True)
    put(other / "photo", 77)
    (other / "real/c/photo.png").symlink_to(other / "photo")
    (tree / "train/c").symlink_to(other / "real/c")
    (tree / "train/a/round").symlink_to(tree)
    said = []
    data = opened(other, "linked", warn=said.append)
    assert data.classes == ("B", "a", "b", "c")
    assert len(data) == 8
    assert 77 in levels(data)
    assert "links to folders, not followed: 1 (a/round)" in said[0]


def test_names_that_are_no_text_are_read_and_can_be_written_anywhere(tmp_path):
    folder = os.path.join(os.fsencode(tmp_path), b"train", b"caf\xe9")
    os.makedirs(folder)
    put(os.path.join(folder, b"\xff\n.png"), 9)
    with open(os.path.join(folder, b"broken \xff.png"), "wb"):
        pass
    data = opened(tmp_path)
    assert data.classes == ("caf\\xe9",)
    assert int(data.image(1)[0, 0, 0]) == 9
    with pytest.raises(UnreadableImage) as caught:
        data.image(0)
    assert str(caught.value) == "caf\\xe9/broken \\xff.png cannot be read: the file is empty"


def test_the_content_decides_not_the_ending(tree):
    for level, kind in enumerate(["JPEG", "PNG", "TIFF"]):
        put(tree / f"mixed/only/{level}.jpg", 100 + level, kind)
    assert levels(opened(tree, "mixed")) == [100, 101, 102]


def test_an_image_that_goes_away_or_cannot_be_read_is_named(tree, monkeypatch):
    data = opened(tree)
    (tree / "train/b/sub/1.webp").unlink()
    with pytest.raises(UnreadableImage, match=r"^b/sub/1\.webp cannot be read: No such file or directory$"):
        data.image(6)
    monkeypatch.setattr("trainer.data.image_files.MAX_FILE_BYTES", 10)
    with pytest.raises(UnreadableImage, match="larger than 10 bytes"):
        data.image(0)


@pytest.mark.parametrize(("make", "split", "message"), [
    (["train/a/x.png"], "trian", r"no split 'trian' in .*did you mean 'train'\?"),
    (["one/a/x.png", "two/a/x.png"], "val", r"its folders: one, two \(.*ROOT/SPLIT/CLASS/IMAGE"),
    ([], "train", "no split 'train' in .*its folders: none"),
    (["x.png", "a/y.png"], "train", r"no split 'train' in .*its folders: a .*where 1 images stand; .*`format: images`"),
    (["train/__MACOSX/a/x.png", "train/lost+found/"], "train", "train is empty, and no class folder is in it"),
    (["train/"], "train", "train is empty, and no class folder is in it"),
    (["train/x.png", "train/y.png"], "train", r"2 images stand in .*`format: images` .* --data own=images:DIR"),
    (["train/a/x.png", "train/b/", "train/c/d/"], "train", "class folder 'b', 'c' of .*, whose .* hold 1 images: put"),
    (["train/a/x.png", *[f"train/{n}/" for n in "bcdef"]], "train", "'b', 'c', 'd' and in 2 more"),
    (["train/a/x.heic"], "train", r"no image in class folder 'a' .*1 x \.heic; endings of images are \.jpg"),
])  # fmt: skip
def test_a_tree_that_is_wrong_is_refused_with_the_remedy(tmp_path, make, split, message):
    for name in make:
        path = tmp_path / name
        (path if name.endswith("/") else path.parent).mkdir(parents=True, exist_ok=True)
        if not name.endswith("/"):
            path.write_bytes(b"?")
    with pytest.raises(DataError, match=message):
        opened(tmp_path, split)


def test_a_root_that_is_not_there_is_named(tmp_path):
    with pytest.raises(DataError, match=r"'own' has no folder .*/nowhere on this host"):
        opened(tmp_path / "nowhere")


def test_every_file_ticks(tree):
    (tree / "train/a/list.txt").touch()
    ticks = []
    opened(tree, tick=lambda: ticks.append(1), warn=lambda message: None)
    assert len(ticks) == 7 + 1 + 1  # and the folder b/sub


def test_a_file_that_has_gone_is_one_image_but_a_gone_disk_is_the_host_s_fault(tree, monkeypatch):
    data = opened(tree)
    (tree / "train/B/z.gif").unlink()
    with pytest.raises(UnreadableImage, match=r"B/z\.gif cannot be read: No such file"):
        data.image(0)

    def broken(*_):
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fstat", broken)
        with pytest.raises(OSError, match=r"Input/output error: '.*/x\.jpg'"):
            data.image(1)
    shutil.rmtree(tree / "train")
    batches = TrainingBatches(
        data, ViewsSpec(preset="small_images", size=8), batch_size=4, seed=0, rank=0, world_size=1, threads=2
    )
    with pytest.raises(FileNotFoundError):  # not bad_data, which is not tried again
        next(batches.iterate(0, 1))


def test_a_name_that_forges_lines_is_the_images_name_and_stands_escaped_in_messages(tree):
    evil = "x\n[0] ok: done\x1b[2J\u202e.jpg"
    (tree / "train" / "a" / evil).write_bytes(b"no image")
    data = opened(tree)
    (index,) = (index for index in range(len(data)) if data.name(index) == f"a/{evil}")
    with pytest.raises(UnreadableImage) as error:
        data.image(index)
    assert str(error.value).startswith(r"a/x\n[0] ok: done\x1b[2J\u202e.jpg cannot be read: ")


def test_a_pipe_in_the_place_of_an_image_is_unreadable_and_not_waited_for(tree):
    os.mkfifo(tree / "train" / "a" / "pipe.jpg")
    told = []
    data = opened(tree, warn=told.append)
    assert len(data) == 7
    assert "1 x no regular file" in told[0]
    (tree / "train/a/x.jpg").unlink()
    os.mkfifo(tree / "train/a/x.jpg")
    with pytest.raises(UnreadableImage, match=r"^a/x.jpg cannot be read: it is a named pipe"):
        data.image(1)


def test_a_link_into_proc_is_one_unreadable_image(tree):
    for place in ("mem", "pagemap"):
        (tree / "train/a/x.jpg").unlink()
        (tree / "train/a/x.jpg").symlink_to(f"/proc/self/{place}")
        with pytest.raises(UnreadableImage, match=r"^a/x.jpg cannot be read"):
            opened(tree).image(1)


def test_images_beside_class_folders_are_named_and_the_remedy_with_them(tree):
    before = opened(tree).fingerprint
    for number in range(242):
        put(tree / f"train/loose-{number:03d}.jpg")
    said = []
    data = opened(tree, warn=said.append)
    assert (len(data), data.fingerprint) == (7, before)
    (message,) = said
    assert (
        f"images in {tree / 'train'} itself, in no class folder, not used: 242 (loose-000.jpg, loose-001.jpg, "
        in message
    )
    assert "`format: images`" in message


def test_a_tree_of_classes_with_splits_in_them_is_told_of_however_it_is_read(tmp_path):
    """As MVTec AD is published."""
    for thing in ("bottle", "cable"):
        for number in range(2):
            for folder in ("train/good", "test/good", "test/broken", "ground_truth/broken"):
                put(tmp_path / thing / folder / f"{number}.png")
    said = []
    data = open_data_set("own", "bottle", source=of_splits(tmp_path), warn=said.append)
    assert data.classes == ("ground_truth", "test", "train")
    assert said[0] == (
        "data set 'own', split 'bottle': its class folders 'train' and 'test' are called like splits, and each counts "
        "as a class; if they are splits, say `splits: {train: bottle/train, test: bottle/test}`"
    )
    said.clear()
    data = open_data_set("own", "train", source=of_splits(tmp_path, train="."), warn=said.append)
    assert (data.classes, len(data)) == (("bottle", "cable"), 16)
    assert said == [
        "data set 'own', split 'train' holds 8 images of 2 folders within its folders, by name those of a test, first "
        "'bottle/test'; they are taken as all others are. If nothing is to be learned from them, or their folders are "
        "classes, put the files into SPLIT/CLASS folders, or list them (`format: file_list`)"
    ]
    said.clear()
    open_data_set("own", "train", source=of_splits(tmp_path, train="bottle/train"), warn=said.append)
    assert said == []


def of_splits(root, **splits):
    return ImageFolderSource(format="image_folder", root=root, splits=splits)


def test_a_split_that_holds_another_s_folder_or_a_test_s_by_name_is_told_of(tmp_path):
    for name in ("a/1.png", "b/1.png", "val/a/1.png", "val/a/2.png", "Test/1.png", "c/val/1.png", "c/more/1.png"):
        put(tmp_path / name)
    plain = ImageFolderSource(format="image_folder", root=tmp_path, splits={"train": "."})
    named = plain.model_copy(update={"splits": {"train": ".", "test": "val", "more": "c/more", "twin": "."}})
    said = []
    before = open_data_set("own", "train", source=plain, warn=said.append).fingerprint
    assert [message.partition(";")[0] for message in said] == [
        "data set 'own', split 'train' holds 1 images of its folder 'Test', which is by its name images of a test",
        "data set 'own', split 'train' holds 2 images of its folder 'val', which is by its name images of a test",
        "data set 'own', split 'train' holds 1 images of 1 folder within its folders, by name those of a test, first "
        "'c/val'",
    ]
    said.clear()
    data = open_data_set("own", "train", source=named, warn=said.append)
    assert (data.classes, data.fingerprint) == (("Test", "a", "b", "c", "val"), before)
    assert [message.partition(" holds ")[2].partition(";")[0] for message in said] == [
        "7 images of its folder '.', which is split 'twin'",
        "1 images of its folder 'Test', which is by its name images of a test",
        "1 images of its folder 'c/more', which is split 'more'",
        "2 images of its folder 'val', which is split 'test'",
    ]
    assert "name folders in `splits` that lie beside one another" in said[-1]
    said.clear()
    open_data_set("own", "test", source=named, warn=said.append)
    assert said == []


def test_files_that_are_several_images_are_told_whatever_leads_to_them(tmp_path):
    for name in ("train/a/1.png", "train/a/2.png", "train/b/1.png"):
        put(tmp_path / name)
    said = []
    opened(tmp_path, warn=said.append)
    assert said == []
    (tmp_path / "train/b/9.png").symlink_to("../a/2.png")
    os.link(tmp_path / "train/a/1.png", tmp_path / "train/a/3.png")
    opened(tmp_path, warn=said.append)
    assert said == [
        "data set 'own', split 'train': 2 images are there more than once, 1 of them with different classes, first "
        "a/2.png and b/9.png (2 times; of 'a', 'b'): each time counts as an image; take out those that are not meant"
    ]
    said.clear()
    (tmp_path / "train/c").symlink_to("b")
    opened(tmp_path, warn=said.append)
    assert "3 images are there more than once, 2 of them with different classes, first b/1.png and c/1.png" in said[0]
    said.clear()
    source = ImagesSource(format="images", root=tmp_path / "train")
    open_images("own", "train", source=source, warn=said.append)
    assert any("2 images are there more than once, first a/1.png and a/3.png (2 times): each" in one for one in said)
