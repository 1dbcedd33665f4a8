"""Names that machines leave in folders of images: thumbnails and recycle bins of a NAS, forks of macOS, snapshots.

What is in them are copies of images, images that were thrown away, or no images at all. No data set holds them, and
none of them is gone into: a snapshot holds the whole disk once more.
"""

from __future__ import annotations

_FOLDERS = (
    # Synology, QNAP, Buffalo
    "@eaDir", "@tmp", "#recycle", "#snapshot", "@sharebin", "@Recycle", "@Recently-Snapshot", "@__thumb", ".@__thumb",
    ".@upload_cache", "@Transcode", "trashbox",
    # macOS
    "__MACOSX", ".AppleDouble", ".AppleDB", ".AppleDesktop", ".Spotlight-V100", ".Trashes", ".Trash", ".fseventsd",
    ".DocumentRevisions-V100", ".TemporaryItems", "Network Trash Folder", "Temporary Items",
    # Windows
    "$RECYCLE.BIN", "System Volume Information", "FOUND.000",
    # Linux, file servers, and what synchronises or watches folders
    "lost+found", ".thumbnails", ".thumbs", ".thumb", ".snapshot", ".snapshots", "~snapshot", ".zfs", ".recycle",
    ".stversions", ".stfolder", ".dropbox.cache", ".sync", ".picasaoriginals", ".git", ".svn", ".hg", ".dvc",
    ".ipynb_checkpoints",
)  # fmt: skip
_FILES = (
    ".DS_Store", ".localized", "Icon\r", "Thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", ".directory",
    ".nomedia", ".picasa.ini", "Picasa.ini",
)  # fmt: skip
_BY_NAME = {name.lower().encode(): name for name in (*_FOLDERS, *_FILES)}
_BY_BEGINNING = {
    b"._": "._* (macOS)",
    b".trash-": ".Trash-*",
    b".nfs0": ".nfs*",
    b"thumbs.db:": "Thumbs.db",
}
_BY_END = {b"@synoeastream": "*@SynoEAStream", b"@synoresource": "*@SynoResource"}


def system_name(name: bytes) -> str | None:
    """What a machine calls a file or folder of this name, whatever its capitals; None: it is a person's own."""
    lowered = name.lower()
    if found := _BY_NAME.get(lowered):
        return found
    # Nearly all names of images end here.
    if lowered[:1] not in (b".", b"t") and b"@" not in lowered:
        return None
    for beginning, said in _BY_BEGINNING.items():
        if lowered.startswith(beginning):
            return said
    return next((said for end, said in _BY_END.items() if lowered.endswith(end)), None)
