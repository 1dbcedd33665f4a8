"""Small trees in the layout of VOC, for tests."""

from PIL import Image

from barlow_lab.specs.data_sets import VocSource
from trainer.data.registry import open_annotated

DOG, CAT = ("dog", (1, 1, 8, 6), 0), ("cat", (2, 3, 4, 5), 1)


def put(root, name, objects, *, folder="VOC2007", side=(8, 6), extra=""):
    """An image of 8 x 6 pixels and its annotation; an object is (class, (xmin, ymin, xmax, ymax), difficult)."""
    for part in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (root / folder / part).mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 6), (len(name) * 20, 0, 0)).save(root / folder / "JPEGImages" / f"{name}.jpg")
    corners = "<xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax>"
    inside = "".join(
        f"<object><name>{kind}</name><difficult>{difficult}</difficult><bndbox>{corners.format(*box)}</bndbox>"
        "<part><name>head</name><bndbox><xmin>1</xmin></bndbox></part></object>"
        for kind, box, difficult in objects
    )
    size = f"<size><width>{side[0]}</width><height>{side[1]}</height><depth>3</depth></size>"
    text = f"{extra}<annotation><folder>x</folder>{size}{inside}</annotation>"
    (root / folder / "Annotations" / f"{name}.xml").write_text(text)


def put_list(root, name, images, folder="VOC2007"):
    (root / folder / "ImageSets/Main").mkdir(parents=True, exist_ok=True)
    (root / folder / "ImageSets/Main" / f"{name}.txt").write_text("".join(f"{image}\n" for image in images))


SPLITS = {"train": ["VOC2007/trainval", "VOC2012/trainval"], "test": ["VOC2007/test"]}


def opened(root, split="train", splits=SPLITS, name="mine", opener=open_annotated, **more):
    return opener(name, split, source=VocSource(format="voc", root=root, splits=splits), **more)
