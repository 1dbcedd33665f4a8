"""Which parameters are decayed and adapted: decided by the type of the module that owns them.

Source: facebookresearch/barlowtwins, main.py, leaves biases and the parameters of batch normalisation out of both by
their one dimension; that would take in what transformers keep in other shapes. Tests:
tests/trainer/optim/test_optim_lars.py.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import nn
from torch.nn.modules.conv import _ConvNd


@dataclass(frozen=True, slots=True)
class ParameterGroups:
    """`matrices`: weights of linear maps, of attention's among them, and of convolutions. `others`: biases, parameters
    of normalisation, and what is added or scaled as it is: class tokens, positions, layer scales. The `constant` ones
    are the same, but their rate does not follow the schedule."""

    matrices: list[nn.Parameter]
    others: list[nn.Parameter]
    constant_matrices: list[nn.Parameter] = field(default_factory=list)
    constant_others: list[nn.Parameter] = field(default_factory=list)

    def beside(self, more: ParameterGroups, *, constant: bool) -> ParameterGroups:
        """With the matrices and others of `more`, as `constant` ones or as such."""
        if constant:
            return ParameterGroups(self.matrices, self.others, more.matrices, more.others)
        return ParameterGroups(self.matrices + more.matrices, self.others + more.others)

    def counts(self) -> dict[str, dict[str, int]]:
        """Tensors and numbers in each group, for the record of the run; constant ones where there are any."""
        groups = {"matrices": self.matrices, "others": self.others}
        constant = {"constant_matrices": self.constant_matrices, "constant_others": self.constant_others}
        groups |= {name: group for name, group in constant.items() if group}
        return {n: {"tensors": len(g), "parameters": sum(p.numel() for p in g)} for n, g in groups.items()}


def parameter_groups(*models: nn.Module) -> ParameterGroups:
    """Sort the parameters of `models` that are trained. Only matrices are decayed and, with LARS, adapted."""
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for model in models:
        for module in model.modules():
            for name, parameter in module.named_parameters(recurse=False):
                if not parameter.requires_grad:
                    continue
                (matrices if _is_matrix(module, name) else others).append(parameter)
    return ParameterGroups(matrices, others)


def _is_matrix(module: nn.Module, name: str) -> bool:
    if isinstance(module, nn.MultiheadAttention):
        return name in ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")
    return isinstance(module, nn.Linear | _ConvNd) and name == "weight"
