"""Files that are called images and are none that is read: what they are, by their first bytes."""

from __future__ import annotations

import re

_CONVERT = "convert it to JPEG or PNG"
_HEIF = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}
_AVIF = {b"avif", b"avis"}
_BEGINNINGS = (
    (re.compile(rb"version https://git-lfs\.github\.com/spec/"), "a pointer of git-lfs: get the file by git lfs pull"),
    (re.compile(rb"(\.\./)*(\.git)?/annex/objects/"), "a pointer of git-annex: get the file by git annex get"),
    (re.compile(rb"\s*<(!doctype )?html", re.IGNORECASE), "a web page, perhaps a server's error: fetch it again"),
    (re.compile(rb"\s*<(\?xml|svg)", re.IGNORECASE), f"XML, perhaps SVG: {_CONVERT}"),
    (re.compile(rb"PK\x03\x04|\x1f\x8b|7z\xbc\xaf|Rar!"), "a packed file: unpack it"),
    (re.compile(rb"%PDF-"), f"a PDF: {_CONVERT}"),
    (re.compile(rb"\0\0\0\x0cJXL |\xff\x0a"), f"JPEG XL: {_CONVERT}"),
    (re.compile(rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51"), f"JPEG 2000: {_CONVERT}"),
    (re.compile(rb"(?s).{128}DICM"), f"DICOM: {_CONVERT}"),
    (re.compile(rb"\x93NUMPY"), f"an array of NumPy: {_CONVERT}"),
    (re.compile(rb"8BPS"), f"a PSD of Photoshop: {_CONVERT}"),
)  # fmt: skip


def said_of_foreign(encoded: bytes) -> str | None:
    """What a file is that is none of the formats that are read, and the remedy; None: that is not known."""
    if encoded[4:8] == b"ftyp":
        return f"{_of_brands(encoded)}: {_CONVERT}"
    known = next((said for beginning, said in _BEGINNINGS if beginning.match(encoded)), None)
    if known is None and not encoded.strip(b"\0"):
        return "zeros alone, as where it was not written to its end: copy it again"
    return known


def _of_brands(encoded: bytes) -> str:
    """What a file of ISO's base media format is, by its brands, the major one first."""
    end = min(int.from_bytes(encoded[:4]), 256)
    brands = [encoded[8:12], *(encoded[at : at + 4] for at in range(16, end, 4))]
    for brand in brands:
        if brand in _AVIF:
            return "AVIF"
        if brand in _HEIF:
            return "AVIF" if _AVIF & set(brands) else "HEIC, as phones save photographs"
    return "a film, or a raw photograph of a camera"
