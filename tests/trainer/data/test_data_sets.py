"""Data sets by name: what they hold, and that they are always the same."""

import hashlib

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from trainer.data import registry
from trainer.data.datasets import ArrayDataSet, FirstLabelledImages
from trainer.data.errors import DataError
from trainer.data.generated.textures import CLASSES, SIDE, texture
from trainer.data.registry import open_data_set


@pytest.mark.parametrize(("name", "train", "test", "classes", "side"), [
    ("digits", 1437, 360, 10, 8),
    ("textures", 4000, 1000, 8, 32),
])  # fmt: skip
def test_built_in_sets_have_the_documented_shape(name, train, test, classes, side):
    for split, count in (("train", train), ("test", test)):
        data = open_data_set(name, split)
        assert len(data) == count
        assert len(data.classes) == classes
        assert data.labels().shape == (count,)
        assert data.labels().dtype == np.int64
        assert sorted(set(data.labels().tolist())) == list(range(classes))
        for index in (0, 1, count - 1):
            assert data.image(index).shape == (side, side, 3)
            assert data.image(index).dtype == np.uint8
            assert data.label(index) == data.labels()[index]


@pytest.mark.parametrize("name", ["digits", "textures"])
def test_splits_share_no_image(name):
    train, test = ({data.image(i).tobytes() for i in range(len(data))} for data in _splits(name))
    assert not train & test


@pytest.mark.parametrize("name", ["digits", "textures"])
def test_any_beginning_of_a_split_holds_every_class(name):
    data = open_data_set(name, "train")
    assert set(data.labels()[:100].tolist()) == set(range(len(data.classes)))


def test_digits_are_the_digits_of_scikit_learn():
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    source = load_digits()
    levels = np.rint(source.images * 255 / 16).astype(np.uint8)
    known = {(image.tobytes(), int(digit)) for image, digit in zip(levels, source.target, strict=True)}
    train, test = _splits("digits")
    for data in (train, test):
        assert all(
            (data.image(i)[..., channel].tobytes(), data.label(i)) in known for i in range(50) for channel in range(3)
        )
        shares = np.bincount(data.labels()) / len(data)
        np.testing.assert_allclose(shares, np.bincount(source.target) / 1797, atol=0.003)
    assert max(train.image(i).max() for i in range(20)) == 255
    split = train_test_split(np.arange(1797), test_size=360, random_state=0, stratify=source.target)
    for data, chosen in zip((train, test), split, strict=True):
        images = np.stack([data.image(i)[..., 0] for i in range(len(data))])
        np.testing.assert_array_equal(images, levels[chosen])
        np.testing.assert_array_equal(data.labels(), source.target[chosen])


PINNED = "150c23bc6bc42d79615c9452aad24bee38818412f23cf1ec4e8447f348de5837"


def test_texture_depends_on_seed_and_index_alone():
    data = open_data_set("textures", "train")
    backwards = [texture(0, index) for index in (3999, 17, 0)]
    for index, image in zip((3999, 17, 0), backwards, strict=True):
        np.testing.assert_array_equal(data.image(index), image)
    assert not np.array_equal(texture(0, 17), texture(1, 17))
    assert np.bincount(data.labels()).tolist() == [500] * len(CLASSES)


def test_the_textures_are_pinned():
    """A change of this digest makes all earlier results incomparable: it must be meant."""
    pixels = b"".join(texture(0, index).tobytes() for index in range(64))
    assert hashlib.sha256(pixels).hexdigest() == PINNED


def test_texture_families_are_told_apart_by_structure():
    """Energy of the image's differences says what the family says: direction of stripes, grain of noise."""

    def differences(name):
        images = np.stack([texture(0, i) for i in range(CLASSES.index(name), 800, 8)]).astype(np.float64)
        # The channel that the pattern's colour moves most.
        strongest = images.var(axis=(1, 2)).argmax(axis=1)
        grey = np.stack([image[..., channel] for image, channel in zip(images, strongest, strict=True)])
        along_x, along_y = (np.diff(grey, axis=axis).reshape(len(grey), -1).var(axis=1) for axis in (2, 1))
        return np.median(along_x / along_y), np.median((along_x + along_y) / grey.reshape(len(grey), -1).var(axis=1))

    assert differences("vertical stripes")[0] > 2 > 0.5 > differences("horizontal stripes")[0]
    assert 0.6 < differences("diagonal stripes")[0] < 1.6
    assert differences("fine noise")[1] > 2 * differences("coarse noise")[1]
    assert texture(0, 0).shape == (SIDE, SIDE, 3)


def test_colours_of_textures_say_nothing_of_the_class():
    """Nearest class mean of colour mean and spread per channel stays near the chance of 1/8."""
    (train, y), (test, truth) = ((_moments(data), data.labels()) for data in _splits("textures"))
    centres = np.stack([train[y == c].mean(axis=0) for c in range(8)])
    found = ((test[:, None] - centres) ** 2).sum(axis=2).argmin(axis=1)
    assert (found == truth).mean() < 0.25


def test_raw_pixels_of_textures_are_near_chance():
    (train, y), (test, truth) = ((_pixels(data), data.labels()) for data in _splits("textures"))
    similarity, nearest = (test @ train.T).topk(20)
    votes = torch.zeros(len(test), 8).scatter_add_(1, torch.from_numpy(y)[nearest], (similarity / 0.07).exp())
    assert (votes.argmax(dim=1).numpy() == truth).mean() < 0.25


def test_fingerprint_is_of_the_content():
    images = np.zeros((4, 2, 2, 3), np.uint8)
    labels = np.arange(4)
    base = ArrayDataSet(images, labels, ("a", "b", "c", "d")).fingerprint
    assert ArrayDataSet(images.copy(), labels.copy(), ("a", "b", "c", "d")).fingerprint == base
    changed = images.copy()
    changed[3, 1, 1, 2] = 1
    assert ArrayDataSet(changed, labels, ("a", "b", "c", "d")).fingerprint != base
    assert ArrayDataSet(images, labels[::-1], ("a", "b", "c", "d")).fingerprint != base
    assert ArrayDataSet(images, labels, ("a", "b", "c", "e")).fingerprint != base
    train, test = _splits("digits")
    assert train.fingerprint != test.fingerprint


def test_limit_keeps_the_first_images():
    whole = open_data_set("textures", "train")
    part = open_data_set("textures", "train", limit=10)
    assert len(part) == 10
    np.testing.assert_array_equal(part.labels(), whole.labels()[:10])
    np.testing.assert_array_equal(part.image(9), whole.image(9))
    assert part.fingerprint != whole.fingerprint
    with pytest.raises(IndexError):
        part.image(10)
    assert open_data_set("textures", "train", limit=4000).fingerprint == whole.fingerprint
    assert FirstLabelledImages(whole, 10).fingerprint == part.fingerprint


@pytest.mark.parametrize(("name", "split", "message"), [
    ("texture", "train", "did you mean 'textures'"),
    ("imagenet21k", "train", "known: digits, textures"),
    ("digits", "tset", "did you mean 'test'"),
    ("digits", "validation", "known: train, test"),
])  # fmt: skip
def test_unknown_names_are_answered_with_the_known_ones(name, split, message):
    with pytest.raises(DataError, match=message):
        open_data_set(name, split)


def test_a_limit_of_nothing_is_refused():
    with pytest.raises(DataError, match="at least 1"):
        open_data_set("digits", "train", limit=0)


def test_a_registered_set_opens_by_its_name_and_a_name_is_registered_once(monkeypatch):
    monkeypatch.setattr(registry, "_registered", registry.registered_data_sets())
    opened = []

    def opener(split, tick):
        opened.append(split)
        return ArrayDataSet(np.zeros((1, 2, 2, 3), np.uint8), np.zeros(1, np.int64), ("only",))

    registry.register("mine", opener, splits=("train",), description="one black image")
    assert len(open_data_set("mine", "train")) == 1
    assert opened == ["train"]
    with pytest.raises(ValueError, match="registered twice"):
        registry.register("mine", opener, splits=("train",), description="again")


def _splits(name):
    return open_data_set(name, "train"), open_data_set(name, "test")


def _all_images(data):
    return np.stack([data.image(i) for i in range(len(data))]).astype(np.float32)


def _moments(data):
    images = _all_images(data)
    return np.concatenate([images.mean(axis=(1, 2)), images.std(axis=(1, 2))], axis=1)


def _pixels(data):
    return normalize(torch.from_numpy(_all_images(data) / 255 - 0.45).flatten(1), dim=1)
