"""Spec files as users write them, and the ones that try to do harm."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from barlow_lab.specs import PretrainSpec, SpecError, load_spec_file, parse_spec
from barlow_lab.specs.files import MAX_BYTES


def load(folder: Path, text: str | bytes, name: str = "spec.yaml") -> Any:
    path = folder / name
    path.write_bytes(text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text)
    return load_spec_file(path)


def refused(folder: Path, text: str | bytes, name: str = "spec.yaml") -> str:
    with pytest.raises(SpecError) as caught:
        load(folder, text, name)
    (fault,) = caught.value.faults
    assert fault.pointer == ""
    assert name in fault.message
    assert len(fault.message) < 500
    return fault.message


@pytest.mark.parametrize("written", ["3e-3", "3.0e-3", "0.003", "3E-03", ".003", "+3e-3", "'3e-3'"])
def test_a_rate_is_a_number_however_it_is_written(tmp_path: Path, written: str) -> None:
    text = (
        f"kind: pretrain\ndata: {{name: digits}}\noptimizer: {{name: adamw, learning_rate: {written}}}\nepochs: 1e2\n"
    )
    spec = parse_spec(load(tmp_path, text))
    assert isinstance(spec, PretrainSpec)
    assert spec.optimizer.learning_rate == 3e-3
    assert spec.epochs == 100


def test_plain_scalars_follow_yaml_1_2(tmp_path: Path) -> None:
    text = (
        "a: [1, -2, 0, 1.5, 1e3, -1.E2, .5, .inf]\nb: [true, False, null, ~, ]\n"
        "c: [on, yes, 2026-01-01, 1_000, 12:30:00, 0x1f, 010, '1', e5, nan]\nd:\n"
    )
    assert load(tmp_path, text) == {
        "a": [1, -2, 0, 1.5, 1000.0, -100.0, 0.5, float("inf")],
        "b": [True, False, None, None],
        "c": ["on", "yes", "2026-01-01", "1_000", "12:30:00", "0x1f", "010", "1", "e5", "nan"],
        "d": None,
    }


def test_json_and_yaml_say_the_same(tmp_path: Path) -> None:
    text = '\ufeff{\n\t"kind": "pretrain", "name": "x", "epochs": 1e1, "label": "\\ud83d\\ude00 é"\n}'
    value = load(tmp_path, text, "spec.json")
    assert value == {"kind": "pretrain", "name": "x", "epochs": 10.0, "label": "😀 é"}
    assert load(tmp_path, '{"kind": "pretrain", name: x, "epochs": 1e1, label: 😀 é}') == value


@pytest.mark.parametrize("text", ["", "# nothing\n", "- 1\n- 2\n", "just words", "3"])
def test_a_file_without_an_object_is_refused_by_the_parser(tmp_path: Path, text: str) -> None:
    with pytest.raises(SpecError, match="a spec is an object"):
        parse_spec(load(tmp_path, text))


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("kind: knn\nk: 5\nk: 20\n", "line 3"),
        ("kind: knn\ndata:\n  name: digits\n  name: textures\n", "line 4"),
        ("run: {labels: {a: x, a: x}}\n", "line 1"),
        ("runs:\n- {k: 1}\n- {k: 1, 'k': 2}\n", "line 3"),
    ],
)
def test_a_repeated_key_is_refused_with_its_line(tmp_path: Path, text: str, line: str) -> None:
    message = refused(tmp_path, text)
    assert "stands twice" in message
    assert line in message


def test_a_repeated_key_in_json_is_refused(tmp_path: Path) -> None:
    assert "'k' stands twice" in refused(tmp_path, '{"run": {"k": 1, "k": 1}}', "spec.json")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("spec.yaml", "a: [1, 2"),
        ("spec.yaml", "a: 1\n b: 2\n"),
        ("spec.yaml", "a: \x00"),
        ("spec.yaml", b"a: \xff\xfe"),
        ("spec.yaml", "a: *nowhere"),
        ("spec.yaml", "a: 1\n---\nb: 2\n"),
        ("spec.yaml", "a: !!python/object/apply:os.system ['true']"),
        ("spec.yaml", "? [1, 2]\n: 3\n"),
        ("spec.yaml", "a: 1" + "0" * 5000),
        ("spec.yaml", "a: !!int ''"),
        ("spec.yaml", "a: !!float ''"),
        ("spec.yaml", "a: !!bool x"),
        ("spec.yaml", "a: !!timestamp x"),
        ("spec.yaml", "a: " + "[" * 20_000),
        ("spec.yaml", "a: " + "[" * 80 + "]" * 80),
        ("spec.yaml", "a: &a {b: *a}"),
        ("spec.json", '{"a": 1'),
        ("spec.json", '{"a": NaN}'),
        ("spec.json", '{"a": 1' + "0" * 5000 + "}"),
        ("spec.json", '{"a": ' + "[" * 100_000),
        ("spec.json", ""),
    ],
)
def test_a_broken_or_hostile_file_is_one_clear_error(tmp_path: Path, name: str, text: str | bytes) -> None:
    refused(tmp_path, text, name)


def test_aliases_are_read_but_a_bomb_of_them_is_not(tmp_path: Path) -> None:
    shared = "jobs:\n  a: {data: &data {name: digits}}\n  b: {data: *data}\n"
    assert load(tmp_path, shared)["jobs"]["b"] == {"data": {"name": "digits"}}
    levels = ["l0: &l0 [x, x, x, x, x, x, x, x, x, x]"]
    levels += [f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 10)}]" for n in range(1, 12)]
    assert "aliases" in refused(tmp_path, "\n".join(levels))


def test_merge_keys_take_in_another_object(tmp_path: Path) -> None:
    text = "a: &a {root: x, k: 1}\nb: {k: 2, <<: *a, text: <<}\nc: {<<: [{root: y}, *a]}\n'<<': *a\n"
    assert load(tmp_path, text) == {
        "a": {"root": "x", "k": 1},
        "b": {"root": "x", "k": 2, "text": "<<"},
        "c": {"root": "y", "k": 1},
        "<<": {"root": "x", "k": 1},
    }
    for value in ("1", "[*a, 1]", "text"):
        said = "line 2: `<<` takes in another object, as `<<: *name`, or a list of such"
        assert said in refused(tmp_path, f"a: &a {{k: 1}}\nb: {{<<: {value}}}\n")
    levels = [
        "l0: &l0 {a: 1, b: 2, c: 3}",
        *(f"l{n}: &l{n} {{<<: [{', '.join([f'*l{n - 1}'] * 9)}]}}" for n in range(1, 12)),
    ]
    assert "aliases" in refused(tmp_path, "\n".join(levels))
    assert "aliases" in refused(tmp_path, "a: &a {<<: *a}\n")


@pytest.mark.parametrize("value", ["!!int 1" + ":1" * 400_000, "!!float 1" + ":1" * 100_000 + ".5", "7" * 4001])
def test_a_number_without_end_is_refused_before_it_is_made(tmp_path: Path, value: str) -> None:
    assert "line 1: a number, or a value with a tag, has over 4,000 characters" in refused(tmp_path, f"seed: {value}\n")


def test_a_large_file_is_not_read_to_its_end(tmp_path: Path) -> None:
    assert "larger than" in refused(tmp_path, b"a" * (MAX_BYTES + 1))
    with pytest.raises(SpecError, match="larger than"):
        load_spec_file(Path("/dev/zero"), from_shell=True)


def test_a_missing_file_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load_spec_file(tmp_path / "none.yaml")
