"""Pretraining: backbone, projector and objective as one fit of the loop."""

from trainer.pretraining.running import pretrain

__all__ = ["pretrain"]
