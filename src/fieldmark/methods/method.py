"""What every method is: a loss that reads, and an update that writes (docs/design.md, rule 2)."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sized
from typing import Any, ClassVar, NamedTuple, TypeVar

import torch
from jaxtyping import Float
from pydantic import Field, SerializeAsAny, model_validator
from torch import Tensor, nn

from fieldmark import runtime
from fieldmark.backbones.backbone import Backbone
from fieldmark.config import Config, suggest
from fieldmark.data.sampling import MultiView, ViewSpec
from fieldmark.errors import ConfigError
from fieldmark.nn.spec import EncoderSpec
from fieldmark.types import Batch, LossOutput, Progress


class Summary(NamedTuple):
    """What ``fieldmark methods`` says of a method; one sentence part each."""

    idea: str
    """What is learnt from."""
    needs: str
    """Kind of network, other models, memory, size of batch."""
    when: str
    """On which photos and machines to take it, and when not."""
    paper: str
    """Authors, year, place."""


Tell = Callable[[str, int, int], None]
"""Told what a long preparation does, how many photos are done, and of how many."""
_Chunk = TypeVar("_Chunk", bound=Sized)


def _silent(what: str, done: int, total: int) -> None:
    """Outside a run nobody listens."""


Ablations = dict[str, dict[str, dict[str, Any]]]
"""Study, variant, settings that differ from the recipe (as the tables of a recipe)."""


class Method(nn.Module, ABC):
    """A self-supervised method: settings, parts, views, loss, update.

    ``forward`` returns the loss and changes nothing but batch-norm statistics; what it wants to
    change it returns in ``carry``, and ``after_step`` writes it, once per optimiser step. All state
    is in ``state_dict()``. What a method draws itself comes from ``batch.key``; the loop seeds
    torch with it before every ``forward``, so dropout repeats too.

    Args:
        config: Settings, an instance of ``config_type``.
        backbone: The student's network; it is trained in place.
    """

    config_type: ClassVar[type[Config]]
    summary: ClassVar[Summary]
    """For people who choose."""
    ablations: ClassVar[Ablations] = {}
    """What ``fieldmark ablate`` compares: study, variant, settings that differ from the recipe, such
    as ``{"module": {"without": {"method": {"module": "none"}}}}``."""
    batch_coupled: ClassVar[bool] = False
    """Whether one photo's loss depends on the others of its micro-batch, so that accumulating
    gradients over micro-batches is not the same as a larger batch."""
    synced_statistics: bool = False
    """Whether every batch-norm in training mode sees the batch of all processes; otherwise only
    the heads' does, and each process's backbone sees its own share."""
    reads_gradients: ClassVar[bool] = False
    """Whether ``forward`` takes derivatives of its own, which ``torch.compile`` cannot follow."""

    notes: tuple[str, ...] = ()
    """What the user should know about this method as it is set up; said when training begins and
    repeated in the report."""

    tell: Tell = staticmethod(_silent)
    """Set by the loop; raises ``Interrupted`` where the user asked to stop."""

    config: Any
    backbone: Backbone

    def __init__(self, config: Config, backbone: Backbone) -> None:
        super().__init__()
        self.config = config
        self.backbone = backbone

    @classmethod
    def check(cls, config: Any) -> None:
        """Refuse settings that name what is not there; called before photos are decoded.

        Args:
            config: Settings of this method.
        """

    @classmethod
    def extra_data(cls, config: Any) -> str:
        """What takes part beyond the photos and their start, in words; ``none`` for most methods.

        Args:
            config: Settings of this method; those with a text-image teacher tell it.
        """
        return getattr(config, "extra_data", "none")

    @classmethod
    @abstractmethod
    def views(cls, config: Any, size: int) -> MultiView:
        """The views the paper asks for.

        Args:
            config: Settings of this method.
            size: Input of the network, pixels a side.
        """

    @classmethod
    def further_looks(cls, config: Any, backbone: Backbone) -> tuple[ViewSpec, ...]:
        """Looks at photos beside the views, a teacher's; photos are kept sharp enough for them.

        Args:
            config: Settings of this method.
            backbone: The start.
        """
        return ()

    @abstractmethod
    def forward(self, batch: Batch, progress: Progress) -> LossOutput:
        """The loss of one micro-batch. Changes nothing but batch-norm statistics."""

    def before_step(self, progress: Progress) -> None:
        """Edit gradients, just before they are clipped and applied."""

    def after_step(self, progress: Progress, carry: dict[str, Tensor]) -> None:
        """Write state, once per optimiser step.

        Args:
            progress: Before the step that was just made.
            carry: What ``forward`` returned, joined over micro-batches and processes in the order
                of the global batch.
        """

    def start_epoch(self, progress: Progress, photos: Any) -> None:
        """Refresh whatever is kept about the photos; called before each epoch's first step."""

    def telling(self, what: str, chunks: Iterable[_Chunk]) -> Iterator[_Chunk]:
        """The chunks of a long preparation, telling how far it is; it may be stopped between two."""
        chunks = list(chunks)
        done, total = 0, sum(map(len, chunks))
        self.tell(what, 0, total)
        for chunk in chunks:
            yield chunk
            done += len(chunk)
            self.tell(what, done, total)

    def identity(self) -> dict[str, Any]:
        """What a run must share with the run it continues beyond its settings, as plain data."""
        return {}

    @abstractmethod
    def exports(self) -> dict[str, EncoderSpec]:
        """The encoders this method makes: ``student``, and ``teacher`` where there is one.

        Heads are left out. The modules are the live ones, not copies.
        """


BASES: dict[str, type[Method]] = {}
"""Contrastive methods that others may attach to, by name; filled where the table of methods is, so
that no method imports another."""


class AttachedConfig(Config):
    """Settings of a method that adds its losses to another method's."""

    base: str = "mocov2"
    """The contrastive method underneath: mocov2, mocov3 or simclr."""
    contrast: SerializeAsAny[Config] = Field(default=None, validate_default=True)
    """Settings of that method, as its own recipe has them; its defaults where nothing is said."""

    @model_validator(mode="before")
    @classmethod
    def _read_contrast(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        base = data.get("base", cls.model_fields["base"].default)
        if base not in BASES:
            raise ConfigError(suggest(str(base), BASES, "method.base"))
        inner = data.get("contrast") or {}
        if isinstance(inner, dict):
            inner = BASES[base].config_type.parse(inner, "[method.contrast]")
        return {**data, "contrast": inner}


class Attached(Method):
    """A method that adds losses to another one's, reading the features of the same passes.

    The method underneath is held, whole and unchanged; what its student computed in a forward pass
    is read with ``fieldmark.backbones.watched``.
    """

    reads_gradients = True
    config: AttachedConfig

    def __init__(self, config: AttachedConfig, backbone: Backbone) -> None:
        nn.Module.__init__(self)
        self.config = config
        self.base = BASES[config.base](config.contrast, backbone)
        # How statistics are shared belongs to the method underneath, too.
        self.synced_statistics = self.base.synced_statistics

    @property
    def backbone(self) -> Backbone:  # type: ignore[override]
        """The student's network; the method underneath holds it, so that it is saved once."""
        return self.base.backbone

    @classmethod
    def views(cls, config: Any, size: int) -> MultiView:
        """The views of the method underneath."""
        return BASES[config.base].views(config.contrast, size)

    def after_step(self, progress: Progress, carry: dict[str, Tensor]) -> None:
        """What the method underneath writes."""
        self.base.after_step(progress, carry)

    def start_epoch(self, progress: Progress, photos: Any) -> None:
        """What the method underneath refreshes."""
        self.base.start_epoch(progress, photos)


def batch_statistics(module: nn.Module) -> bool:
    """Whether some layer normalises with the statistics of the batch it sees."""
    kind = nn.modules.batchnorm._BatchNorm
    return any(part.training for part in module.modules() if isinstance(part, kind))


@torch.no_grad()
def shuffled(
    encode: Callable[[Tensor], Tensor], images: Float[Tensor, "B 3 H W"], step: int
) -> Float[Tensor, "B D"]:
    """Encode keys so that batch statistics cannot tell which key belongs to which query.

    Across processes the images are dealt out in another order, encoded, and put back: "shuffling
    BN" of He et al. 2020, section 3.3. With one process it is just a forward pass.

    Args:
        encode: Images to keys.
        images: This process's images; as many on every process.
        step: Seeds the order; the same on every process.
    """
    world = runtime.world_size()
    if world == 1:
        return encode(images)
    count = len(images)
    order = torch.randperm(count * world, generator=torch.Generator().manual_seed(step))
    order = order.to(images.device)
    mine = slice(runtime.rank() * count, (runtime.rank() + 1) * count)
    keys = runtime.gather(encode(runtime.gather(images)[order[mine]]))
    return keys[torch.argsort(order)[mine]]
