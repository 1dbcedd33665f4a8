"""Files that others made: regular ones alone, no more than asked for, none outside of its root."""

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from barlow_lab.given_files import RefusedFile, checked, inside, open_regular, read_bytes, read_json, read_text
from barlow_lab.specs import SpecError, load_spec_file


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.relpath(path))  # the name of a socket has 107 bytes at most


ODD: dict[str, tuple[Callable[[Path], None], str]] = {
    "pipe": (os.mkfifo, "a named pipe"),
    "folder": (Path.mkdir, "a folder"),
    "socket": (_socket, "a socket"),
    "device": (lambda path: path.symlink_to("/dev/zero"), "a device"),
}


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize(
    "read",
    [open_regular, checked, lambda path: read_bytes(path, most=10), read_text, read_json, load_spec_file],
)
def test_what_is_no_regular_file_is_refused_by_name_at_once(
    tmp_path: Path, read: Callable[[Path], object], kind: str
) -> None:
    make, said = ODD[kind]
    make(tmp_path / "odd")
    with pytest.raises(RefusedFile, match=f"odd: it is {said}.*, and a regular file is expected"):
        read(tmp_path / "odd")


def test_a_link_to_a_regular_file_is_followed_within_its_root_alone(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "file").write_text("inside")
    (tmp_path / "file").write_text("outside")
    (root / "in").symlink_to("file")
    (root / "out").symlink_to(tmp_path / "file")
    assert read_bytes(root / "in", most=6, within=root) == b"inside"
    assert read_bytes(root / "out", most=7) == b"outside"
    for name in ("out", "../file"):
        with pytest.raises(RefusedFile, match=r"it leads out of .*root; put the file itself there"):
            open_regular(root / name, within=root)
        with pytest.raises(RefusedFile):
            checked(root / name, within=root)
    (root / "circle").symlink_to("circle")
    with pytest.raises(OSError, match="Too many levels"):
        inside(root / "circle", root)
    with pytest.raises(FileNotFoundError):
        checked(root / "none")


def test_reads_have_a_bound_also_where_a_file_names_no_size(tmp_path: Path) -> None:
    (tmp_path / "sparse").touch()
    os.truncate(tmp_path / "sparse", 1 << 40)
    with pytest.raises(RefusedFile, match="sparse: it is larger than 100 bytes"):
        read_bytes(tmp_path / "sparse", most=100)
    assert read_bytes("/proc/self/stat", most=10_000)  # st_size is 0
    with pytest.raises(RefusedFile, match="larger"):
        read_bytes("/proc/self/stat", most=10)


def test_json_that_is_too_deep_is_an_error_in_words(tmp_path: Path) -> None:
    for text in ("[" * 100_000, '{"a":' * 100_000):
        (tmp_path / "deep.json").write_text(text)
        with pytest.raises(ValueError, match="it is nested too deeply"):
            read_json(tmp_path / "deep.json")


def test_a_spec_on_the_command_line_may_come_through_a_pipe_of_the_shell(tmp_path: Path) -> None:
    read, write = os.pipe()
    os.write(write, b"kind: pretrain")
    os.close(write)
    assert load_spec_file(Path(f"/dev/fd/{read}"), from_shell=True) == {"kind": "pretrain"}
    os.close(read)
    with pytest.raises(SpecError, match="larger than"):
        load_spec_file(Path("/dev/zero"), from_shell=True)
