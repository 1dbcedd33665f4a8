"""Files that stand for an image and are none, by their names: what is left of a copy or a download, what lies in a
cloud, backups and locks of programs."""

from __future__ import annotations

import re

from trainer.data.formats.passed_over import ENDINGS, OTHER_IMAGES

_IMAGE = rb"\.(?:%b)" % b"|".join(sorted({*ENDINGS, *OTHER_IMAGES}, reverse=True))
_IMAGE_LIKE = re.compile(_IMAGE + rb"(?![0-9a-z])", re.IGNORECASE)
_MARKS = (
    rb"part|partial|partially|filepart|crdownload|opdownload|download|downloading|aria2|incomplete|unfinished|td|xltd|"
    rb"tmp|temp|bak|backup|old|orig|save|swp|swo|icloud|cloud|cloudf|nextcloud|owncloud|dropbox|onedrive|gdrive|"
    rb"placeholder|lock|!ut|!qb|!sync|bc!|~[0-9]*~"
)
_LEFTOVER = re.compile(_IMAGE + rb"(?:[.\-_](?:%b)[0-9]*|~|#)$" % _MARKS, re.IGNORECASE)


def is_leftover(name: bytes) -> bool:
    """Whether a name is that of an image with an end that programs give to what is none yet, or none any more."""
    if name.startswith(b"."):  # those of rsync end in anything: .x.jpg.AbC123
        return bool(_IMAGE_LIKE.search(name)) and not _ends_as_image(name)
    return not _ends_as_image(name) and bool(_LEFTOVER.search(name))


def _ends_as_image(name: bytes) -> bool:
    # Nearly all names of images end here.
    ending = name[name.rfind(b".") + 1 :].lower()
    return ending in ENDINGS or ending in OTHER_IMAGES
