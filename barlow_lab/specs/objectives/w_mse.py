"""W-MSE, whitening (Ermolov, Siarohin, Sangineto, Sebe 2021, arXiv 2007.06346)."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from barlow_lab.specs.objectives.base import ObjectiveBase


class WMseSpec(ObjectiveBase):
    """W-MSE: the distance of the two views on the unit sphere, each whitened within sub-batches.

    Values are those of the reference code (htdt/self-supervised): sub-batches of twice the width, one partition of the
    batch a step, no shrinkage.
    """

    implementation: ClassVar[str] = "trainer.objectives.w_mse:WMse"
    memory_words: ClassVar[str] = "b x (5 x batch x d, and of a sub-batch 16 x size x d + 14 x d^2)"

    name: Literal["w_mse"] = Field(description="Which objective this is")
    sub_batch: int | None = Field(
        None,
        ge=3,
        description="Images that are whitened together: more than the last width of the projector, and a divisor of "
        "batch_size; left out: twice the width",
    )
    iterations: int = Field(
        1,
        ge=1,
        le=64,
        description="Partitions of the batch into sub-batches in each step, over which the loss is averaged",
    )
    shrinkage: float = Field(
        0.0, ge=0.0, lt=1.0, description="Of each covariance C to the identity: (1 - shrinkage) C + shrinkage I"
    )

    def sub_batch_of(self, width: int) -> int:
        """Images that are whitened together, of embeddings of `width`."""
        return 2 * width if self.sub_batch is None else self.sub_batch

    def faults(self, *, batch_size: int, width: int) -> dict[str, str]:
        """Sub-batches that do not determine a covariance, or do not fill the batch; equal partitions."""
        size = self.sub_batch_of(width)
        if size == batch_size > width and self.iterations > 1:
            said = (
                f"a sub-batch of {size} is the whole batch, so all partitions are the same; leave iterations out, or "
            )
            return {"iterations": f"{said}take a sub_batch below batch_size"}
        if size > width and batch_size % size == 0:
            return {}
        if size <= width:
            said = f"sub-batches of {size} leave the covariance of {width} features singular, of a rank below {size}"
        else:
            said = f"sub-batches of {size} do not divide batch_size {batch_size}"
        fitting = [each for each in range(width + 1, batch_size + 1) if batch_size % each == 0]
        if not fitting:
            return {
                "sub_batch": f"{said}, and batch_size {batch_size} is not above the width {width}; end "
                f"projector.widths in at most {batch_size // 2}, half of the batch, or raise batch_size to {2 * width}"
            }
        nearest = min(fitting, key=lambda each: abs(each - 2 * width))
        return {"sub_batch": f"{said}; use {nearest}, or another divisor of batch_size above {width}"}

    def as_written_out(self, width: int | None) -> WMseSpec:
        usual = width is not None and self.sub_batch == 2 * width
        return self.model_copy(update={"sub_batch": None}) if usual else self

    def numbers_held(self, *, samples: int, features: int, ranks: int) -> int:
        """Both views of all images and their gradient, and what one sub-batch of both is whitened by."""
        of_sub_batch = 16 * self.sub_batch_of(features) * features + 14 * features**2
        return 5 * samples * features + of_sub_batch
