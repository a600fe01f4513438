"""Optimisers and learning rates. A rate is a function of progress, so resume needs no scheduler."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import Optimizer

from fieldmark.errors import ConfigError
from fieldmark.nn.schedules import cosine, steps, warm_up
from fieldmark.training.config import TrainConfig
from fieldmark.types import Progress


def parameter_groups(module: nn.Module, config: TrainConfig) -> list[dict[str, Any]]:
    """Trainable parameters by learning-rate ratio and weight decay.

    A submodule may say more about its own with ``parameter_groups() -> [{"params", "lr_ratio",
    "decay", "name"}]``, as backbones do; everything else has ratio 1 and decays unless it is a
    bias or a scale (one axis).

    Raises:
        ConfigError: If nothing trains.
    """
    settings: dict[int, tuple[float, bool]] = {}
    for part in module.modules():
        groups_of = getattr(part, "parameter_groups", None)
        if part is not module and callable(groups_of):
            for group in groups_of():
                for parameter in group["params"]:
                    settings[id(parameter)] = (float(group["lr_ratio"]), bool(group["decay"]))
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for parameter in module.parameters():
        if parameter.requires_grad:
            ratio, decays = settings.get(id(parameter), (1.0, parameter.ndim > 1))
            key = (ratio, decays or config.decay_bias_and_norm)
            groups.setdefault(key, []).append(parameter)
    if not groups:
        raise ConfigError(
            "nothing trains: every parameter is frozen (backbone.train_from_stage is beyond the "
            "last stage and the method has no head); lower backbone.train_from_stage."
        )
    return [
        {
            "params": parameters,
            "lr_ratio": ratio,
            "weight_decay": config.weight_decay if decays else 0.0,
            # LARS leaves biases and scales alone, adaptation included.
            "adapt": decays,
        }
        for (ratio, decays), parameters in sorted(groups.items(), key=lambda item: item[0])
    ]


def build_optimizer(module: nn.Module, config: TrainConfig) -> Optimizer:
    """The optimiser for a method's trainable parameters."""
    groups = parameter_groups(module, config)
    device = groups[0]["params"][0].device
    # One kernel for all parameters, where the library has it.
    fused = device.type in {"cpu", "cuda"}
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, fused=fused)
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, fused=fused)
    if config.optimizer == "adam":
        return torch.optim.Adam(groups, lr=config.lr, betas=config.betas, fused=fused)
    return LARS(groups, lr=config.lr, momentum=config.momentum)


class LARS(Optimizer):
    """SGD with momentum whose step is scaled per weight to a share of the weight's norm.

    Args:
        params: Parameters or groups; a group with ``adapt=False`` is plain SGD without decay.
        lr: Learning rate.
        momentum: Momentum of the scaled gradient.
        trust: Length of a step relative to the weight, before the learning rate.

    Source:
        You, Gitman and Ginsburg 2017, arXiv:1708.03888; form of MoCo v3: weight decay is added to
        the gradient before its norm is taken.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        trust: float = 0.001,
    ) -> None:
        super().__init__(
            params,
            {
                "lr": lr,
                "momentum": momentum,
                "weight_decay": weight_decay,
                "trust": trust,
                "adapt": True,
            },
        )

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Apply one step to every parameter that has a gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._move(parameter, parameter.grad, group)

    def _move(self, parameter: Tensor, grad: Tensor, group: dict[str, Any]) -> None:
        if group["adapt"]:
            grad = grad.add(parameter, alpha=group["weight_decay"])
            weight, change = torch.linalg.vector_norm(parameter), torch.linalg.vector_norm(grad)
            # Kept on the device: a branch here would wait for the GPU for every parameter.
            usable = (weight > 0) & (change > 0)
            ratio = torch.where(usable, group["trust"] * weight / change, torch.ones_like(weight))
            grad = grad * ratio
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        buffer = state["momentum_buffer"]
        buffer.mul_(group["momentum"]).add_(grad)
        parameter.add_(buffer, alpha=-group["lr"])


def learning_rate(config: TrainConfig, progress: Progress) -> float:
    """Learning rate of a group with ratio 1."""
    scale = {
        "none": 1.0,
        "linear": config.batch_size / 256,
        "sqrt": (config.batch_size / 256) ** 0.5,
    }
    rate = config.lr * scale[config.lr_scaling]
    if config.schedule == "cosine":
        # The half cosine begins where the warm-up ends.
        warm = config.warmup_epochs * progress.total / config.epochs
        done = max(0.0, progress.step - warm) / max(1.0, progress.total - warm)
        rate = cosine(rate, rate * config.final_lr_ratio, done)
    elif config.schedule == "step":
        rate = steps(rate, config.milestones, config.step_factor, progress.epoch)
    return warm_up(rate, progress.epoch, config.warmup_epochs)


def set_learning_rate(optimizer: Optimizer, rate: float) -> None:
    """Give every group the rate times its own ratio."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["lr_ratio"]
