"""An order of features in which those that correlate stand beside each other."""

from __future__ import annotations

import numpy as np


def by_clusters(matrix: np.ndarray) -> np.ndarray:
    """A permutation of the d features of a correlation matrix (d, d), so that its clusters are blocks on the diagonal.

    The order in which Prim's algorithm joins the features to the spanning tree of most similarity, max(|C_ij|, |C_ji|):
    each cluster of single linkage is contiguous in it (Bezdek and Hathaway 2002, VAT). It begins at an end of the pair
    that is most similar.
    """
    similarity = np.abs(matrix.astype(np.float32))
    similarity = np.maximum(similarity, similarity.T)
    np.fill_diagonal(similarity, -1)
    first = int(similarity.max(1).argmax())
    order, nearest = [first], similarity[first].copy()
    nearest[first] = -np.inf
    for _ in range(len(similarity) - 1):
        order.append(int(nearest.argmax()))
        nearest = np.maximum(nearest, similarity[order[-1]])
        nearest[order] = -np.inf
    return np.array(order)
