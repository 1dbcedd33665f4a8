"""What a path to a backbone is: what inputs.json says of it. Read by the worker and by hand; no torch."""

from __future__ import annotations

import os
from pathlib import Path

from barlow_lab.given_files import checked, inside, read_json
from barlow_lab.run_folder import BACKBONE_CONFIG, BACKBONE_WEIGHTS, CHECKPOINT_MANIFEST, CHECKPOINT_STATE


def backbone_input(path: Path, root: Path | None = None) -> dict[str, str]:
    """A published folder as {"path", "sha256"} and a pretraining's checkpoint folder as {"checkpoint", "sha256"}, each
    with the digest that it names itself by; a file of weights as {"file"}.

    With `root`, below which `path` is, all has {"root"} as well: no file of the folder leads out of it either, now or
    when it is opened.

    Raises:
        ValueError: it is none of them, or leads out of the root.
    """
    bounds = {} if root is None else {"root": str(root.resolve())}
    try:
        path = inside(path, root or Path("/"))
        if not path.is_dir():
            return {"file": str(checked(path, within=root))} | bounds
    except OSError as error:
        raise ValueError(f"{path} is not there" if isinstance(error, FileNotFoundError) else str(error)) from error
    try:
        for kind, name, weights in (
            ("checkpoint", CHECKPOINT_MANIFEST, CHECKPOINT_STATE),
            ("path", BACKBONE_CONFIG, BACKBONE_WEIGHTS),
        ):
            if os.path.lexists(path / name):
                sha256 = str(read_json(path / name, within=root)["sha256"])
                if os.path.lexists(path / weights):  # where it is missing, the trainer says so
                    checked(path / weights, within=root)
                return {kind: str(path), "sha256": sha256} | bounds
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path.name}/{name} does not describe a backbone ({error}); export it again") from error
    raise ValueError(
        f"{path.name} is no file of weights, no published backbone ({BACKBONE_CONFIG} and its weights) and no "
        f"checkpoint folder ({CHECKPOINT_MANIFEST} and its state); give one of them, as the `backbone` folder of a "
        "pretraining"
    )
