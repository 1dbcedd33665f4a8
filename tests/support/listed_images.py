"""A data set of images that a list names, for tests."""

from barlow_lab.specs.data_sets import FileListSource
from trainer.data.registry import open_data_set


def of_list(root, *lines, images="set/images", opener=open_data_set, **more):
    (root / "train.txt").write_text("\n".join(lines))
    source = FileListSource(format="file_list", root=root, splits={"train": "train.txt"}, images=images)
    return opener("mine", "train", source=source, **more)
