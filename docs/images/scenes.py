"""Draw scenes of the data set `scenes` with the boxes, masks and classes of their objects.

python docs/images/scenes.py [PICTURE]
"""

import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from trainer.data.generated.scenes import CLASSES, SIDE, scene

ROWS, COLUMNS = 2, 8
COLOURS = ("#ffffff", "#ffe119", "#3cf0ff", "#ff4fd8", "#9dff3c")
"""Of each class."""


def main(picture: Path) -> None:
    figure = Figure(figsize=(10.5, 3.2), dpi=100, layout="constrained")
    axes = figure.subplots(ROWS, COLUMNS)
    for index, axis in enumerate(axes.flat):
        drawn = scene(0, index)
        axis.imshow(drawn.image, interpolation="nearest")
        for place, kind in enumerate(drawn.classes):
            mask = drawn.instances == place + 1
            rows, columns = np.nonzero(mask)
            left, top = columns.min() - 0.5, rows.min() - 0.5
            width, height = columns.max() + 0.5 - left, rows.max() + 0.5 - top
            axis.contour(mask, levels=[0.5], colors="black", linewidths=0.8)
            axis.add_patch(Rectangle((left, top), width, height, fill=False, edgecolor=COLOURS[kind], linewidth=1.6))
        axis.set(xticks=[], yticks=[], xlim=(-1, SIDE), ylim=(SIDE, -1), frame_on=False)
    handles = [
        Patch(facecolor="none", edgecolor=colour, label=name) for colour, name in zip(COLOURS, CLASSES, strict=True)
    ]
    figure.legend(
        handles=handles, loc="outside lower center", ncols=len(CLASSES), facecolor="#707070", labelcolor="white"
    )
    figure.savefig(picture)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "scenes.png"))
