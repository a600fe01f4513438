"""A teacher that follows the student slowly (exponential moving average of parameters).

Only parameters are averaged. Buffers (batch-norm statistics) are the teacher's own: it runs its
own forward passes in the same mode as the student, so with frozen statistics both keep the
start's, and in train mode each collects the statistics of its own activations, as MoCo does.
"""

import copy
from typing import TypeVar

import torch
from torch import nn

M = TypeVar("M", bound=nn.Module)


def frozen_copy(module: M) -> M:
    """A copy with its own memory whose parameters never receive gradients."""
    return copy.deepcopy(module).requires_grad_(False)


@torch.no_grad()
def follow(teacher: nn.Module, student: nn.Module, momentum: float) -> None:
    """Move the teacher: ``teacher <- momentum * teacher + (1 - momentum) * student``.

    Args:
        teacher: Changed in place; same parameters as the student, in the same order.
        student: Not changed.
        momentum: In [0, 1]; 1 leaves the teacher where it is.

    Raises:
        ValueError: If momentum is outside [0, 1].

    Source:
        He et al. 2020, arXiv:1911.05722, Eq. 2.
    """
    if not 0.0 <= momentum <= 1.0:
        raise ValueError(f"momentum must be in [0, 1], got {momentum}; typical: 0.99 to 0.9999.")
    pairs = [
        (own, other)
        for own, other in zip(teacher.parameters(), student.parameters(), strict=True)
        # Stages that do not train are the same in both for ever.
        if other.requires_grad
    ]
    if pairs and momentum < 1.0:
        own, other = (list(side) for side in zip(*pairs, strict=True))
        torch._foreach_lerp_(own, other, 1.0 - momentum)
