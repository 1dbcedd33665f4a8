"""Which parameters are decayed and adapted: decided by the type of the module that owns them (DESIGN 7.7)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn
from torch.nn.modules.conv import _ConvNd


@dataclass(frozen=True, slots=True)
class ParameterGroups:
    """`matrices`: weights of linear maps and convolutions. `others`: biases and normalisation parameters."""

    matrices: list[nn.Parameter]
    others: list[nn.Parameter]

    def counts(self) -> dict[str, dict[str, int]]:
        """Tensors and numbers in each group, for the record of the run."""
        groups = {"matrices": self.matrices, "others": self.others}
        return {n: {"tensors": len(g), "parameters": sum(p.numel() for p in g)} for n, g in groups.items()}


def parameter_groups(*models: nn.Module) -> ParameterGroups:
    """Sort the parameters of `models`. Only matrices are decayed and, with LARS, adapted."""
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for model in models:
        for module in model.modules():
            for name, parameter in module.named_parameters(recurse=False):
                is_matrix = isinstance(module, nn.Linear | _ConvNd) and name == "weight"
                (matrices if is_matrix else others).append(parameter)
    return ParameterGroups(matrices, others)
