"""The C4 detector: its form against torchvision's ResNets, what it is drawn from, its masks and targets."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.ops import roi_align

from barlow_lab.specs.common import BackboneSpec
from trainer.models.backbones import build_backbone
from trainer.models.detectors.c4 import C4Detector, DetectorForm
from trainer.models.detectors.regions import Target, mask_targets, paste_masks
from trainer.models.detectors.sampling import Key, KeyedSampler, Part

PAPER = DetectorForm(20, True, (32, 64, 128, 256, 512), (0.5, 1.0, 2.0), 512, 2000, 1000)
SMALL = DetectorForm(2, True, (12, 20, 32), (0.5, 1.0, 2.0), 16, 50, 20)


def _backbone(name: str = "tiny_resnet", stem: str = "small", seed: int = 0) -> nn.Module:
    return build_backbone(BackboneSpec(name=name, stem=stem), seed=seed)


def _detector(form: DetectorForm = SMALL, seed: int = 0, **backbone: object) -> C4Detector:
    return C4Detector(_backbone(**backbone), form, seed=seed, products=None)


def _example(dtype: torch.dtype = torch.float32) -> tuple[list[torch.Tensor], list[Target]]:
    """Two images of different sizes with one object each."""
    generator = torch.Generator().manual_seed(1)
    images = [
        torch.randint(0, 256, (3, *size), generator=generator, dtype=torch.uint8) for size in ((48, 64), (64, 40))
    ]
    targets = []
    for image, box in zip(images, ([8.0, 8.0, 28.0, 30.0], [5.0, 20.0, 30.0, 44.0]), strict=True):
        mask = torch.zeros(1, *image.shape[1:], dtype=torch.uint8)
        mask[0, int(box[1]) : int(box[3]), int(box[0]) : int(box[2])] = 1
        targets.append(Target(torch.tensor([box], dtype=dtype), torch.tensor([1]), mask.__getitem__, (1.0, 1.0)))
    return images, targets


def test_resnet50_has_the_published_c4_shapes():
    detector = _detector(PAPER, name="resnet50", stem="imagenet")
    assert (detector.stride, detector.trunk_width, detector.width) == (16, 1024, 2048)
    assert detector.rpn.anchor_generator.num_anchors_per_location() == [15]
    assert detector.rpn.head.cls_logits.weight.shape == (15, 1024, 1, 1)
    assert detector.rpn.head.bbox_pred.weight.shape == (60, 1024, 1, 1)
    assert detector.regions.box_predictor.cls_score.weight.shape == (21, 2048)
    assert detector.regions.box_predictor.bbox_pred.weight.shape == (84, 2048)
    assert detector.regions.mask_predictor.conv5_mask.weight.shape == (2048, 256, 2, 2)
    assert detector.regions.box_head[1].num_features == 2048, "the extra normalisation after layer 4"
    with torch.no_grad():
        maps = detector.eval().trunk(torch.zeros(1, 3, 96, 64))
        read = detector.regions.box_head(torch.zeros(2, 1024, 14, 14))
        masks = detector.regions.mask_predictor(read)
    assert maps.shape == (1, 1024, 6, 4)
    assert read.shape == (2, 2048, 7, 7)
    assert masks.shape == (2, 21, 14, 14)


@pytest.mark.parametrize(("stem", "stride"), [("imagenet", 16), ("small", 4)])
@pytest.mark.parametrize(("name", "width"), [("tiny_resnet", 64), ("resnet18", 256)])
def test_stems_and_resnets(name: str, width: int, stem: str, stride: int):
    detector = _detector(name=name, stem=stem)
    assert (detector.stride, detector.trunk_width) == (stride, width)
    assert all(module.training for module in detector.modules()), "measuring left a module in evaluation mode"


def test_all_of_the_backbone_is_taken_over_and_trained():
    backbone = _backbone()
    expected = {name: parameter.clone() for name, parameter in backbone.named_parameters()}
    detector = C4Detector(backbone, SMALL, seed=3, products=None)
    ours = {id(parameter): parameter for parameter in detector.parameters()}
    for name, parameter in backbone.named_parameters():
        assert id(parameter) in ours, name
        assert torch.equal(parameter, expected[name]), name
    assert all(parameter.requires_grad for parameter in ours.values())
    images, targets = _example()
    found = detector.losses(images, targets, [Key(0, 1, 0), Key(0, 1, 1)])
    assert list(found) == ["rpn_class", "rpn_box", "class", "box", "mask"]
    sum(mean for mean, _ in found.values()).backward()
    assert not [name for name, parameter in detector.named_parameters() if parameter.grad is None]


def test_what_is_drawn_depends_on_the_seed_alone():
    one, other = _detector(seed=5).drawn_state(), _detector(seed=6).drawn_state()
    torch.manual_seed(99)
    again = _detector(seed=5).drawn_state()
    assert one.keys() == again.keys()
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not torch.equal(
        one["regions.box_predictor.cls_score.weight"], other["regions.box_predictor.cls_score.weight"]
    )
    assert not [name for name in one if name.startswith("trunk") or "layer4" in name]
    assert any(name.startswith("regions.box_head.1.") for name in one)


def test_a_backbone_that_is_no_resnet_is_refused_by_name():
    with pytest.raises(ValueError, match="Tiny has no conv1"):
        C4Detector(build_backbone(BackboneSpec(name="tiny"), seed=0), SMALL, seed=0, products=None)


@pytest.mark.parametrize(("dtype", "products"), [(torch.float64, None), (torch.float32, torch.bfloat16)])
def test_precisions(dtype: torch.dtype, products: torch.dtype | None):
    detector = C4Detector(_backbone(), SMALL, seed=0, products=products).to(dtype)
    images, targets = _example(dtype)
    found = detector.losses(images, targets, [Key(0, 1, 0), Key(0, 1, 1)])
    assert all(mean.dtype == dtype and mean.isfinite() for mean, _ in found.values())
    sum(mean for mean, _ in found.values()).backward()
    detections = detector.eval().detect(images[0], (48, 64))
    assert detections.boxes.dtype == dtype
    assert detections.masks.shape[1:] == (48, 64)


def test_an_image_is_detected_alike_beside_any_other_and_in_its_own_pixels():
    detector = _detector().eval()
    image = _example()[0][0]
    small, large = detector.detect(image, (48, 64)), detector.detect(image, (96, 192))
    assert len(small.boxes)
    torch.testing.assert_close(large.boxes, small.boxes * torch.tensor([3.0, 2.0, 3.0, 2.0]))
    assert torch.equal(small.scores, large.scores)
    assert large.masks.shape[1:] == (96, 192)
    assert int(small.classes.min()) >= 0
    assert int(small.classes.max()) < SMALL.classes


def test_an_image_without_proposals_has_no_detections():
    detector = _detector().eval()
    detector.rpn.score_thresh = 2.0  # above any probability
    found = detector.detect(_example()[0][0], (48, 64))
    assert found.boxes.shape == (0, 4)
    assert found.scores.shape == found.classes.shape == (0,)
    assert found.masks.shape == (0, 48, 64)


def test_an_image_without_objects_teaches_background_alone():
    detector = _detector()
    images, _ = _example()
    none = Target(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), torch.zeros(0, 48, 64).__getitem__, (1, 1))
    found = detector.losses(images[:1], [none], [Key(0, 1, 0)])
    assert found["mask"][1] == 0
    assert not any(found[name][0].detach() for name in ("mask", "box", "rpn_box"))
    assert found["class"][1] == SMALL.rois_per_image
    sum(mean for mean, _ in found.values()).backward()


def test_counts_are_those_of_the_means():
    detector = _detector()
    images, targets = _example()
    found = detector.losses(images, targets, [Key(0, 1, 0), Key(0, 1, 1)])
    assert found["rpn_class"][1] == found["rpn_box"][1] == 512
    assert found["class"][1] == found["box"][1] == 2 * SMALL.rois_per_image
    assert 2 <= found["mask"][1] <= 2 * SMALL.rois_per_image // 4, "each object is a region of its own image"


class TestKeyedSampler:
    LABELS = torch.cat([torch.ones(40), torch.zeros(200), -torch.ones(60)])

    def _drawn(self, *keys: Key, part: Part = Part.ANCHORS) -> list[torch.Tensor]:
        sampler = KeyedSampler(part, 64, 0.25)
        sampler.keys = list(keys)
        positive, negative = sampler([self.LABELS] * len(keys))
        return [torch.stack(pair) for pair in zip(positive, negative, strict=True)]

    def test_numbers_and_kinds(self):
        (drawn,) = self._drawn(Key(0, 1, 2))
        assert drawn.sum(1).tolist() == [16, 48]
        assert (self.LABELS[drawn[0].bool()] == 1).all()
        assert (self.LABELS[drawn[1].bool()] == 0).all()

    def test_few_candidates_are_all_taken(self):
        sampler = KeyedSampler(Part.ANCHORS, 64, 0.25)
        sampler.keys = [Key(0, 1, 2)]
        (positive,), (negative,) = sampler([torch.tensor([1, 0, -1, 0])])
        assert positive.tolist() == [1, 0, 0, 0]
        assert negative.tolist() == [0, 1, 0, 1]
        assert sampler.drawn == 3

    def test_an_image_s_draws_depend_on_its_key_alone(self):
        first, second = self._drawn(Key(0, 1, 2), Key(0, 1, 3))
        torch.rand(1000)
        (alone,) = self._drawn(Key(0, 1, 3))
        assert torch.equal(alone, second)
        assert not torch.equal(first, second)

    @pytest.mark.parametrize("other", [Key(1, 1, 2), Key(0, 2, 2), Key(0, 1, 3)])
    def test_every_part_of_the_key_counts(self, other: Key):
        assert not torch.equal(self._drawn(Key(0, 1, 2))[0], self._drawn(other)[0])

    def test_anchors_and_regions_are_drawn_apart(self):
        assert not torch.equal(self._drawn(Key(0, 1, 2))[0], self._drawn(Key(0, 1, 2), part=Part.REGIONS)[0])

    def test_each_candidate_is_as_likely(self):
        counts = sum(self._drawn(Key(0, step, 0))[0] for step in range(400))
        positive, negative = counts[0][:40] / 400, counts[1][40:240] / 400
        assert (positive - 16 / 40).abs().max() < 0.12  # five standard deviations
        assert (negative - 48 / 200).abs().max() < 0.11


def test_mask_targets_are_cut_out_by_the_box_at_any_scale():
    mask = torch.zeros(1, 20, 40, dtype=torch.uint8)
    mask[0, 5:15, 10:30] = 1
    for across, down in ((1.0, 1.0), (2.0, 3.0)):
        boxes = torch.tensor([[10.0, 5, 30, 15], [0, 5, 20, 15], [31, 0, 40, 20]]) * torch.tensor([across, down] * 2)
        found = mask_targets(
            Target(boxes[:1], torch.tensor([0]), mask.__getitem__, (across, down)), boxes, torch.tensor([0, 0, 0]), 14
        )
        assert (found[0] == 1).all(), "the box is the object's own"
        assert (found[1][:, :7] == 0).all(), "the left half lies beside the object"
        assert (found[1][:, 7:] == 1).all()
        assert (found[2] == 0).all()


def test_mask_targets_of_many_objects_are_made_few_at_once_and_for_matches_alone():
    generator = torch.Generator().manual_seed(2)
    masks = (torch.rand(60, 24, 30, generator=generator) > 0.5).float()
    matched = torch.randint(0, 60, (70,), generator=generator)
    matched[matched == 7] = 8
    corners = torch.rand(70, 2, generator=generator) * 15
    boxes = torch.cat([corners, corners + 1 + torch.rand(70, 2, generator=generator) * 14], dim=1)
    asked: list[int] = []

    def of(places: torch.Tensor) -> torch.Tensor:
        asked.append(len(places))
        assert 7 not in places
        return masks[places]

    found = mask_targets(Target(boxes, matched, of, (1.0, 1.0)), boxes, matched, 14)
    at_once = roi_align(masks[:, None], torch.cat([matched[:, None].float(), boxes], dim=1), (14, 14), aligned=True)
    assert torch.equal(found, (at_once[:, 0] >= 0.5).float())
    assert max(asked) <= 16
    assert sum(asked) == len(matched.unique())


@pytest.mark.parametrize("box", [[10.0, 5.0, 30.0, 15.0], [3.0, 2.0, 17.0, 16.0], [-6.0, -4.0, 8.0, 10.0]])
def test_a_full_mask_is_pasted_as_its_box_clipped_to_the_image(box: list[float]):
    pasted = paste_masks(torch.ones(1, 14, 14), torch.tensor([box]), (20, 40))[0]
    expected = torch.zeros(20, 40, dtype=torch.bool)
    left, top, right, bottom = (max(0, int(side)) for side in box)
    expected[top:bottom, left:right] = True
    assert torch.equal(pasted, expected)


def test_a_disc_comes_back_from_targets_and_pasting():
    rows, columns = np.mgrid[:48, :48] + 0.5
    disc = torch.from_numpy((rows - 24) ** 2 + (columns - 22) ** 2 < 14**2)
    box = torch.tensor([[8.0, 10.0, 36.0, 38.0]])
    target = mask_targets(Target(box, torch.tensor([0]), disc[None].__getitem__, (1, 1)), box, torch.tensor([0]), 14)
    pasted = paste_masks(target, box, (48, 48))[0]
    overlap = (pasted & disc).sum() / (pasted | disc).sum()
    assert overlap > 0.93, overlap


def test_regions_are_pooled_without_a_shift():
    """RoIAlign of aligned corners: a linear ramp is read at the centres of its cells."""
    detector = _detector()
    ramp = torch.arange(16.0).expand(1, 64, 16, 16) * 4 + 2  # the centre of a cell of 4 px, in pixels
    read = detector.regions.box_roi_pool(ramp, [torch.tensor([[14.0, 14.0, 42.0, 42.0]])])
    expected = 14 + 28 * (torch.arange(14) + 0.5) / 14
    torch.testing.assert_close(read[0, 0, 0], expected)


def test_the_box_is_read_from_the_mean_of_layer_4_and_its_normalisation():
    detector = _detector().eval()
    features, box = torch.randn(1, 64, 16, 16), torch.tensor([[4.0, 4.0, 40.0, 40.0]])
    maps, logits, _ = detector.regions._read(features, [box])
    layer4, norm = detector.regions.box_head
    expected = norm(layer4(detector.regions.box_roi_pool(features, [box])))
    torch.testing.assert_close(maps, expected)
    weight, bias = detector.regions.box_predictor.cls_score.weight, detector.regions.box_predictor.cls_score.bias
    torch.testing.assert_close(logits, F.linear(expected.mean((2, 3)), weight, bias))
