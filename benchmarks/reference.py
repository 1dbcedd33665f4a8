"""What the trainer is compared with: the step and the input pipeline of facebookresearch/barlowtwins, in our words.

Two views by Pillow in DataLoader workers, as float32 tensors; per-view forwards in contiguous memory; on CUDA float16
autocast with a gradient scaler; the whole correlation matrix, in the dtype that autocast gives it; LARS tensor by
tensor. The arithmetic is that of its main.py at commit 8e8d284 for one rank, written anew. Keyword arguments take one
thing at a time from it to ours: they are the rungs between the two.

Shape suffixes: n samples, d features.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageFilter, ImageOps
from torch import Tensor, nn
from torch.utils.data import DataLoader, RandomSampler
from torchvision import datasets, models, transforms

from trainer.objectives.barlow_twins import barlow_twins
from trainer.optim.groups import parameter_groups
from trainer.optim.lars import Lars

LAMBDA = 0.0051
LARS = {"momentum": 0.9, "weight_decay": 1e-6, "trust_coefficient": 0.001}
AUTOCAST = {"fp16": torch.float16, "bf16": torch.bfloat16}


class TwoViews:
    """One PIL image -> two float32 tensors (3, size, size): the paper's two pipelines (2.2)."""

    def __init__(self, size: int) -> None:
        self._pipelines = [_pipeline(size, blur, solarize) for blur, solarize in ((1.0, 0.0), (0.1, 0.2))]

    def __call__(self, image: Image.Image) -> tuple[Tensor, Tensor]:
        view_a, view_b = (pipeline(image) for pipeline in self._pipelines)
        return view_a, view_b


class _Sometimes:
    """An operation on a PIL image with a probability; the operation draws what else it needs."""

    def __init__(self, probability: float, operation: Callable[[Image.Image], Image.Image]) -> None:
        self._probability = probability
        self._operation = operation

    def __call__(self, image: Image.Image) -> Image.Image:
        return self._operation(image) if random.random() < self._probability else image


def _blurred(image: Image.Image) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(random.uniform(0.1, 2.0)))


def _pipeline(size: int, blur: float, solarize: float) -> transforms.Compose:
    jitter = transforms.ColorJitter(brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1)
    return transforms.Compose(
        [
            transforms.RandomResizedCrop(size, interpolation=transforms.InterpolationMode.BICUBIC),
            transforms.RandomHorizontalFlip(0.5),
            transforms.RandomApply([jitter], p=0.8),
            transforms.RandomGrayscale(0.2),
            _Sometimes(blur, _blurred),
            _Sometimes(solarize, ImageOps.solarize),
            transforms.ToTensor(),
            transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )


def loader(folder: Path, *, batch_size: int, workers: int, size: int, pin_memory: bool) -> DataLoader[Any]:
    """Batches ((view a, view b), labels) of an ImageFolder in random order, without an end.

    So no epoch ends within a measurement: a small data set would have workers start over more often than ImageNet.
    """
    images = datasets.ImageFolder(folder, TwoViews(size))
    order = RandomSampler(images, replacement=True, num_samples=2**40)
    return DataLoader(images, batch_size, sampler=order, num_workers=workers, pin_memory=pin_memory)


class Network(nn.Module):
    """Backbone and projector of the reference, and the affine-free BN over an embedding."""

    def __init__(self, backbone: str, widths: list[int]) -> None:
        super().__init__()
        trunk = models.get_model(backbone, weights=None, zero_init_residual=True)
        wide = [trunk.fc.in_features, *widths]
        trunk.fc = nn.Identity()
        layers: list[nn.Module] = []
        for before, after in pairwise(wide[:-1]):
            layers += [nn.Linear(before, after, bias=False), nn.BatchNorm1d(after), nn.ReLU(inplace=True)]
        layers.append(nn.Linear(wide[-2], wide[-1], bias=False))
        self.backbone = trunk
        self.projector = nn.Sequential(*layers)
        self.standardise = nn.BatchNorm1d(wide[-1], affine=False)

    def forward(self, view: Tensor) -> Tensor:
        embedding: Tensor = self.projector(self.backbone(view))
        return embedding


def direct_loss(x_nd: Tensor, y_nd: Tensor, lambda_: float = LAMBDA) -> Tensor:
    """The loss of two standardised embeddings (N, d) by the whole (d, d) matrix, in place where the reference is."""
    samples, features = x_nd.shape
    matrix = x_nd.T @ y_nd
    matrix.div_(samples)
    on_diagonal = matrix.diagonal().add_(-1).pow_(2).sum()
    # Without its first element the matrix falls into rows of d + 1 whose last column is the diagonal.
    beside = matrix.flatten()[1:].view(features - 1, features + 1)[:, :-1].flatten()
    return on_diagonal + lambda_ * beside.pow_(2).sum()


class LoopLars(torch.optim.Optimizer):
    """LARS as the reference runs it: one tensor after the other; one-dimensional ones by momentum alone."""

    def __init__(self, groups: list[dict[str, Any]]) -> None:
        super().__init__(groups, {"lr": 0.0, **LARS})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    self._move(p, p.grad, group)

    def _move(self, p: Tensor, update: Tensor, group: dict[str, Any]) -> None:
        if p.ndim != 1:
            update = update.add(p, alpha=group["weight_decay"])
            weight, change = torch.norm(p), torch.norm(update)
            one = torch.ones_like(weight)
            ratio = group["trust_coefficient"] * weight / change
            update = update.mul(torch.where(weight > 0, torch.where(change > 0, ratio, one), one))
        state = self.state[p]
        if "velocity" not in state:
            state["velocity"] = torch.zeros_like(p)
        state["velocity"].mul_(group["momentum"]).add_(update)
        p.add_(state["velocity"], alpha=-group["lr"])


class Step:
    """One training step of the reference on one device.

    `precision` is fp16 (autocast and scaler), bf16 (autocast) or fp32; `channels_last`, `dual` (our loss) and `foreach`
    (our LARS) are the rungs.
    """

    def __init__(
        self,
        network: Network,
        device: torch.device,
        *,
        precision: str = "fp16",
        channels_last: bool = False,
        dual: bool = False,
        foreach: bool = False,
        rate: float = 0.2,
        bias_rate: float = 0.0048,
    ) -> None:
        self.network = network.to(device).train()
        self._format = torch.channels_last if channels_last else torch.contiguous_format
        self.network.to(memory_format=self._format)
        self._device = device
        self._precision = precision
        self._dual = dual
        if foreach:
            split = parameter_groups(self.network)
            groups: list[dict[str, Any]] = [
                {"params": split.matrices},
                {"params": split.others, "adapted": False, "weight_decay": 0.0},
            ]
            self.optimizer: torch.optim.Optimizer = Lars(groups, lr=0.0, **LARS)
        else:
            every = list(self.network.parameters())
            groups = [{"params": [p for p in every if p.ndim != 1]}, {"params": [p for p in every if p.ndim == 1]}]
            self.optimizer = LoopLars(groups)
        for group, peak in zip(self.optimizer.param_groups, (rate, bias_rate), strict=True):
            group["lr"] = peak
        self._scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")

    def __call__(self, view_a: Tensor, view_b: Tensor) -> Tensor:
        """One update from two float views (N, 3, S, S); returns the loss, on the device."""
        before, torch.backends.cudnn.benchmark = torch.backends.cudnn.benchmark, True  # as its main.py
        view_a, view_b = (
            view.to(self._device, non_blocking=True).contiguous(memory_format=self._format) for view in (view_a, view_b)
        )
        self.optimizer.zero_grad()
        loss = self.loss(view_a, view_b)
        torch.autograd.backward(self._scaler.scale(loss))
        self._scaler.step(self.optimizer)
        self._scaler.update()
        torch.backends.cudnn.benchmark = before
        return loss.detach()

    def loss(self, view_a: Tensor, view_b: Tensor) -> Tensor:
        """Forward of one view, then of the other, and the loss."""
        network = self.network
        with torch.autocast(
            self._device.type, AUTOCAST.get(self._precision, torch.bfloat16), enabled=self._precision in AUTOCAST
        ):
            z_a, z_b = network(view_a), network(view_b)
            if self._dual:
                return barlow_twins(z_a, z_b, LAMBDA).loss
            return direct_loss(network.standardise(z_a), network.standardise(z_b))
