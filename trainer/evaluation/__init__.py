"""Frozen backbones judged on labelled images, one file per protocol family."""

from trainer.evaluation.running import run_evaluation

__all__ = ["run_evaluation"]
