"""Modules inside a network that timm built: which part makes each stage's map, and the hook on it."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fieldmark.errors import InputError

Kind = Literal["NCHW", "NHWC", "tokens"]


class Place(NamedTuple):
    """The part of a network whose output is one stage's map."""

    part: str
    """Name of the submodule."""
    kind: Kind
    """How that output is laid out."""


class Insertion:
    """A forward hook that sends one part's output through an inserted module.

    An object, not a closure: copying a backbone copies it, and the copy reads the copied modules.

    Args:
        modules: The backbone's insertions; read at every call, so a module may be replaced.
        name: Which of them.
        kind: How the part's output is laid out.
        prefix: Class and register tokens, which the module does not see.
    """

    def __init__(self, modules: nn.ModuleDict, name: str, kind: Kind, prefix: int) -> None:
        self.modules = modules
        self.name = name
        self.kind = kind
        self.prefix = prefix

    def __call__(self, part: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
        """What the network goes on with instead of ``output``."""
        module = self.modules[self.name]
        if self.kind == "NCHW":
            return module(output)
        if self.kind == "NHWC":
            return module(output.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        special, tokens = output[:, : self.prefix], output[:, self.prefix :]
        return torch.cat([special, as_tokens(module(as_grid(tokens)))], 1)


def as_grid(tokens: Float[Tensor, "B T D"]) -> Float[Tensor, "B D h w"]:
    """Row-major tokens of a square image as a map.

    Raises:
        InputError: If they fill no square.
    """
    side = round(tokens.shape[1] ** 0.5)
    if side * side != tokens.shape[1]:
        raise InputError(
            f"{tokens.shape[1]} tokens fill no square, and inserted modules need a square image "
            "and all of its tokens; give square images and drop none."
        )
    return tokens.transpose(1, 2).unflatten(2, (side, side))


def as_tokens(grid: Float[Tensor, "B D h w"]) -> Float[Tensor, "B T D"]:
    """A map as row-major tokens."""
    return grid.flatten(2).transpose(1, 2)


def move_insertions(old: nn.Module, new: nn.Module) -> None:
    """Let what is inserted after one part come after the part that replaces it."""
    for key, hook in list(old._forward_hooks.items()):
        if isinstance(hook, Insertion):
            del old._forward_hooks[key]
            new.register_forward_hook(hook)


def has_insertion(part: nn.Module) -> bool:
    """Whether something is inserted after this part."""
    return any(isinstance(hook, Insertion) for hook in part._forward_hooks.values())


@torch.no_grad()
def find_places(network: nn.Module, size: int, prefix: int) -> list[Place]:
    """Which part makes each stage's map, found by running the network a few times.

    Only parts count that run exactly once both with and without intermediate maps, and whose
    changed output is the map: a hook on them changes both ways alike.

    Args:
        network: Has ``forward_features``; the result is empty without ``forward_intermediates``.
        size: Side of the square images, in pixels.
        prefix: Class and register tokens of a transformer.

    Raises:
        InputError: If some stage's map is made by no part alone.
    """
    if not hasattr(network, "forward_intermediates"):
        return []
    mode = {part: part.training for part in network.modules()}
    network.eval()
    like = next(network.parameters())
    # Not an empty image: its maps would be alike in all directions.
    image = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0)).to(like)

    def run() -> list[Tensor]:
        return network.forward_intermediates(image, intermediates_only=True)  # type: ignore[operator]

    try:
        _, once = _outputs(network, lambda: network.forward_features(image))  # type: ignore[operator]
        maps, again = _outputs(network, run)
        # The outermost of several parts that hand on the same tensor returns last.
        found = [
            [
                Place(name, kind)
                for name, output in reversed(once.items())
                if name in again and (kind := _layout(output, stage, prefix)) is not None
            ]
            for stage in maps
        ]
        while all(found):
            wrong = _not_leading(network, run, [candidates[0] for candidates in found], prefix)
            if not wrong:
                return [candidates[0] for candidates in found]
            for index in wrong:
                found[index].pop(0)
    finally:
        for part, training in mode.items():
            part.training = training
    raise InputError(
        f"no part of this network makes the map of stage {found.index([])} alone, so nothing can "
        "be inserted between its stages; use a network such as resnet50, mobilenetv2_100 or "
        "convnext_tiny."
    )


def _not_leading(
    network: nn.Module, run: Callable[[], list[Tensor]], places: list[Place], prefix: int
) -> list[int]:
    """Stages whose map stays as it was when the part's output is changed."""
    made: dict[str, Tensor] = {}
    hooks = []

    def watch(name: str) -> None:
        def change(part: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
            made[name] = output + 1
            return made[name]

        hooks.append(network.get_submodule(name).register_forward_hook(change))

    for name in {place.part for place in places}:
        watch(name)
    try:
        maps = run()
    finally:
        for hook in hooks:
            hook.remove()
    return [
        index
        for index, (place, stage) in enumerate(zip(places, maps, strict=True))
        if _layout(made[place.part], stage, prefix) is None
    ]


def _outputs(network: nn.Module, run: Callable[[], Any]) -> tuple[Any, dict[str, Tensor]]:
    """Tensors made by parts that ran once, by name, in the order in which they returned."""
    made: dict[str, Tensor] = {}
    calls: dict[str, int] = {}
    hooks = []

    def watch(name: str, part: nn.Module) -> None:
        def after(part: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            calls[name] = calls.get(name, 0) + 1
            if isinstance(output, Tensor):
                made[name] = output

        hooks.append(part.register_forward_hook(after))

    for name, part in network.named_modules():
        if name:
            watch(name, part)
    try:
        result = run()
    finally:
        for hook in hooks:
            hook.remove()
    return result, {name: output for name, output in made.items() if calls[name] == 1}


def _layout(output: Tensor, stage: Tensor, prefix: int) -> Kind | None:
    """How ``output`` holds the map ``stage`` [1 C h w]; None when it is another tensor."""
    if output.ndim == 4:
        if output.shape == stage.shape and torch.equal(output, stage):
            return "NCHW"
        turned = output.permute(0, 3, 1, 2)
        return "NHWC" if turned.shape == stage.shape and torch.equal(turned, stage) else None
    if output.ndim != 3:
        return None
    tokens = output[:, prefix:]
    flat = as_tokens(stage)
    return "tokens" if tokens.shape == flat.shape and torch.equal(tokens, flat) else None
