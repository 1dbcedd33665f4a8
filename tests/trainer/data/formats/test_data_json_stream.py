"""Lists of objects read from a JSON file one at a time: what json.loads reads, wherever the pieces end."""

import hashlib
import json

import pytest

from trainer.data.errors import DataError
from trainer.data.formats import json_stream
from trainer.data.formats.json_stream import JsonLists

VALUE = {
    "info": {"nested": [1, {"images": [{"not": "these"}]}], "text": 'a "quoted" ]}, é'},
    "images": [{"id": 1, "name": "Größe ß\n"}, {"id": -25, "x": [1.5e3, None, True]}, {}],
    "empty": [],
    "number": 1234567890,
    "annotations": [{"id": number, "list": list(range(number % 7))} for number in range(40)],
}


@pytest.mark.parametrize("piece", [1, 2, 7, 64, 1 << 20])
@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("ascii_only", [True, False])
def test_it_reads_what_json_reads_and_knows_where_it_stands(tmp_path, monkeypatch, piece, indent, ascii_only):
    monkeypatch.setattr(json_stream, "PIECE", piece)
    path = tmp_path / "some.json"
    path.write_text(json.dumps(VALUE, indent=indent, ensure_ascii=ascii_only) + "\n", "utf-8")
    raw, ticks = path.read_bytes(), []
    lists = JsonLists(path, lambda: ticks.append(1))
    items = list(lists.items("annotations", "images", "empty"))
    assert [item.value for item in items if item.list == "images"] == VALUE["images"]
    assert [item.value for item in items if item.list == "annotations"] == VALUE["annotations"]
    for item in items:
        assert json.loads(raw[item.start : item.start + item.length]) == item.value
    assert lists.sha256 == hashlib.sha256(raw).hexdigest()
    assert len(ticks) == 43


@pytest.mark.parametrize(("text", "message"), [
    ("", "{ is expected"),
    ("[]", "{ is expected"),
    ('{"images": [{"id": 1}, {"id"', "byte 23"),
    ('{"images": [{"id": 1}', "byte 21: , or ] is expected"),
    ('{"images": [1]}', "an object is expected in 'images'"),
    ('{"images": 1}', "'images' is not a list"),
    ('{"images": []} x', "something stands behind its end"),
    ('{"images" []}', ": is expected"),
    ("{1: []}", "a name is expected"),
    ('{"images": [{"é": }]}', "cannot be read as JSON at byte 12"),
    ('{"other": ' + "[" * 100_000, "cannot be read as JSON at byte 10"),
    ('{"images": [], "other": 1, "other": 2, "images": []}', "'images' is there twice"),
    (b'{"images": [{"a": "\xff"}]}', "cannot be read as JSON"),
])  # fmt: skip
def test_what_is_no_such_json_is_refused_with_its_place(tmp_path, text, message):
    path = tmp_path / "some.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DataError, match=message):
        list(JsonLists(path, lambda: None).items("images"))


def test_the_mark_that_editors_put_before_utf_8_is_passed_over(tmp_path):
    path = tmp_path / "some.json"
    text = b'\xef\xbb\xbf{"images": [{"a": 1}]}'
    path.write_bytes(text)
    (item,) = JsonLists(path, lambda: None).items("images")
    assert (item.value, text[item.start : item.start + item.length]) == ({"a": 1}, b'{"a": 1}')


def test_an_object_of_no_list_is_empty(tmp_path):
    path = tmp_path / "some.json"
    path.write_text(" {} ")
    assert list(JsonLists(path, lambda: None).items("images")) == []
