"""What a network computes on the way, without asking the code that calls it for anything."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fieldmark.backbones.backbone import Backbone
from fieldmark.backbones.insertion import Kind, Place
from fieldmark.errors import InputError
from fieldmark.types import Features


class Pass(NamedTuple):
    """One forward pass of a backbone; every tensor is the very one of the graph."""

    images: Float[Tensor, "B 3 H W"]
    """As they were given: in [0, 1], not normalised."""
    features: Features
    stages: tuple[Float[Tensor, "B ..."], ...]
    """Outputs of the stages asked for, in the network's own layout."""


@contextlib.contextmanager
def watched(backbone: Backbone, stages: Sequence[int] = ()) -> Iterator[list[Pass]]:
    """Record each forward pass of a backbone while the context is open, in order.

    Unlike ``backbone(images, stages=...)`` this needs nothing from the caller of the backbone, and
    the maps are those that the feature is computed from, so that derivatives reach them.

    Args:
        backbone: The network.
        stages: Which earlier maps to keep: indices into ``stage_dims``, negative from the end.

    Raises:
        InputError: If the network has no such stage.
    """
    passes: list[Pass] = []
    found: dict[int, Tensor] = {}

    def keep(place: int) -> Callable[[nn.Module, object, Tensor], None]:
        return lambda module, inputs, output: found.__setitem__(place, output)

    def note(module: nn.Module, inputs: tuple[Tensor, ...], output: Features) -> None:
        passes.append(Pass(inputs[0], output, tuple(found[i] for i in range(len(stages)))))
        found.clear()

    parts = [stage_place(backbone, stage).part for stage in stages]
    modules = [backbone.network.get_submodule(part) for part in parts]
    handles = [module.register_forward_hook(keep(i)) for i, module in enumerate(modules)]
    handles.append(backbone.register_forward_hook(note))
    try:
        yield passes
    finally:
        for handle in handles:
            handle.remove()


def feeding(backbone: Backbone, stages: Sequence[int | None]) -> tuple[bool, ...]:
    """Whether the pooled feature is computed from the cells of each of some maps.

    The last cells of a vision transformer that pools its class token are not: no derivative reaches
    them. Looked at rather than read from settings, because networks differ in what they pool: one
    random image forward and back. Nothing is changed.

    Args:
        backbone: The network.
        stages: Indices into ``stage_dims``, negative from the end; None is ``features.last``.

    Raises:
        InputError: If the network has no such stage.
    """
    if not stages:
        return ()
    modes = {part: part.training for part in backbone.modules()}
    like = next(backbone.network.parameters())
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(1, 3, backbone.size, backbone.size, generator=generator).to(like)
    try:
        backbone.eval()
        with torch.enable_grad():
            asked = [stage for stage in stages if stage is not None]
            with watched(backbone, asked) as passes:
                pooled = backbone(image.requires_grad_()).pooled
            # Not the plain sum, which a layer norm makes constant.
            total = (pooled * torch.randn(pooled.shape, generator=generator).to(pooled)).sum()
            features, maps = passes[0].features, iter(passes[0].stages)
            sources = [features.last if stage is None else next(maps) for stage in stages]
            found = torch.autograd.grad(total, sources, allow_unused=True)  # type: ignore[arg-type]
    finally:
        for part, training in modes.items():
            part.training = training
    return tuple(
        gradient is not None and bool(stage_cells(gradient, backbone, stage, features).any())
        for stage, gradient in zip(stages, found, strict=True)
    )


def last_feeding(backbone: Backbone) -> int | None:
    """The last map whose cells the pooled feature is computed from; None: ``features.last``.

    Raises:
        InputError: If it is another map, and that cannot be watched.
    """
    if feeding(backbone, (None,))[0]:
        return None
    stages = tuple(range(-1, -1 - len(backbone.stage_dims), -1))
    try:
        found = feeding(backbone, stages)
    except InputError:
        found = ()  # no part of the network makes them
    if not any(found):
        raise InputError(
            f"'{backbone.config.name}' does not compute its feature from the cells of its last "
            "map (it reads a class token), and no earlier map of it can be watched; use another "
            "network such as resnet50 or vit_tiny_patch16_224."
        )
    return stages[found.index(True)]


def in_cells(
    x: Float[Tensor, "B ..."], kind: Kind, shape: tuple[int, int]
) -> Float[Tensor, "B h w D"]:
    """Bring a feature map, or a derivative of its shape, into one layout.

    Args:
        x: Map with channels first or last, or tokens (class and register tokens are dropped).
        kind: Which of these.
        shape: Grid of the tokens; the other kinds have their own.
    """
    if kind == "tokens":
        height, width = shape
        return x[:, x.shape[1] - height * width :].unflatten(1, (height, width))
    return x.permute(0, 2, 3, 1) if kind == "NCHW" else x


def stage_cells(
    x: Float[Tensor, "B ..."], backbone: Backbone, stage: int | None, features: Features
) -> Float[Tensor, "B h w D"]:
    """The output of a stage, or a derivative of its shape, cell by cell.

    Args:
        x: As the stage lays it out.
        backbone: The network.
        stage: Which of its stages; None: x is ``features.last``.
        features: What the same pass returned.
    """
    kind = backbone.layout.kind if stage is None else stage_place(backbone, stage).kind
    return in_cells(x, kind, features.shape)


def stage_place(backbone: Backbone, stage: int) -> Place:
    """Which part of a network makes a stage's map, and how it is laid out.

    Raises:
        InputError: If there is no such stage.
    """
    places = backbone._places()
    if not -len(places) <= stage < len(places):
        raise InputError(
            f"'{backbone.config.name}' has {len(places)} stages that can be watched, asked for "
            f"stage {stage}; choose among them, or the image."
        )
    return places[stage]
