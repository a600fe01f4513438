"""What a network computes on the way, without asking the code that calls it for anything."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

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
    x: Float[Tensor, "B ..."], backbone: Backbone, stage: int, features: Features
) -> Float[Tensor, "B h w D"]:
    """The output of a stage, or a derivative of its shape, cell by cell.

    Args:
        x: As the stage lays it out.
        backbone: The network.
        stage: Which of its stages.
        features: What the same pass returned.
    """
    return in_cells(x, stage_place(backbone, stage).kind, features.shape)


def last_cells(
    x: Float[Tensor, "B ..."], backbone: Backbone, features: Features
) -> Float[Tensor, "B h w D"]:
    """``features.last``, or a derivative of its shape, cell by cell."""
    return in_cells(x, backbone.layout.kind, features.shape)


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
