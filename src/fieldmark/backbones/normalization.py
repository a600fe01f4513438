"""What normalisation layers do while training: a setting of every recipe.

Fine-tuning trained weights with batch statistics costs more than any loss gains
(findings: nine points of rank-1 after two epochs), so the choice is explicit.
"""

import functools
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from fieldmark import runtime
from fieldmark.errors import InputError

Normalization = Literal["frozen", "slow", "train"]

_NORMS = (_BatchNorm, nn.GroupNorm, nn.LayerNorm, nn.InstanceNorm2d)


class Synced:
    """Mixed into a batch-norm class: training statistics are those of the batch of all processes.

    Works with every backend, unlike ``torch.nn.SyncBatchNorm``, which needs a GPU. Computes in at
    least float32, also under autocast.
    """

    def forward(self: Any, input: Float[Tensor, "B D ..."]) -> Float[Tensor, "B D ..."]:
        """Normalise each channel over the batch of all processes."""
        with torch.autocast(input.device.type, enabled=False):
            if input.dtype in (torch.float16, torch.bfloat16):
                input = input.float()
            if not self.training or runtime.world_size() == 1:
                return super().forward(input)  # type: ignore[misc]
            output = _normalize_together(self, input)
            # timm's layers that normalise and activate in one.
            for name in ("drop", "act"):
                output = getattr(self, name)(output) if hasattr(self, name) else output
            return output


def _normalize_together(layer: _BatchNorm, x: Float[Tensor, "B D ..."]) -> Float[Tensor, "B D ..."]:
    axes = [axis for axis in range(x.ndim) if axis != 1]
    shape = [1, -1] + [1] * (x.ndim - 2)
    count = x.numel() // x.shape[1] * runtime.world_size()
    mean = runtime.sum_with_gradient(x.sum(axes)) / count
    centred = x - mean.view(shape)
    variance = runtime.sum_with_gradient(centred.square().sum(axes)) / count
    if layer.track_running_stats and layer.running_mean is not None:
        with torch.no_grad():
            layer.num_batches_tracked.add_(1)  # type: ignore[union-attr]
            share = layer.momentum
            if share is None:  # cumulative average
                share = 1 / float(layer.num_batches_tracked)  # type: ignore[arg-type]
            layer.running_mean.lerp_(mean, share)
            layer.running_var.lerp_(variance * (count / max(1, count - 1)), share)  # type: ignore[union-attr]
    output = centred * torch.rsqrt(variance + layer.eps).view(shape)
    return output * layer.weight.view(shape) + layer.bias.view(shape) if layer.affine else output


class SyncedBatchNorm(Synced, nn.BatchNorm1d):
    """Batch normalisation of feature vectors over the batch of all processes."""


@functools.cache
def _synced(kind: type[_BatchNorm]) -> type[_BatchNorm]:
    return type(f"Synced{kind.__name__}", (Synced, kind), {})


def synchronize_statistics(module: nn.Module) -> None:
    """Let every batch-norm layer see the batch of all processes from now on.

    Changes the layers in place: their parameters, buffers and hooks stay as they are.
    """
    for layer in module.modules():
        if isinstance(layer, _BatchNorm) and not isinstance(layer, Synced):
            layer.__class__ = _synced(type(layer))  # type: ignore[arg-type]


def batch_norms(module: nn.Module) -> Iterator[_BatchNorm]:
    """Batch-norm layers that keep running statistics."""
    for layer in module.modules():
        if isinstance(layer, _BatchNorm) and layer.running_mean is not None:
            yield layer


def norm_parameters(module: nn.Module) -> Iterator[nn.Parameter]:
    """Scale and shift of every normalisation layer (batch, layer, group, RMS)."""
    for layer in module.modules():
        if isinstance(layer, _NORMS) or "Norm" in type(layer).__name__:
            yield from layer.parameters(recurse=False)


def apply_policy(module: nn.Module, policy: Normalization, momentum: float, *, mode: bool) -> None:
    """Put batch-norm layers in the state that the policy asks for.

    Args:
        module: Network or part of it; everything but batch-norm is left alone.
        policy: ``frozen``: normalise with the start's statistics, which never change.
            ``slow``: normalise with running statistics, which move by ``momentum`` towards each
            batch. ``train``: batch statistics, as usual.
        momentum: Share of the new batch in (0, 1], used by ``slow``.
        mode: Whether the network is training; in evaluation nothing moves.
    """
    for layer in batch_norms(module):
        layer.train(mode and policy == "train")
        # A plain attribute, not a closure: it survives deepcopy into a teacher.
        layer.slow_momentum = momentum if mode and policy == "slow" else None  # type: ignore[assignment]


def install_slow_updates(module: nn.Module) -> None:
    """Prepare every batch-norm layer for the ``slow`` policy."""
    for layer in batch_norms(module):
        layer.slow_momentum = None  # type: ignore[assignment]
        layer.register_forward_pre_hook(_move_statistics)
        layer.register_forward_hook(_store_statistics)


def _move_statistics(layer: nn.Module, inputs: tuple[Any, ...]) -> None:
    momentum = layer.slow_momentum
    if momentum is None or not torch.is_grad_enabled():
        return
    with torch.no_grad():
        mean, variance = _statistics(inputs[0])
        share = float(momentum)  # type: ignore[arg-type]
    # Autograd keeps the tensors that this forward reads, and two views mean two forwards before
    # one backward; so each forward reads tensors of its own and the buffers are written after it.
    own: tuple[Tensor, Tensor] = (layer._buffers["running_mean"], layer._buffers["running_var"])  # type: ignore[assignment]
    layer.__dict__["_kept"] = own
    layer._buffers["running_mean"] = torch.lerp(own[0], mean, share)
    layer._buffers["running_var"] = torch.lerp(own[1], variance, share)


def _store_statistics(layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
    kept = layer.__dict__.pop("_kept", None)
    if kept is None:
        return
    with torch.no_grad():
        for name, buffer in zip(("running_mean", "running_var"), kept, strict=True):
            buffer.copy_(layer._buffers[name])
            layer._buffers[name] = buffer


def _statistics(x: Float[Tensor, "B C ..."]) -> tuple[Float[Tensor, " C"], Float[Tensor, " C"]]:
    """Mean and unbiased variance per channel over the batch, of all processes together."""
    x = x.detach().float()
    axes = [axis for axis in range(x.ndim) if axis != 1]
    mean = x.mean(axes)
    square = (x * x).mean(axes)
    if runtime.world_size() > 1:
        both = runtime.gather(torch.stack([mean, square])[None]).mean(0)
        mean, square = both[0], both[1]
    count = x.numel() // x.shape[1] * runtime.world_size()
    return mean, (square - mean * mean).clamp_min(0) * (count / max(1, count - 1))


@contextmanager
def statistics_held(*modules: nn.Module) -> Iterator[None]:
    """Running statistics do not move inside; layers normalise with what they normalised with.

    For passes over images that the network is not to know, such as masked ones.
    """
    layers = [layer for module in modules for layer in batch_norms(module)]
    before = [layer.track_running_stats for layer in layers]
    for layer in layers:
        layer.track_running_stats = False
    try:
        yield
    finally:
        for layer, tracked in zip(layers, before, strict=True):
            layer.track_running_stats = tracked


@torch.no_grad()
def reestimate(module: nn.Module, batches: Iterable[Tensor]) -> int:
    """Replace running statistics by the average over given batches.

    Args:
        module: Called with each batch; only its batch-norm layers change.
        batches: Inputs of ``module``. Each counts equally, so keep their sizes alike.

    Returns:
        Number of batches seen; 0 when there is no batch-norm, and then none is read.

    Raises:
        InputError: If no batch came.
    """
    layers = list(batch_norms(module))
    if not layers:
        return 0
    modes = {layer: layer.training for layer in module.modules()}
    momenta = [layer.momentum for layer in layers]
    kept = [(layer.running_mean.clone(), layer.running_var.clone()) for layer in layers]  # type: ignore[union-attr]
    module.eval()
    for layer in layers:
        layer.reset_running_stats()
        layer.train(True)
        layer.momentum = None  # cumulative average
    seen = 0
    try:
        for batch in batches:
            module(batch)
            seen += 1
    finally:
        for layer, momentum, (mean, variance) in zip(layers, momenta, kept, strict=True):
            layer.momentum = momentum
            if not seen:
                layer.running_mean.copy_(mean)  # type: ignore[union-attr]
                layer.running_var.copy_(variance)  # type: ignore[union-attr]
        for part, mode in modes.items():
            part.training = mode
    if not seen:
        raise InputError(
            "re-estimating normalisation statistics needs at least one batch of photos."
        )
    return seen
