"""What a path to a backbone is: what inputs.json says of it. Read by the worker and by hand; no torch."""

from __future__ import annotations

import json
from pathlib import Path

CONFIG = "config.json"
MANIFEST = "manifest.json"


def backbone_input(path: Path) -> dict[str, str]:
    """A published folder as {"path", "sha256"} and a pretraining's checkpoint folder as {"checkpoint", "sha256"}, each
    with the digest that it names itself by; a file of weights as {"file"}.

    Raises:
        ValueError: it is none of them.
    """
    path = path.resolve()
    if not path.exists():
        raise ValueError(f"{path} is not there")
    if path.is_file():
        return {"file": str(path)}
    try:
        for kind, name in (("checkpoint", MANIFEST), ("path", CONFIG)):
            if (path / name).exists():
                return {kind: str(path), "sha256": str(json.loads((path / name).read_text("utf-8"))["sha256"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path.name}/{name} does not describe a backbone ({error}); export it again") from error
    raise ValueError(
        f"{path.name} is no file of weights, no published backbone ({CONFIG} and its weights) and no checkpoint folder "
        f"({MANIFEST} and its state); give one of them, as the `backbone` folder of a pretraining"
    )
