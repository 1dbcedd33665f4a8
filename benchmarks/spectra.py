"""What the spectra of a correlation record take on one thread of a CPU, and what a cube law makes of it at N = 2,048.

    python benchmarks/spectra.py [--most 1024]

Seconds of the processor, best of two, so that a machine that is busy with others says about the same. By the N x N dual
all but the first product grows with N^3, and not with d. docs/diagnostics.md quotes it.

Shape suffixes: n samples, d features.
"""

from __future__ import annotations

import argparse
import time

import torch

from trainer.diagnostics.spectra import correlation_spectra, squared_singular_values
from trainer.objectives.correlation import unit_features

SIZES = ((128, 128), (256, 2048), (512, 8192), (1024, 8192), (2048, 8192))
PAPER = 2048


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--most", type=int, default=1024, help="the largest number of images that is measured")
    most = parser.parse_args().most
    torch.set_num_threads(1)
    for samples, features in SIZES:
        if samples > most:
            continue
        views = torch.randn(2, samples, features, generator=torch.Generator().manual_seed(0))
        x_nd, y_nd = unit_features(*views, over_ranks=False)[0]
        spectra = min(_seconds(lambda x=x_nd, y=y_nd: correlation_spectra(x, y, lambda: None)) for _ in range(2))
        health = min(_seconds(lambda x=x_nd: squared_singular_values(x)) for _ in range(2))
        said = f"N {samples:,} d {features:,}: spectra {spectra:.3f} s, health's one {health:.3f} s"
        if features == SIZES[-1][1] and samples < PAPER:
            said += f"; at N {PAPER:,} by the cube {spectra * (PAPER / samples) ** 3:.0f} s"
        print(said, flush=True)


def _seconds(work: object) -> float:
    begun = time.process_time()
    assert callable(work)
    work()
    return time.process_time() - begun


if __name__ == "__main__":
    main()
