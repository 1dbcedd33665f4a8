"""The control file of an attempt: what a worker writes is what the ranks read."""

from pathlib import Path

import pytest

from barlow_lab import stop


@pytest.mark.parametrize("reason", stop.REASONS)
def test_a_request_is_read_as_it_was_made(tmp_path: Path, reason: stop.StopReason) -> None:
    control = tmp_path / "control.json"
    assert stop.read_request(control) is None
    stop.request_stop(control, reason)
    assert stop.read_request(control) == reason
    assert [path.name for path in tmp_path.iterdir()] == ["control.json"]


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '{"stop": "enough"}', '{"stop": ["pause"]}', '{"Stop": "pause"}']
)
def test_what_is_no_request_is_refused(tmp_path: Path, text: str) -> None:
    control = tmp_path / "control.json"
    control.write_text(text)
    with pytest.raises(ValueError):  # noqa: PT011 - in the words of JSON or of ours
        stop.read_request(control)
