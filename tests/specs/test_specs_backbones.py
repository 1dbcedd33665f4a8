"""Backbones in a spec: any of torchvision's by name, what each of them can be asked for, and one's own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from barlow_lab.specs import PretrainSpec, SpecError, digest, parse_spec

CODE = "import sys; from barlow_lab.specs import parse_spec; parse_spec({spec!r}); assert 'torch' not in sys.modules"


def faults_of(**fields: Any) -> dict[str, str]:
    with pytest.raises(SpecError) as caught:
        parse_spec({"kind": "pretrain", "data": "digits", **fields})
    return {fault.pointer: fault.message for fault in caught.value.faults}


@pytest.mark.parametrize("name", ["vit_b_16", "convnext_tiny", "densenet121", "mnasnet1_0", "regnet_y_8gf", "tiny"])
def test_networks_of_torchvision_are_known_by_name(name: str) -> None:
    spec = parse_spec({"kind": "pretrain", "data": "digits", "backbone": {"name": name}})
    again = parse_spec(spec.resolved())
    assert again == spec
    assert digest(again) == digest(spec)


@pytest.mark.parametrize(
    ("fields", "pointer", "said"),
    [
        ({"backbone": {"name": "vit_b_61"}}, "/backbone/name", "did you mean 'vit_b_16'?"),
        ({"backbone": {"name": "my_net"}}, "/backbone/name", "entry point group barlow_lab.backbones"),
        ({"backbone": {"name": "vgg11", "stem": "small"}}, "/backbone/stem", "has no small stem; leave stem out"),
        (
            {"backbone": {"name": "vgg11", "zero_init_residual": False}},
            "/backbone/zero_init_residual",
            "leave zero_init_residual out",
        ),
        ({"backbone": {"name": "vit_b_16"}, "views": {"size": 32}}, "/views/size", "use 224"),
        ({"backbone": {"name": "vit_b_16"}, "views": {"size": 384}}, "/views/size", "such as resnet50"),
        ({"backbone": {"name": "inception_v3"}, "views": {"size": 74}}, "/views/size", "75 px or more"),
    ],
)
def test_what_a_backbone_does_not_have_is_refused_with_the_remedy(
    fields: dict[str, Any], pointer: str, said: str
) -> None:
    found = faults_of(**fields)
    assert list(found) == [pointer]
    assert said in found[pointer]


def test_all_that_a_backbone_does_not_have_is_named_at_once() -> None:
    assert set(faults_of(backbone={"name": "vgg11", "stem": "small", "zero_init_residual": False})) == {
        "/backbone/stem",
        "/backbone/zero_init_residual",
    }


def test_an_evaluation_of_an_untrained_backbone_is_held_to_its_image_size() -> None:
    value = {"kind": "knn", "data": "digits", "backbone_from": {"random": 0}, "backbone": {"name": "vit_b_16"}}
    parse_spec(value)
    found = faults_of(**value, images={"size": 64})
    assert list(found) == ["/images/size"]


def test_one_s_own_is_known_where_its_distribution_is_installed_and_is_not_imported(tmp_path: Path) -> None:
    info = tmp_path / "own_nets-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: own-nets\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[barlow_lab.backbones]\nmy_net = a_module_that_is_not_here:Net\n")
    spec = {"kind": "pretrain", "data": "digits", "backbone": {"name": "my_net"}, "views": {"size": 17}}
    paths = f"import sys; sys.path.append({str(tmp_path)!r}); "
    subprocess.run([sys.executable, "-c", paths + CODE.format(spec=spec)], check=True)
    small = {**spec, "backbone": {"name": "my_net", "stem": "small"}}
    refused = subprocess.run([sys.executable, "-c", paths + CODE.format(spec=small)], capture_output=True, text=True)
    assert "my_net has no small stem" in refused.stderr


def test_the_tiny_resnet_is_of_the_resnet_family() -> None:
    backbone = {"name": "tiny_resnet", "stem": "small", "zero_init_residual": False}
    assert PretrainSpec.model_validate({"data": "digits", "backbone": backbone, "views": {"size": 8}})
    assert "did you mean 'tiny_resnet'" in faults_of(backbone={"name": "tiny_resnet18"})["/backbone/name"]


def test_tiny_may_be_told_of_residual_branches_that_it_has_not() -> None:
    """Specs of this version have said so since there was no other backbone without them."""
    assert PretrainSpec.model_validate({"data": "digits", "backbone": {"name": "tiny", "zero_init_residual": False}})
