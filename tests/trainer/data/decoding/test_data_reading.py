"""How a split's image files are read: `value_range` of datasets.yaml, and what is told of images in which it loses."""

import json
import re
import threading

import numpy as np
import pytest
import runs
import yaml
from odd_tiffs import tiff
from odd_trees import make_split
from PIL import Image, ImageDraw, ImageFont

from barlow_lab.outcome import Outcome
from barlow_lab.specs import SpecError
from barlow_lab.specs.data_sets import ImageFolderSource, load_data_sets
from trainer.data.decoding.reading import Losses, Reading
from trainer.data.errors import DataError
from trainer.data.registry import open_images
from trainer.pretraining import pretrain
from trainer.survey import survey

RNG = np.random.default_rng(0)
NOISE = RNG.integers(0, 4096, (40, 8, 8)).astype(np.uint16)


def folder(root, files, split="train"):
    """A tree with one class of these files' bytes, by name."""
    for name, content in files.items():
        path = root / split / "all" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


def twelve(count, bits=12):
    return {f"{number:02d}.tif": tiff(NOISE[number], bits) for number in range(count)}


def opened(root, value_range="dtype", warn=lambda said: None, **source):
    source = ImageFolderSource(format="image_folder", root=root, value_range=value_range)
    return open_images("own", "train", source=source, warn=warn)


def test_every_format_is_read_by_its_value_range_and_that_is_another_data_set(tmp_path):
    root = folder(tmp_path, twelve(4))
    (root / "list.txt").write_text("".join(f"{number:02d}.tif 0\n" for number in range(4)))
    coco = {"images": [{"id": n, "file_name": f"{n:02d}.tif", "height": 8, "width": 8} for n in range(4)],
            "annotations": [], "categories": [{"id": 1, "name": "all"}]}  # fmt: skip
    (root / "coco.json").write_text(json.dumps(coco))
    entries = {
        "tree": {"format": "image_folder"},
        "images": {"format": "images", "splits": {"train": "train/all"}},
        "list": {"format": "file_list", "splits": {"train": "list.txt"}, "images": "train/all"},
        "coco": {"format": "coco", "splits": {"train": {"images": "train/all", "annotations": "coco.json"}}},
    }
    file = tmp_path / "datasets.yaml"
    for entry in entries.values():
        found = []
        for more in ({}, {"value_range": "dtype"}, {"value_range": "file"}, {"value_range": "percentile"}):
            file.write_text(yaml.safe_dump({"own": {**entry, "root": ".", **more}}))
            images = open_images("own", "train", source=load_data_sets(file)["own"])
            found.append((images.fingerprint, images.image(2).tobytes()))
        default, dtype, by_file, percentile = found
        assert default == dtype
        assert len({fingerprint for fingerprint, _ in (default, by_file, percentile)}) == 3
        assert len({levels for _, levels in (default, by_file, percentile)}) == 3


def test_the_fingerprint_of_the_default_is_that_of_the_versions_before(tmp_path):
    root = folder(tmp_path, {"a.png": b"1234", "b.png": b"12"})
    assert opened(root).fingerprint == "0727aa41530b7102fc1764d4ef32953fd019ba3e9b0ae7873e6aa39e5ccb38b7"


def test_a_value_range_that_is_none_and_one_of_a_format_without_files(tmp_path):
    file = tmp_path / "datasets.yaml"
    for entry, said in (
        ({"format": "image_folder", "value_range": "auto"}, "'dtype', 'file' or 'percentile'"),
        ({"format": "cifar10", "value_range": "file"}, "`value_range` is of image files, and this format has none"),
    ):
        file.write_text(yaml.safe_dump({"own": {**entry, "root": "."}}))
        with pytest.raises(SpecError, match=said):
            load_data_sets(file)


def test_black_images_and_dropped_bands_are_counted_at_the_first_and_later(tmp_path):
    said: list[str] = []
    root = folder(tmp_path, twelve(20))
    images = opened(root, warn=said.append)
    for index in (0, 0, 0, *range(20)):
        images.image(index)
    whose = "data set 'own', split 'train'"
    assert [one.partition(", first")[0] for one in said] == [
        f"{whose}: {count} of {count} images read hold 12 bits a sample and are read as 16 bits" for count in (1, 8, 20)
    ]
    assert "all/00.tif: their white is level 15 of 255. Say `value_range: file`" in said[0]
    images.image(0)
    assert len(said) == 3, "each is looked at once"

    said.clear()
    photo = tiff(RNG.integers(0, 256, (8, 8, 3)).astype(np.uint8), 8)
    four = tiff(RNG.integers(0, 256, (8, 8, 4)).astype(np.uint8), 8, extra=[0])
    mixed = {f"{n}.tif": four if n in (3, 5) else tiff(NOISE[n], 16) if n == 8 else photo for n in range(10)}
    images = opened(folder(tmp_path / "mixed", mixed), warn=said.append)
    for index in range(10):
        images.image(index)
    assert [one.removeprefix(f"{whose}: ").partition(":")[0] for one in said] == [
        "1 of 4 images read have a band that is dropped, first all/3.tif",
        "2 of 8 images read have a band that is dropped, first all/3.tif",
        "1 of 9 images read are almost black, first all/8.tif",
    ]
    assert f"below 64 of 255, the highest is {NOISE[8].max() >> 8}. " in said[2]
    assert "`value_range: percentile`" in said[2]


@pytest.mark.parametrize(("low", "high", "told"), [
    (0, 2**12, "almost black"), (0, 2**14, "almost black"), (30_000, 34_000, "few of the 256 levels"), (0, 2**16, None),
])  # fmt: skip
@pytest.mark.parametrize("bands", [1, 3])
def test_sixteen_bits_of_which_a_part_is_used_are_told(tmp_path, bands, low, high, told):
    levels = RNG.integers(low, high, (16, 16, bands)).astype(np.uint16)
    said: list[str] = []
    opened(folder(tmp_path, {"a.tif": tiff(levels, 16)}), warn=said.append).image(0)
    assert len(said) == (0 if told is None else 1)
    assert told is None or told in said[0]


@pytest.mark.parametrize(("kind", "value_range"), [
    ("16 bits", "dtype"), ("16 bits", "percentile"), ("float", "percentile"),
])  # fmt: skip
def test_a_value_for_no_data_that_takes_up_the_range_is_told(tmp_path, kind, value_range):
    values, options = RNG.integers(200, 1200, (64, 64)), {"bits": 16}
    values[:4] = 65535
    if kind == "float":
        values = np.where(values == 65535, -9999, values / 1200)
        options = {"bits": 32, "sample_format": 3}
    said: list[str] = []
    images = opened(folder(tmp_path, {"a.tif": tiff(values, **options)}), value_range, warn=said.append)
    assert len(np.unique(images.image(0))) < 8
    assert len(said) == 1
    assert "1 of 1 images read have more than 8 bits and use few of the 256 levels, first all/a.tif: " in said[0]
    assert (
        "stands for no data there, as 65535 or -9999, write the files with one within the range of the oth" in said[0]
    )
    assert ("`value_range: percentile`" in said[0]) is (value_range == "dtype")


@pytest.mark.parametrize("bands", [1, 3])
@pytest.mark.parametrize("values", [[0, 65535], [0, 20000, 65535], [4096 * level for level in range(16)]])
def test_masks_and_drawings_of_sixteen_bits_are_told_nothing_of_no_data(tmp_path, values, bands):
    image = RNG.choice(np.array(values, np.uint16), (64, 64, bands))
    for value_range in ("dtype", "percentile"):
        said: list[str] = []
        opened(folder(tmp_path, {"a.tif": tiff(image, 16)}), value_range, warn=said.append).image(0)
        assert said == []


def test_two_levels_to_which_many_values_came_are_told(tmp_path):
    image = RNG.integers(0, 200, (64, 64)).astype(np.uint16)
    image[:32] = 65535
    said: list[str] = []
    opened(folder(tmp_path, {"a.tif": tiff(image, 16)}), warn=said.append).image(0)
    assert len(said) == 1
    assert "few of the 256 levels, first all/a.tif: 2, from 0 to 255. If a value far from the others stands" in said[0]


@pytest.mark.parametrize(("low", "high", "no_data", "value_range", "level", "others"), [
    (0, 3000, -9999, "percentile", 0, "19. to 255"), (0, 9000, -9999, "percentile", 0, "13. to 255"),
    (0, 3000, -9999, "file", 0, "196 to 255"), (0, 9999, 65535, "dtype", 255, "0 to 3[89]"),
    (0, 9999, 65535, "file", 255, "0 to 3[89]"), (0, 9999, 65535, "percentile", 255, "0 to 3[89]"),
    (0, 38000, 65535, "percentile", 255, "0 to 14."), (30000, 65000, 0, "dtype", 0, "117 to 253"),
])  # fmt: skip
@pytest.mark.parametrize("of_them", [0.002, 0.9])
def test_a_value_for_no_data_is_told_where_many_levels_are_left(
    tmp_path, low, high, no_data, value_range, level, others, of_them
):
    rng = np.random.default_rng(1)
    values = rng.uniform(low, high + 1, 128 * 128)
    values[: round(of_them * values.size)] = no_data
    values = values.reshape(128, 128)
    options = {"bits": 32, "sample_format": 3} if no_data < 0 else {"bits": 16}
    if value_range == "file" and no_data < 0:
        options["tags"] = {340: (11, [no_data]), 341: (11, [high])}
    said: list[str] = []
    root = folder(tmp_path, {"a.tif": tiff(np.floor(values), **options)})
    opened(root, value_range, warn=said.append).image(0)
    assert len(said) == 1
    share = f"{100 * of_them:.1f} % of its levels are {level}, and the others {others} of 255. If a value far"
    assert re.search(f"images read have a value far from all others, first all/a.tif: {share}", said[0]), said
    assert ("`value_range: percentile`" in said[0]) is (value_range != "percentile")


def test_no_data_in_colours_of_sixteen_bits_is_told_in_one_line(tmp_path):
    levels = RNG.integers(0, 9999, (64, 64, 3))
    levels[:4] = 65535
    for value_range in ("dtype", "percentile"):
        said: list[str] = []
        opened(folder(tmp_path, {"a.tif": tiff(levels, 16)}), value_range, warn=said.append).image(0)
        assert len(said) == 1
        assert "first all/a.tif: 6.2 % of its levels are 255, and the others 0 to 39 of 255" in said[0]


def test_no_data_in_eight_bits_is_told_where_they_are_spread(tmp_path):
    levels = RNG.integers(90, 141, (64, 64)).astype(np.uint8)
    levels[:2] = 0
    for value_range, count in (("dtype", 0), ("percentile", 1)):
        said: list[str] = []
        opened(folder(tmp_path, {"a.tif": tiff(levels, 8)}), value_range, warn=said.append).image(0)
        assert len(said) == count
    mask = np.where(levels > 120, 255, 0)
    images = opened(folder(tmp_path / "mask", {"a.tif": tiff(mask, 8)}), "percentile", warn=said.append)
    assert set(np.unique(images.image(0)).tolist()) == {0, 255}
    assert len(said) == 1
    assert (
        "far from all others, first all/a.tif: 3.1 % of its levels are 0, and the others 164 to 255 of 255" in said[0]
    )


def test_what_is_white_or_black_in_an_ordinary_image_stands_for_nothing(tmp_path):
    """Antialiased digits and letters, stars, an overexposed photograph, a subject cut out, all of 16 bits."""
    rng = np.random.default_rng(0)
    grid = np.mgrid[:96, :96]
    page, small = Image.new("L", (192, 192), 0), Image.new("L", (112, 112), 0)
    for place, text in enumerate(("white text", "on a dark", "page")):
        ImageDraw.Draw(page).text((10, 10 + 50 * place), text, 255, font=ImageFont.load_default(size=32))
    ImageDraw.Draw(small).text((30, 5), "7", 255, font=ImageFont.load_default(size=90))
    stars = rng.poisson(100, (96, 96)).astype(np.float64)
    for _ in range(60):
        y, x, width = rng.uniform(0, 96), rng.uniform(0, 96), rng.uniform(0.7, 1.8)
        away = (grid[0] - y) ** 2 + (grid[1] - x) ** 2
        stars += 500 * (rng.pareto(1) + 1) * np.exp(-away / (2 * width**2))
    photo = np.asarray(Image.fromarray(rng.integers(0, 256, (12, 12)).astype(np.uint8)).resize((96, 96)))
    disc = Image.fromarray((((grid - 48) ** 2).sum(0) < 900).astype(np.uint8) * 255).resize(
        (48, 48), Image.Resampling.BOX
    )
    part = np.asarray(disc) / 255
    ordinary = {
        "page": np.asarray(page.resize((96, 96), Image.Resampling.BOX)) * 257.0,
        "digit": np.asarray(small.resize((28, 28), Image.Resampling.BOX)) * 257.0,
        "stars": np.clip(stars * 8, 0, 65535),
        "photo": np.clip(photo * 1000.0, 0, 65535),
        "cut out": rng.uniform(1000, 36000, (48, 48)) * part + 65535 * (1 - part),
    }
    said: list[str] = []
    images = opened(folder(tmp_path, {f"{name}.tif": tiff(v, 16) for name, v in ordinary.items()}), warn=said.append)
    for index in range(len(ordinary)):
        assert images.image(index).max() == 255
    assert said == []


def test_values_that_are_no_finite_numbers_are_told_with_their_number(tmp_path):
    values = RNG.normal(size=(32, 32))
    values[0, :3], values[1, :2] = np.nan, (np.inf, -np.inf)
    said: list[str] = []
    file = tiff(values, 32, sample_format=3)
    opened(folder(tmp_path, {"a.tif": file}), "percentile", warn=said.append).image(0)
    assert len(said) == 1
    assert (
        "no finite numbers, first all/a.tif: 3 are no number (NaN) and read as the smallest value, 2 are inf" in said[0]
    )


def test_pages_that_are_not_read_are_told(tmp_path):
    first, *others = [Image.new("L", (8, 8), 90 + number) for number in range(5)]
    first.save(tmp_path / "stack.tif", save_all=True, append_images=others)
    files = {"a.tif": (tmp_path / "stack.tif").read_bytes(), "b.tif": tiff(np.full((8, 8), 90, np.uint8), 8)}
    said: list[str] = []
    images = opened(folder(tmp_path / "stacks", files), warn=said.append)
    assert [int(images.image(index).max()) for index in range(2)] == [90, 90]
    assert len(said) == 1
    assert "1 of 1 images read hold several pages, first all/a.tif: 5; the first one is read; write each" in said[0]


def test_planes_that_a_file_speaks_of_and_has_not_are_told(tmp_path):
    Image.new("L", (8, 8), 90).save(tmp_path / "a.tif", tiffinfo={270: "ImageJ=1.54f\nimages=5\nslices=5\n"})
    said: list[str] = []
    opened(folder(tmp_path / "all", {"a.tif": (tmp_path / "a.tif").read_bytes()}), warn=said.append).image(0)
    (told,) = said
    assert "read say that they are stacks of several planes, first all/a.tif: 5, and have one, which is read;" in told


def test_animations_are_told(tmp_path):
    first, second = (Image.new("RGB", (8, 8), (0, level, 0)) for level in (90, 200))
    first.save(tmp_path / "a.gif", save_all=True, append_images=[second])
    said: list[str] = []
    opened(folder(tmp_path / "all", {"a.gif": (tmp_path / "a.gif").read_bytes()}), warn=said.append).image(0)
    assert len(said) == 1
    assert "1 of 1 images read are animations, first all/a.gif: the first frame is read; write each frame" in said[0]


@pytest.mark.parametrize(("value_range", "advised"), [
    ("dtype", ["`value_range: percentile`", "`file`"]), ("file", ["`value_range: percentile`"]), ("percentile", []),
])  # fmt: skip
@pytest.mark.parametrize("low", [0, 30_000])
def test_no_warning_advises_the_value_range_that_is_there(tmp_path, value_range, advised, low):
    levels = np.where(RNG.random((64, 64)) < 0.0005, 65535, RNG.integers(low, low + 3000, (64, 64))).astype(np.uint16)
    if value_range == "percentile":  # black but for less than it takes for white
        levels = np.full((64, 64), 1, np.uint16)
    said: list[str] = []
    opened(folder(tmp_path, {"a.tif": tiff(levels, 16)}), value_range, warn=said.append).image(0)
    assert len(said) == 1
    assert [words for words in ("`value_range: percentile`", "`file`") if words in said[0]] == advised


@pytest.mark.parametrize("value_range", ["file", "percentile"])
def test_with_the_value_range_that_fits_there_is_nothing_to_tell(tmp_path, value_range):
    said: list[str] = []
    images = opened(folder(tmp_path, twelve(3)), value_range, warn=said.append)
    assert [images.image(index).max() > 200 for index in range(3)] == [True] * 3
    assert said == []


def test_colours_of_sixteen_bits_that_percentile_cannot_spread_well_are_told(tmp_path):
    narrow = RNG.integers(0, 4096, (16, 16, 3)).astype(np.uint16)
    said: list[str] = []
    images = opened(folder(tmp_path, {"a.tif": tiff(narrow, 16)}), "percentile", warn=said.append)
    assert images.image(0).max() == 255
    assert len(said) == 1
    assert "have few levels, first all/a.tif: 16, for of colours with 16 bits the high byte alone is read" in said[0]
    wide = RNG.integers(0, 2**16, (64, 64, 3)).astype(np.uint16)
    opened(folder(tmp_path / "wide", {"a.tif": tiff(wide, 16)}), "percentile", warn=said.append).image(0)
    assert len(said) == 1


def test_many_threads_take_in_images_and_each_is_counted_once():
    said: list[str] = []
    reading = Reading(whose="x", count=64, warn=said.append)
    black = np.zeros((4, 4, 3), np.uint8)

    def read(numbers):
        for number in numbers:
            if reading.asks_for(number):
                reading.take(number, f"{number}.png", black, Losses())

    threads = [threading.Thread(target=read, args=(range(start, 64),)) for start in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    read(range(64))
    # In any order: a thread tells when the lock is free for the others again.
    assert sorted(one.split(" images")[0] for one in said) == ["x: 1 of 1", "x: 64 of 64", "x: 8 of 8"]
    assert len(reading.tally()) == 1
    assert reading.tally()[0].startswith("x: 64 of 64 images read are almost black")
    assert "Are they masks, whose values are numbers of objects or classes, take them out" in reading.tally()[0]
    assert not any(map(reading.asks_for, range(64)))


def test_the_survey_looks_at_some_images_for_what_is_lost_and_their_common_side(tmp_path):
    root = folder(tmp_path / "dark", twelve(40))
    entry = survey("own", ImageFolderSource(format="image_folder", root=root), lambda said: None)
    assert entry.fault is None
    assert entry.image_size == 8
    assert [note for note in entry.notes if "32 of 32 images read hold 12 bits" in note] == entry.notes
    make_split(tmp_path / "sides/train", 6, {2})
    source = ImageFolderSource(format="image_folder", root=tmp_path / "sides")
    entry = survey("own", source, lambda said: None)
    (note,) = entry.notes
    assert "1 of 6 images looked at cannot be read, first class-2/002.png: it is no JPEG, PNG, " in note
    assert entry.image_size == 8
    Image.new("RGB", (9, 8), "white").save(tmp_path / "sides/train/class-0/other.png")
    assert survey("own", source, lambda said: None).image_size is None


def test_a_run_says_what_it_loses_and_does_not_go_on_with_another_value_range(tmp_path):
    root = folder(tmp_path / "data", twelve(40))
    spec = runs.spec(data={"name": "own"}, epochs=2, batch_size=20)

    def run(attempt, value_range):
        context = runs.context(tmp_path / "run", attempt)
        source = ImageFolderSource(format="image_folder", root=root, value_range=value_range)
        context.inputs["data"] = {"own": source.model_dump(mode="json")}
        return pretrain(spec, context)

    first = run(1, "dtype")
    assert isinstance(first, Outcome)
    assert first.outcome == "ok"
    warnings = [event.data["message"] for event in runs.events(tmp_path / "run", kind="warning")]
    assert any("40 of 40 images read hold 12 bits a sample" in said for said in warnings)
    with pytest.raises(DataError, match="`value_range`"):
        run(2, "file")
    facts = [event.data["value_range"] for event in runs.events(tmp_path / "run", kind="started")]
    assert facts == ["dtype"]
