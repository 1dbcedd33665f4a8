"""The order of the pages; under "Reference" stand those that the code makes."""

from __future__ import annotations

CONTENTS = {
    "Use": (
        "Start here <README>",
        "docs/service",
        "docs/trainer",
        "docs/specs",
        "docs/experiments",
        "docs/data-sets",
        "docs/backbones",
        "docs/http",
        "docs/mlflow",
    ),
    "Methods": (
        "docs/objective",
        "docs/other-objectives",
        "docs/methods",
        "docs/science",
        "docs/diagnostics",
        "docs/evaluation",
        "docs/performance",
        "docs/glossary",
    ),
    "Reference": (),
    "Operate": ("docs/operations", "docs/reliability", "SECURITY", "CHANGELOG"),
    "Change": (
        "docs/architecture",
        "docs/decisions",
        "docs/adding-an-objective",
        "docs/adding-an-evaluation",
        "docs/adding-a-diagnostic",
        "CONTRIBUTING",
    ),
}
