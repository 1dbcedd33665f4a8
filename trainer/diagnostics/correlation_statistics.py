"""One cross-correlation matrix in numbers, by tiles of its rows: a matrix beyond d = 1024 never exists as a whole.

Shape suffixes: 2 views, n samples of this rank, d features, r rows of a tile, b blocks of a picture's side.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from trainer.diagnostics.spectra import correlation_spectra
from trainer.evaluation.view_moments import Rows
from trainer.objectives.correlation import unit_features

FULL_UP_TO = 1024
BLOCKS = 256
BINS = 41
SCALED_BINS, SCALED_EDGE = 65, 8.125
TOP_PAIRS = 10
TILE = 2**22
"""Numbers in a tile, unless a single row of blocks holds more: 16 MiB of float32."""


@dataclass(frozen=True, slots=True)
class CorrelationStatistics:
    """What is kept of C (d, d) of `samples` samples; arrays on the host.

    `row_energy_d` is the sum over j != i of C_ij^2, `asymmetry` that of (C_ij - C_ji)^2 over all i, j. `histogram`
    counts the off-diagonal entries in 41 bins between -1 and 1, `scaled_histogram` them times the root of N - 1 in 65
    bins between -8.125 and 8.125 (what is beyond is in the outer ones): those of independent features have a deviation
    of 1 there. `spectra` are those of trainer.diagnostics.spectra. `top_pairs` are the largest entries by absolute
    value (i, j, C_ij); `dead` are the features whose row and column are 0. `full_dd` is C in float16 up to d = 1024 or
    where the whole is asked for, else None; beyond 1024 `blocks` holds mean, rms and maximum (of absolute values) of
    256 x 256 blocks of C, its diagonal included.
    """

    samples: int
    diagonal_d: np.ndarray
    row_energy_d: np.ndarray
    asymmetry: float
    histogram: np.ndarray
    scaled_histogram: np.ndarray
    spectra: dict[str, np.ndarray]
    top_pairs: list[tuple[int, int, float]]
    dead: np.ndarray
    full_dd: np.ndarray | None
    blocks: dict[str, np.ndarray]


def correlation_statistics(
    z_a_nd: Tensor, z_b_nd: Tensor, tick: Callable[[], None], *, keep_whole: bool = False
) -> CorrelationStatistics:
    """C of the embeddings of two views, (N, d) of the whole batch, on their device; `tick` is called after each tile.
    `keep_whole`: C itself also beyond d = 1024, on the host.

    Raises:
        ValueError: the two shapes differ, or there is a single sample.
    """
    unit_2nd, _ = unit_features(z_a_nd, z_b_nd, over_ranks=False)
    x_nd, y_nd = unit_2nd

    def rows(start: int, stop: int) -> tuple[Tensor, Tensor]:
        # C_ji as a product of its own: the difference of two sums over C would lose what little asymmetry there is.
        return x_nd[:, start:stop].mT @ y_nd, y_nd[:, start:stop].mT @ x_nd

    return matrix_statistics(
        rows, samples=x_nd.shape[0], features=x_nd.shape[1], device=x_nd.device, tick=tick, keep_whole=keep_whole,
        spectra=lambda: correlation_spectra(x_nd, y_nd, tick),
    )  # fmt: skip


def matrix_statistics(
    rows: Rows,
    *,
    samples: int,
    features: int,
    device: torch.device,
    tick: Callable[[], None],
    keep_whole: bool = False,
    spectra: Callable[[], dict[str, np.ndarray]] = dict,
) -> CorrelationStatistics:
    """The same of a matrix of so many `samples` and `features` that `rows` gives tile by tile, each a tensor that may
    be written over; `spectra` are asked for when the tiles are done."""
    whole = features <= FULL_UP_TO
    starts = _block_starts(features)
    diagonal, energy, pairs, alive, full, blocks = [], [], [], [], [], []
    deviations = (samples - 1) ** 0.5
    scaled = torch.zeros(SCALED_BINS, dtype=torch.int64, device=device)
    histogram = torch.zeros(BINS, dtype=torch.int64, device=device)
    asymmetry = torch.zeros((), dtype=torch.float64, device=device)
    alive_columns = torch.zeros(features, dtype=torch.bool, device=device)
    for first, last in [(0, BLOCKS)] if whole else _tiles(features):
        start, stop = starts[first], starts[last]
        tile, transposed = rows(start, stop)
        asymmetry += (tile - transposed).square().sum(dtype=torch.float64)
        alive.append(tile.any(1))
        alive_columns |= tile.any(0)
        if whole or keep_whole:
            full.append(tile.half().cpu())
        if not whole:
            blocks.append(_blocks(tile, starts, first, last))
        on_diagonal = tile.diagonal(start)
        diagonal.append(on_diagonal.clone())
        on_diagonal.zero_()
        energy.append(tile.square().sum(1, dtype=torch.float64))
        histogram += torch.histc(tile.clamp(-1, 1), bins=BINS, min=-1, max=1).long()
        histogram[BINS // 2] -= stop - start  # the zeros on the diagonal
        in_deviations = (tile * deviations).clamp(-SCALED_EDGE, SCALED_EDGE)
        scaled += torch.histc(in_deviations, bins=SCALED_BINS, min=-SCALED_EDGE, max=SCALED_EDGE).long()
        scaled[SCALED_BINS // 2] -= stop - start
        places = tile.abs().flatten().topk(min(TOP_PAIRS, tile.numel())).indices
        pairs.append(torch.stack([places.double() + start * features, tile.flatten()[places].double()]))
        tick()
    dead = ~(torch.cat(alive) | alive_columns)
    return CorrelationStatistics(
        samples=samples,
        diagonal_d=torch.cat(diagonal).cpu().numpy(),
        row_energy_d=torch.cat(energy).cpu().numpy(),
        asymmetry=float(asymmetry),
        histogram=histogram.cpu().numpy(),
        scaled_histogram=scaled.cpu().numpy(),
        spectra=spectra(),
        top_pairs=_ranked(torch.cat(pairs, 1).cpu().numpy(), features),
        dead=np.flatnonzero(dead.cpu().numpy()),
        full_dd=torch.cat(full).numpy() if full else None,
        blocks={} if whole else _joined(blocks, starts),
    )


def _block_starts(features: int) -> list[int]:
    """Where each block of rows begins, and where the last one ends."""
    return [block * features // BLOCKS for block in range(BLOCKS + 1)]


def _tiles(features: int) -> list[tuple[int, int]]:
    """First and last (not in it) block of rows of each tile."""
    each = max(1, TILE * BLOCKS // features**2)
    return [(first, min(first + each, BLOCKS)) for first in range(0, BLOCKS, each)]


def _blocks(tile: Tensor, starts: list[int], first: int, last: int) -> Tensor:
    """Sum, sum of squares and largest absolute value of the blocks in a tile: (3, last - first, 256)."""
    columns, rows = _members(starts, tile.device), _members(starts[first : last + 1], tile.device)
    rows = (rows[0] - starts[first], rows[1])
    return torch.stack(
        [_sums(_sums(values, columns).mT, rows).mT for values in (tile, tile.square())]
        + [_maxima(_maxima(tile.abs(), columns).mT, rows).mT]
    )


def _members(starts: list[int], device: torch.device) -> tuple[Tensor, Tensor]:
    """Indices of each block's members, (blocks, k), and which count: the last of a smaller block stands twice."""
    edges = torch.tensor(starts, device=device)
    sizes = edges.diff()[:, None]
    place = torch.arange(max(b - a for a, b in pairwise(starts)), device=device)
    return edges[:-1, None] + place.minimum(sizes - 1), place < sizes


def _sums(values_rd: Tensor, members: tuple[Tensor, Tensor]) -> Tensor:
    return (values_rd[:, members[0]] * members[1]).sum(2)


def _maxima(values_rd: Tensor, members: tuple[Tensor, Tensor]) -> Tensor:
    return values_rd[:, members[0]].amax(2)


def _joined(blocks_of_tiles: list[Tensor], starts: list[int]) -> dict[str, np.ndarray]:
    sums, squares, maxima = torch.cat(blocks_of_tiles, 1).cpu().numpy()
    sizes = np.diff(starts)
    sizes_bb = sizes[:, None] * sizes
    return {"mean": sums / sizes_bb, "rms": np.sqrt(squares / sizes_bb), "maximum": maxima}


def _ranked(candidates: np.ndarray, features: int) -> list[tuple[int, int, float]]:
    """The largest of the candidates (places, values), by absolute value and then by place; 0 is none."""
    places, values = candidates
    order = np.lexsort((places, -np.abs(values)))[:TOP_PAIRS]
    return [(*divmod(int(places[k]), features), float(values[k])) for k in order if values[k] != 0]
