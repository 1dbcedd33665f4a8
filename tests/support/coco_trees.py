"""Small trees in the layout of COCO, for tests."""

import json

from PIL import Image

from barlow_lab.specs.data_sets import CocoFiles, CocoSource
from trainer.data.registry import open_annotated

HEIGHT, WIDTH = 20, 30
TRIANGLE = [[2.5, 3.25, 20.1, 4.6, 9.99, 17.3]]
CROWD = {"size": [HEIGHT, WIDTH], "counts": [50, 30, 100, 7, HEIGHT * WIDTH - 187]}
CATEGORIES = [{"id": 90, "name": "toothbrush"}, {"id": 1, "name": "person"}, {"id": 13, "name": "stop sign"}]


def instance(number, image, category, box, segmentation=TRIANGLE, **more):
    return {"id": number, "image_id": image, "category_id": category, "bbox": box, "segmentation": segmentation, **more}


def put(root, **changed):
    images = [
        {"id": number, "file_name": f"{number:03d}.jpg", "height": HEIGHT, "width": WIDTH, "license": 1}
        for number in (42, 7, 100)
    ]
    annotations = [
        instance(5, 42, 90, [2.5, 3.25, 17.6, 14.05], area=1.0, iscrowd=0),
        instance(1, 7, 1, [0, 0, 29.996, 20.004]),
        instance(3, 42, 13, [2, 10, 9, 10], CROWD, iscrowd=1),
        instance(2, 42, 1, [10, 10, 0, 3]),
    ]
    value = {"info": {}, "images": images, "annotations": annotations, "categories": CATEGORIES, **changed}
    (root / "train2017").mkdir(parents=True, exist_ok=True)
    (root / "annotations").mkdir(exist_ok=True)
    (root / "annotations/instances_train2017.json").write_text(json.dumps(value))
    for image in images:
        Image.new("RGB", (WIDTH, HEIGHT), (image["id"], 0, 0)).save(root / "train2017" / image["file_name"])
    return root


def opened(root, opener=open_annotated, name="mine", **more):
    files = CocoFiles(images="train2017", annotations="annotations/instances_train2017.json")
    return opener(name, "train", source=CocoSource(format="coco", root=root, splits={"train": files}), **more)
