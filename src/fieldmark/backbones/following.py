"""Which layer reads which layer's result, found by running a network once."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from fieldmark.backbones.insertion import has_insertion


class Trace:
    """What one run showed.

    Attributes:
        shapes: Shape of each layer's last input.
    """

    def __init__(self) -> None:
        self._maker: dict[int, tuple[nn.Module, int]] = {}
        self._kept: list[Any] = []
        self._calls: dict[nn.Module, int] = {}
        self._reads: list[tuple[nn.Module, nn.Module]] = []
        self.shapes: dict[nn.Module, list[int]] = {}

    def before(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        """A forward pre-hook."""
        self._calls[module] = self._calls.get(module, 0) + 1
        x = inputs[0]
        if isinstance(x, Tensor):
            self.shapes[module] = list(x.shape)
            maker, version = self._maker.get(id(x), (None, 0))
            # The version tells whether something was added in place in between.
            if maker is not None and version == x._version:
                self._reads.append((maker, module))

    def after(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        """A forward hook."""
        # What comes after an inserted module does not read this layer's own result.
        if isinstance(output, Tensor) and not has_insertion(module):
            # Kept alive, so that no later tensor gets the same id.
            self._kept.append(output)
            self._maker[id(output)] = (module, output._version)

    def pairs(self) -> list[tuple[nn.Module, nn.Module]]:
        """Layers that ran once, each with one that ran once and read its result."""
        return [(a, b) for a, b in self._reads if self._calls[a] == self._calls[b] == 1]


def trace(
    network: nn.Module, kinds: tuple[type[nn.Module], ...], run: Callable[[], object]
) -> Trace:
    """Run a network and see what follows what.

    Args:
        network: Whose layers are watched.
        kinds: Classes of the layers of interest.
        run: Runs the network, outside inference mode.
    """
    found = Trace()
    hooks = []
    for module in network.modules():
        if isinstance(module, kinds):
            hooks.append(module.register_forward_pre_hook(found.before))
            hooks.append(module.register_forward_hook(found.after))
    try:
        run()
    finally:
        for hook in hooks:
            hook.remove()
    return found
