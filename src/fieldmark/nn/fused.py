"""Make a frozen network cheaper to run on a CPU without changing what it computes.

Batch-norm is folded into the convolution before it, and oneDNN applies the activation while it
writes a layer's result, with weights laid out beforehand. What follows what is found by running
the network once; the caller compares results, so a wrong guess costs speed, never accuracy.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from timm.layers.conv2d_same import Conv2dSame
from timm.layers.padding import pad_same
from torch import Tensor, nn

from fieldmark.backbones import folding
from fieldmark.backbones.following import trace
from fieldmark.backbones.insertion import move_insertions

_ACTIVATIONS: dict[type[nn.Module], tuple[str, list[float], str]] = {
    nn.ReLU: ("relu", [], ""),
    nn.ReLU6: ("hardtanh", [0.0, 6.0], ""),
    nn.GELU: ("gelu", [], "none"),
    nn.SiLU: ("swish", [], ""),
}
_NONE: tuple[str, list[float], str] = ("none", [], "")
_MOST_GAIN = 100.0
"""Sum of a filter's absolute weights beyond which it is computed in float32."""


def available() -> bool:
    """Whether this torch has oneDNN's fused layers."""
    return torch.backends.mkldnn.is_available() and all(
        hasattr(torch.ops.mkldnn, name)
        for name in ("_convolution_pointwise", "_linear_pointwise", "_reorder_convolution_weight")
    )


class FusedConv(nn.Module):
    """A convolution, batch-norm folded in, with its activation."""

    def __init__(
        self, layer: nn.Conv2d, activation: tuple[str, list[float], str], shape: list[int]
    ) -> None:
        super().__init__()
        self.same = isinstance(layer, Conv2dSame)
        self.kernel_size = list(layer.kernel_size)
        self.padding = [0, 0] if self.same else [int(p) for p in layer.padding]
        self.stride, self.dilation, self.groups = (
            list(layer.stride),
            list(layer.dilation),
            layer.groups,
        )
        self.activation = activation
        self.bias = layer.bias
        # oneDNN's own layout: an opaque tensor, so it is no parameter.
        self.packed = torch.ops.mkldnn._reorder_convolution_weight(
            layer.weight.detach(), self.padding, self.stride, self.dilation, self.groups, shape
        )

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B E h w"]:
        """Convolve and activate."""
        if self.same:
            x = pad_same(x, self.kernel_size, self.stride, self.dilation)
        return torch.ops.mkldnn._convolution_pointwise(
            x,
            self.packed,
            self.bias,
            self.padding,
            self.stride,
            self.dilation,
            self.groups,
            *self.activation,
        )


class FusedLinear(nn.Module):
    """A linear layer with its activation."""

    def __init__(
        self, layer: nn.Linear, activation: tuple[str, list[float], str], shape: list[int]
    ) -> None:
        super().__init__()
        self.activation = activation
        self.bias = layer.bias
        rows = 1
        for length in shape[:-1]:
            rows *= length
        self.packed = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach(), rows)

    def forward(self, x: Float[Tensor, "... D"]) -> Float[Tensor, "... E"]:
        """Multiply and activate."""
        return torch.ops.mkldnn._linear_pointwise(x, self.packed, self.bias, *self.activation)


class InFloat32(nn.Module):
    """A layer that stays in float32 within a network of reduced precision."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        # In a tuple, so that converting the network passes it over.
        self._layer = (layer,)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B E h w"]:
        """Compute wide, answer in the type that came."""
        return self._layer[0](x.float()).to(x.dtype)


def keep_in_float32(network: nn.Module) -> int:
    """Shield convolutions that amplify their own rounding; to be called after folding.

    A filter whose weights are large and nearly cancel multiplies the rounding of its weights by as
    much. MobileNetV2's first depthwise layer alone, folded, amplifies 431 times and costs most of
    what fp16 loses (smallest cosine to fp32 of 256 photos 0.9985 with it, 0.9999 without).

    Returns:
        Number of layers kept in float32.
    """
    amplifying = [
        layer
        for layer in network.modules()
        if isinstance(layer, nn.Conv2d)
        and float(layer.weight.detach().flatten(1).abs().sum(1).max()) > _MOST_GAIN
    ]
    for layer in amplifying:
        _replace(network, layer, InFloat32(layer))
    return len(amplifying)


_KINDS = (nn.Conv2d, nn.Linear, nn.BatchNorm2d, *_ACTIVATIONS)


def _replace(network: nn.Module, old: nn.Module, new: nn.Module) -> None:
    move_insertions(old, new)
    for parent in network.modules():
        for name, child in parent.named_children():
            if child is old:
                setattr(parent, name, new)


def fold_batch_norm(network: nn.Module, run: Callable[[], object]) -> int:
    """Fold batch-norm in place.

    Args:
        network: In evaluation mode, without gradients.
        run: Runs the network on a few images, outside inference mode.

    Returns:
        Number of layers folded.
    """
    folded = 0
    for layer, norm in trace(network, _KINDS, run).pairs():
        if not (isinstance(layer, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)):
            continue
        if norm.running_mean is None or norm.running_var is None or norm.training:
            continue
        dtype = layer.weight.dtype
        weight, bias = (x.detach().to(dtype) for x in folding.folded(layer, norm, torch.float64))
        layer.weight = nn.Parameter(weight, requires_grad=False)
        layer.bias = nn.Parameter(bias, requires_grad=False)
        # timm's BatchNormAct2d holds its activation.
        rest = getattr(norm, "act", None)
        _replace(network, norm, rest if isinstance(rest, nn.Module) else nn.Identity())
        folded += 1
    return folded


def fuse_layers(network: nn.Module, run: Callable[[], object]) -> int:
    """Replace convolutions and linear layers by oneDNN's fused ones, in place.

    Call it after the network has its final dtype.

    Returns:
        Number of layers replaced.
    """
    seen = trace(network, _KINDS, run)
    follows = {a: b for a, b in seen.pairs() if type(b) in _ACTIVATIONS}
    fused = 0
    for layer in [m for m in network.modules() if m in seen.shapes]:
        act = follows.get(layer)
        kind = _NONE if act is None else _ACTIVATIONS[type(act)]
        if isinstance(act, nn.GELU) and act.approximate != "none":
            kind = ("gelu", [], "tanh")
        if isinstance(layer, nn.Conv2d) and isinstance(layer.padding, tuple):
            new: nn.Module = FusedConv(layer, kind, seen.shapes[layer])
        elif isinstance(layer, nn.Linear):
            new = FusedLinear(layer, kind, seen.shapes[layer])
        else:
            continue
        _replace(network, layer, new)
        if act is not None:
            _replace(network, act, nn.Identity())
        fused += 1
    return fused
