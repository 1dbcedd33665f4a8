"""The information bottleneck objective, of Gaussian embeddings.

    L = log |C_c + eps I| - lambda log |C_Z + eps I|,        lambda = (beta - 1) / beta
    C_c = 1/(2N) sum_b (a_b - b_b)(a_b - b_b)^T,        C_Z = 1/(2N) sum_b (a_b a_b^T + b_b b_b^T)

of the embeddings a_b, b_b of two views of N images of all ranks, each view centred by its own mean (the two are drawn
from different distributions of augmentations), each feature divided by its standard deviation over both.
Source: Zbontar et al. 2021 (arXiv 2103.03230), appendix A, equations 5 to 8.

From (5) to (8). An embedding Z of a distorted image Y of an image X is to tell much of X and little of the distortion:

    (5)  I(Z, Y) - beta I(Z, X)  is minimised
    (6)  = [H(Z) - H(Z|Y)] - beta [H(Z) - H(Z|X)]
         = beta H(Z|X) - (beta - 1) H(Z)                        with H(Z|Y) = 0
    (7)  ~ H(Z|X) - (beta - 1)/beta H(Z)                        divided by beta > 0
    (8)  = 1/2 [ E_X log |C_{Z|X}| - lambda log |C_Z| ] + const,  since H = 1/2 log((2 pi e)^d |C|) of a Gaussian

What is otherwise than written there, and why:

- H(Z|Y) = 0 is right of a discrete entropy alone: from (8) on entropies are differential, where a map without noise has
  H(Z|Y) = -infinity. With noise of variance eps added to Z it is a constant, and eps I stands in both covariances.
- (8) has no least value: z -> s z adds d (1 - lambda) log s^2, and views that agree send its first term to -infinity.
  With features of variance 1 and the floor it lies between d log eps - lambda d log(1 + eps), which no embedding goes
  below, and d log(2 + eps) - lambda [(d - 1) log eps + log(d + eps)].
- Lambda is no free positive constant: it is in (0, 1) for every beta > 1. It is not the lambda of equation 1.
- From two views an image's own covariance has rank 1, and no log-determinant. C_c is the mean over images, and as
  log |E C| >= E log |C| (Jensen; log-det is concave) its term is an upper bound of the first one of (8), and
  `mutual_information` = 1/2 (log |C_Z + eps I| - log |C_c + eps I|), in nats, a lower bound of I(Z, X) of Gaussians.
- The paper does not say that embeddings are centred; C is a covariance, so they are.

Tests: tests/trainer/objectives/test_objectives_bottleneck.py, and for several ranks tests/support/rank_laws.py.
Shape suffixes: 2 views, N images of all ranks, n of this one, d features.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from barlow_lab.specs.objectives.information_bottleneck import InformationBottleneckSpec
from trainer.objectives.base import Objective, Run, Terms
from trainer.objectives.both_views import LossOfBothViews, keep_gradient
from trainer.objectives.correlation import centred_features, inverse_lengths
from trainer.objectives.log_determinants import bias_of_log_determinant, log_determinant
from trainer.runtime import collectives

PARTS = ("conditional_log_det", "log_det", "mutual_information", "at_floor", "conditional_at_floor")
OF_SHRINKAGE = ("shrinkage", "conditional_shrinkage")


class InformationBottleneck(Objective):
    """The objective as its spec has it, and a count of the steps at which the covariance of embeddings was singular."""

    spec: InformationBottleneckSpec

    def __init__(self, spec: InformationBottleneckSpec) -> None:
        super().__init__(spec)
        self._singular_steps = torch.zeros((), dtype=torch.int64)
        self._is_singular = torch.zeros((), dtype=torch.bool)
        self._run: Run | None = None

    def begin(self, run: Run) -> None:
        self._run = run
        self._singular_steps = self._singular_steps.to(run.device)

    def __call__(self, z_a_nd: Tensor, z_b_nd: Tensor) -> Terms:
        with torch.autocast(z_a_nd.device.type, enabled=False):
            loss, self._is_singular, *parts = _Loss.apply(z_a_nd, z_b_nd, self.spec)
        names = PARTS if self.spec.shrinkage == "none" else (*PARTS, *OF_SHRINKAGE)
        singular_steps = self._singular_steps.to(loss.device) + self._is_singular
        return Terms(loss, {**dict(zip(names, parts, strict=False)), "singular_steps": singular_steps})

    def after_step(self, good: Tensor) -> None:
        self._singular_steps += good & self._is_singular

    def state_dict(self) -> dict[str, Any]:
        return {"singular_steps": self._singular_steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._singular_steps.copy_(state["singular_steps"])

    def concern(self, values: Mapping[str, float]) -> str | None:
        said = [] if self._run is None else [_too_few(self._run.batch_size, self._run.width, self.spec.floor)]
        if values.get("singular_steps"):
            said.append(
                "the covariance of the embeddings was singular: some of their directions have no variance of their own "
                f"(at_floor says how many), and the floor of {self.spec.floor:g} stands for it; singular_steps counts "
                "the steps. Features are constant or depend on each other; a larger batch, fewer features or a higher "
                "lambda leave them more"
            )
        return ". ".join(filter(None, said)) or None


def _too_few(images: int, width: int, floor: float) -> str | None:
    """What a batch of so many images leaves of covariances of this width; None: enough."""
    if 4 * width <= images:
        return None
    bias = bias_of_log_determinant(width, images)
    if bias is None:
        said = (
            f"have rank {images - 1} (of two views of an image) and {2 * images - 2} (of all) at most, so that the "
            f"floor of {floor:g} stands for the rest"
        )
    else:
        said = f"have log-determinants that lie low: by {-bias:.1f} nats where {images} samples are normal, floor aside"
    return (
        f"covariances of {width} features from {images} images {said}; loss and mutual_information do not compare with "
        "those at another batch_size. Four times as many images as features, or objective.shrinkage: oas, leave less"
    )


class _Loss(LossOfBothViews):
    """L, whether C_Z was singular, and the parts; L's gradient is made with it.

    With A, B the standardised views, and P, Q the derivatives of the two log-determinants by C_c and C_Z,

        dL/dA = 1/N [ (A - B) P - lambda A Q ],        dL/dB = 1/N [ (B - A) P - lambda B Q ].

    Through the scale of a feature, s^2 = (|a|^2 + |b|^2) / (2N), goes what lies along it:
    dL/da = 1/s (dL/dA - A h / (2N)), h = <A, dL/dA> + <B, dL/dB> per feature, over all ranks: one collective of d
    numbers. Through the means goes nothing, as all of it is centred.
    """

    @staticmethod
    def forward(ctx: Any, z_a_nd: Tensor, z_b_nd: Tensor, spec: InformationBottleneckSpec) -> tuple[Tensor, ...]:
        centred = centred_features(z_a_nd, z_b_nd)
        views_2nd, images = centred.views_2nd, centred.samples
        dtype = views_2nd.dtype
        squares_d, means_d = centred.squares_2d.sum(0), centred.means_2d.abs().amax(0)
        scales_d = inverse_lengths(squares_d, means_d, 2 * images).mul_(math.sqrt(2 * images))
        views_2nd.mul_(scales_d)
        samples = images if spec.shrinkage == "oas" else None
        apart_nd = views_2nd[0] - views_2nd[1]
        conditional = log_determinant(apart_nd, images, 2 * images, spec.floor, samples=samples)
        total = log_determinant(views_2nd.flatten(0, 1), 2 * images, 2 * images, spec.floor, samples=samples)
        loss = conditional.value - spec.weight * total.value

        gradient_2nd = total.pulls_nd.view_as(views_2nd).mul(-spec.weight / images)
        gradient_2nd[0].add_(conditional.pulls_nd, alpha=1 / images)
        gradient_2nd[1].sub_(conditional.pulls_nd, alpha=1 / images)
        along_d = collectives.all_reduce_((views_2nd * gradient_2nd).sum((0, 1)))
        gradient_2nd.addcmul_(views_2nd, along_d, value=-1 / (2 * images)).mul_(scales_d)
        information = (total.value - conditional.value) / 2
        parts = [conditional.value, total.value, information, total.at_floor, conditional.at_floor]
        parts = [part.to(dtype) for part in (*parts, total.shrinkage, conditional.shrinkage)]
        singular = (total.at_floor >= 1 - 1e-6) | total.failed | conditional.failed
        keep_gradient(ctx, gradient_2nd, z_a_nd, z_b_nd, singular, *parts)
        return loss.to(dtype), singular, *parts
