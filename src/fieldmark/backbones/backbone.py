"""Any timm network as pooled features, tokens with their grid, stages and attention."""

import inspect
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field, field_validator
from timm.models._manipulate import group_parameters
from torch import Tensor, nn

from fieldmark.backbones.folding import fold_frozen
from fieldmark.backbones.insertion import Insertion, Place, find_places
from fieldmark.backbones.layout import Layout, last, probe, split_tokens
from fieldmark.backbones.normalization import (
    Normalization,
    apply_policy,
    batch_norms,
    install_slow_updates,
    norm_parameters,
    reestimate,
)
from fieldmark.backbones.provenance import Provenance
from fieldmark.backbones.tokens import attention_layers, capture_attention, forward_tokens
from fieldmark.backbones.weights import (
    check_name,
    find_weights,
    load_weights,
    parse_arguments,
    parse_statistics,
)
from fieldmark.config import Config
from fieldmark.errors import InputError, WeightsError
from fieldmark.rng import seed_of
from fieldmark.types import Features

Triple = tuple[float, float, float]


class BackboneConfig(Config):
    """Which network, from which weights, and what of it learns."""

    name: str | None = None
    """timm network, such as mobilenetv2_100; None: what the weights file names, else resnet50."""
    weights: str | None = None
    """A .safetensors file, "random", "auto", "hub" or "hub:NAME"; None means "auto"."""
    arguments: dict[str, bool | int | float | str] = Field(default_factory=dict)
    """Arguments of the timm constructor, such as pad_type = "same"."""
    mean: Triple | None = None
    """Mean per channel of the network's training photos, in [0, 1]; None: from the weights."""
    std: Triple | None = None
    """Standard deviation per channel, > 0; None: from the weights."""
    seed: int = 0
    """Seed of random weights."""
    normalization: Normalization = "frozen"
    """Batch-norm while training: frozen, slow or train."""
    slow_momentum: float = Field(default=0.01, gt=0, le=1)
    """Share of each batch in the running statistics when normalization = "slow"."""
    norm_affine_trainable: bool = True
    """Whether scale and shift of normalisation layers learn."""
    reestimate: bool = False
    """Whether batch-norm statistics are measured anew over the photos when training ends."""
    blend: float = Field(default=1.0, gt=0, le=1)
    """How far from the start's weights towards the trained ones the network goes that training
    ends with; 1: all the way."""
    train_from_stage: int = 0
    """First stage that learns; earlier ones are frozen. Negative counts from the end."""
    lr_ratios: tuple[float, ...] = ()
    """Learning-rate ratio per stage, input to output; fewer values than stages are spread evenly
    over the depth (geometric interpolation)."""

    @field_validator("std")
    @classmethod
    def _positive(cls, value: Triple | None) -> Triple | None:
        if value is not None and min(value) <= 0:
            raise ValueError("every value must be > 0")
        return value

    @field_validator("lr_ratios")
    @classmethod
    def _ratios(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if any(ratio <= 0 for ratio in value):
            raise ValueError("ratios must be > 0 (freeze stages with train_from_stage)")
        return value


class Backbone(nn.Module):
    """A network that normalises its own input.

    Build it with :meth:`build` (finds weights) or :meth:`rebuild` (an empty shell of known
    layout, filled from an artifact).

    Attributes:
        config: Settings as resolved: name, arguments, mean and std are filled in.
        provenance: Where the weights come from.
        size: Image size it was built for, in pixels.
        dim: Length of the pooled feature.
        token_dim: Length of a token; differs from ``dim`` where the head widens features.
        stage_dims: Channels of each map that ``stages`` can ask for, input to output.
        stage_strides: Pixels per cell of each of those maps.
        stage_count: Number of parameter stages (stem first) for freezing and learning rates.
        is_transformer: Whether the last map is a sequence of tokens.
        insertions: Modules put into the network with :meth:`insert`, by place.

    Example:
        >>> backbone = Backbone.build(BackboneConfig(name="resnet18", weights="random"), size=64)
        >>> backbone(torch.rand(2, 3, 64, 64)).tokens.shape
        torch.Size([2, 4, 512])
    """

    compute_dtype: torch.dtype | None = None
    """Type that the network's own layers were converted to for inference; None: as they are."""
    mean: Float[Tensor, "1 3 1 1"]
    std: Float[Tensor, "1 3 1 1"]

    def __init__(
        self, network: nn.Module, config: BackboneConfig, provenance: Provenance, *, size: int
    ) -> None:
        super().__init__()
        if config.name is None or config.mean is None or config.std is None:
            raise ValueError("Backbone needs a resolved configuration; use Backbone.build")
        self.config = config
        self.provenance = provenance
        self.size = size
        self.layout: Layout = probe(network, config.name, size)
        self.dim = self.layout.dim
        self.token_dim = self.layout.token_dim
        self.stage_dims = self.layout.stage_dims
        self.stage_strides = self.layout.stage_strides
        self.is_transformer = self.layout.kind == "tokens"
        self.network = network
        self.insertions = nn.ModuleDict()
        self._found: list[Place] | None = None
        # Constants of the configuration, so not part of the state.
        self.register_buffer("mean", torch.tensor(config.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(config.std).view(1, 3, 1, 1), persistent=False)
        install_slow_updates(network)
        self._to_fold = config.normalization == "frozen" and any(batch_norms(network))
        self._stage_of = _parameter_stages(network)
        self.stage_count = max(self._stage_of.values(), default=0) + 1
        self.first_trained = _first_trained(config.train_from_stage, self.stage_count)
        self._freeze()
        self.train()

    @classmethod
    def build(cls, config: BackboneConfig, *, size: int) -> "Backbone":
        """Create a network with its starting weights.

        Args:
            config: What to build; a weights file's metadata fills what is not set.
            size: Side of the square images, in pixels.

        Raises:
            WeightsError: If weights are absent, damaged or of another network.
            InputError: If the network cannot take this size.
        """
        weights = find_weights(
            config.name or _default_name(config.weights), config.weights, seed=config.seed
        )
        told = weights.metadata.get("arch")
        if told and config.name and told.split(".")[0] != config.name.split(".")[0]:
            raise WeightsError(
                f"the weights file says that it holds '{told}', but backbone.name is "
                f"'{config.name}'; drop the name or give weights of that network."
            )
        name = check_name(config.name or told or _default_name(config.weights) or "")
        arguments = dict(config.arguments)
        if weights.file is not None and "arguments" in weights.metadata:
            told_arguments = parse_arguments(weights.metadata["arguments"], weights.file)
            arguments = {**told_arguments, **arguments}
        if "pad_type" in weights.metadata:
            arguments.setdefault("pad_type", weights.metadata["pad_type"])
        network = _create(name, arguments, size, config.seed)
        if weights.file is not None:
            load_weights(network, weights.file, name)
        default = getattr(network, "pretrained_cfg", {})
        mean, std = config.mean, config.std
        file = weights.file or Path(name)
        if mean is None:
            text = weights.metadata.get("mean")
            mean = parse_statistics(text, "mean", file) if text else tuple(default["mean"])
        if std is None:
            text = weights.metadata.get("std")
            std = parse_statistics(text, "std", file) if text else tuple(default["std"])
        resolved = config.model_copy(
            update={"name": name, "arguments": arguments, "mean": mean, "std": std}
        )
        return cls(network, resolved, weights.provenance, size=size)

    @classmethod
    def rebuild(cls, config: BackboneConfig, provenance: Provenance, *, size: int) -> "Backbone":
        """Create a network of known settings whose weights the caller loads afterwards.

        Args:
            config: Resolved settings, as stored in an artifact.
            provenance: As stored beside them.
            size: Side of the square images, in pixels.
        """
        network = _create(check_name(config.name or ""), dict(config.arguments), size, config.seed)
        return cls(network, config, provenance, size=size)

    def insert(self, place: str, module: nn.Module) -> None:
        """Put a module into the network; copies, state, training and export take it along.

        It always trains, at the full rate or at one that its own ``parameter_groups`` name, and its
        batch-norm layers always collect statistics, whatever the settings say of the network's own:
        what is new has no start to keep.

        Args:
            place: ``image``: maps the normalised image [B 3 H W] before the network sees it.
                ``stage0``, ``stage1`` … (indices of ``stage_dims``): maps that stage's feature map
                [B C h w] to one of the same shape, with which the network goes on; of a
                transformer it sees the grid without class and register tokens. ``features``: maps
                ``Features``, holding the stages that the module names in its attribute ``stages``
                where it has one, to ``Features``.
            module: What to put there, on the same device as the network.

        Raises:
            InputError: If the network has no such place, or it is taken.
        """
        places = self._places() if place not in {"image", "features"} else []
        allowed = ["image", *(f"stage{index}" for index in range(len(places))), "features"]
        if place not in allowed:
            known = ", ".join(allowed) if places else "image and features (it has no stages)"
            raise InputError(
                f"nothing can be inserted at '{place}' of '{self.config.name}'; its places are "
                f"{known}; a network with stages is resnet50 or mobilenetv2_100."
            )
        if place in self.insertions:
            raise InputError(
                f"'{place}' of '{self.config.name}' already holds a module; put several into one "
                "nn.Sequential, or use another place."
            )
        self.insertions[place] = module.train(self.training)
        if place.startswith("stage"):
            part, kind = places[int(place.removeprefix("stage"))]
            hook = Insertion(self.insertions, place, kind, self.layout.prefix)
            self.network.get_submodule(part).register_forward_hook(hook)

    def _places(self) -> list[Place]:
        # Once, while nothing is inserted: looking for them runs the network.
        if self._found is None:
            self._found = find_places(self.network, self.size, self.layout.prefix)
        return self._found

    def forward(
        self,
        images: Float[Tensor, "B 3 H W"],
        *,
        stages: Sequence[int] = (),
        attention: Sequence[int] = (),
        keep: Int[Tensor, "B K"] | None = None,
        mask: Bool[Tensor, "B T"] | None = None,
        mask_token: Float[Tensor, " D"] | None = None,
    ) -> Features:
        """Compute features.

        Args:
            images: RGB in [0, 1], not normalised.
            stages: Which earlier maps to return: indices into ``stage_dims``, negative from the
                end. For transformers these are blocks, before the final norm.
            attention: Which blocks' attention to return (transformers only); fused attention is
                off for those blocks during the call.
            keep: Grid tokens to keep per image, in [0, T) (MAE); tokens come back in this order.
            mask: Grid tokens to replace before position is added (iBOT).
            mask_token: What replaces them; zeros when None. It belongs to the method.

        Raises:
            InputError: If the network cannot do what is asked.
        """
        if self._to_fold and self.training and torch.is_grad_enabled():
            # At the first training step: who only embeds never pays for looking.
            self._fold(images)
        x = (images - self.mean) / self.std
        if self.compute_dtype is not None:
            x = x.to(self.compute_dtype)
        if attention:
            with capture_attention(self.network, attention, str(self.config.name)) as maps:
                features = self.forward(
                    images, stages=stages, keep=keep, mask=mask, mask_token=mask_token
                )
                return features._replace(attention=tuple(maps()))
        if keep is not None and any(place.startswith("stage") for place in self.insertions):
            raise InputError(
                f"'{self.config.name}' holds modules between its stages ({', '.join(self.insertions)}), "
                "which need the whole grid; leave keep out, or insert nothing there."
            )
        if "image" in self.insertions:
            x = self.insertions["image"](x)
        last_module = dict(self.insertions).get("features")
        asked, stages = len(stages), (*stages, *getattr(last_module, "stages", ()))
        if keep is not None or mask is not None:
            if stages:
                raise InputError("stages cannot be asked for together with keep or mask.")
            output, grid = forward_tokens(
                self.network,
                x,
                keep=keep,
                mask=mask,
                mask_token=mask_token,
                name=str(self.config.name),
            )
            maps_out: list[Tensor] = []
        else:
            grid = None
            output, maps_out = self._run(x, stages)
        final = last(output)
        tokens, shape, cls = split_tokens(final, self.layout, grid or self._grid(x))
        pooled = self.network.forward_head(output)  # type: ignore[operator]
        features = Features(pooled, tokens, shape, cls, tuple(maps_out), last=final)
        if last_module is not None:
            features = last_module(features._replace(stages=features.stages[asked:]))
            features = features._replace(stages=tuple(maps_out[:asked]))
        return features

    def larger_input(self, scale: float) -> int:
        """Input for a longer look at photos, in pixels.

        ``scale`` times the network's input, in steps of 32 or of its patches and windows where
        those do not fit into 32, but no larger than timm says that its weights were made for: beyond
        that networks get worse, not better (on birds200 this start's rank-1 is 29 at 128 px, 37 at
        224 and 34 at 288). Never less than the input itself, and no more where the network, tried on
        an empty image, takes no other.

        Args:
            scale: >= 1.
        """
        config = getattr(self.network, "pretrained_cfg", None) or {}
        sizes = [config.get(key) for key in ("input_size", "test_input_size")]
        most = max((int(size[-1]) for size in sizes if size), default=0)
        step = _grain(self.network, self.stage_strides)
        wanted = step * round(scale * self.size / step)
        wanted = max(self.size, min(wanted, most) if most else wanted)
        return wanted if wanted == self.size or self._takes(wanted) else self.size

    @torch.no_grad()
    def _takes(self, size: int) -> bool:
        training = self.training
        try:
            self.eval()(torch.zeros(1, 3, size, size, device=self.mean.device))
        except (InputError, AssertionError, RuntimeError, ValueError, IndexError):
            # Some transformers and mixers are built for one size.
            return False
        finally:
            self.train(training)
        return True

    def _fold(self, images: Float[Tensor, "B 3 H W"]) -> None:
        self._to_fold = False
        with torch.no_grad():
            image = torch.zeros_like(images[:1])
            fold_frozen(self.network, lambda: self.network.forward_features(image))  # type: ignore[operator]

    @property
    def attention_blocks(self) -> int:
        """Number of blocks whose attention can be asked for; 0 where there is none to read."""
        return len(attention_layers(self.network))

    def _run(self, x: Tensor, stages: Sequence[int]) -> tuple[Any, list[Tensor]]:
        if not stages:
            return self.network.forward_features(x), []  # type: ignore[operator]
        count = len(self.stage_dims)
        wanted = [index + count if index < 0 else index for index in stages]
        if count == 0 or min(wanted) < 0 or max(wanted) >= count:
            raise InputError(
                f"'{self.config.name}' has {count} stages of feature maps; asked for {list(stages)}."
            )
        output, maps = self.network.forward_intermediates(x, indices=sorted(set(wanted)))  # type: ignore[operator]
        order = {index: position for position, index in enumerate(sorted(set(wanted)))}
        return output, [maps[order[index]] for index in wanted]

    def _grid(self, x: Tensor) -> tuple[int, int] | None:
        patch: Any = getattr(self.network, "patch_embed", None)
        if self.layout.kind != "tokens" or not hasattr(patch, "patch_size"):
            return None
        stride = self.stage_strides[-1] if self.stage_strides else patch.patch_size[0]
        return x.shape[2] // stride, x.shape[3] // stride

    def train(self, mode: bool = True) -> "Backbone":
        """Switch to training as the normalisation policy allows, or to evaluation."""
        super().train(mode)
        policy = self.config.normalization
        apply_policy(self.network, policy, self.config.slow_momentum, mode=mode)
        if mode and self.first_trained > 0 and policy != "frozen":
            for name, layer in self.network.named_modules():
                owned = [
                    self._stage_of[f"{name}.{key}"]
                    for key, _ in layer.named_parameters(recurse=False)
                ]
                if owned and max(owned) < self.first_trained:
                    apply_policy(layer, "frozen", 0.0, mode=True)
        return self

    def _freeze(self) -> None:
        for name, parameter in self.network.named_parameters():
            if self._stage_of[name] < self.first_trained:
                parameter.requires_grad_(False)
        if not self.config.norm_affine_trainable:
            for parameter in norm_parameters(self.network):
                parameter.requires_grad_(False)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Trainable parameters by stage, for the optimiser.

        Returns:
            Dictionaries with ``params``, ``lr_ratio``, ``decay`` (False for norms, biases,
            position and class tokens) and ``name``.
        """
        without = set(getattr(self.network, "no_weight_decay", set)())
        ratios = _spread(self.config.lr_ratios, self.stage_count)
        groups: dict[tuple[int, bool], list[nn.Parameter]] = {}
        for name, parameter in self.network.named_parameters():
            if parameter.requires_grad:
                decay = parameter.ndim > 1 and name not in without
                groups.setdefault((self._stage_of[name], decay), []).append(parameter)
        inserted = [p for p in self.insertions.parameters() if p.requires_grad]
        new = {decay: [p for p in inserted if (p.ndim > 1) == decay] for decay in (False, True)}
        return [
            {
                "params": parameters,
                "lr_ratio": ratios[stage],
                "decay": decay,
                "name": f"stage{stage}{'' if decay else '.no_decay'}",
            }
            for (stage, decay), parameters in sorted(groups.items(), key=lambda item: item[0])
        ] + [
            {
                "params": parameters,
                "lr_ratio": 1.0,
                "decay": decay,
                "name": f"insertions{'' if decay else '.no_decay'}",
            }
            for decay, parameters in new.items()
            if parameters
        ]

    @torch.no_grad()
    def blend_with(self, start: "Backbone", share: float) -> None:
        """Move every weight and statistic back towards the start's: ``start + share * (own - start)``.

        Inserted modules, which have no start, stay as they are. What training moves far on few
        photos is often less true of others than half the way.

        Args:
            start: The same network before training; not changed.
            share: In [0, 1]; 1 changes nothing, 0 is the start.

        Source:
            Wortsman et al. 2022, arXiv:2109.01903 (WiSE-FT), Eq. 1; there between a zero-shot
            and a fine-tuned network.
        """
        own = self.network.state_dict(keep_vars=True)
        for name, value in start.network.state_dict().items():
            if value.is_floating_point():
                trained = own[name]
                trained.copy_(torch.lerp(value.to(trained), trained, share))

    def reestimate_statistics(self, batches: Iterable[Float[Tensor, "B 3 H W"]]) -> int:
        """Measure batch-norm statistics anew over batches of images in [0, 1].

        Returns:
            Number of batches used; 0 for networks without batch-norm.
        """
        return reestimate(self, batches)


def _default_name(weights: str | None) -> str | None:
    # A file may name its network; everything else needs one.
    named = weights is not None and weights not in {"auto", "random", "hub"}
    return None if named else "resnet50"


def _create(name: str, arguments: dict[str, Any], size: int, seed: int) -> nn.Module:
    """Build a timm network without a classifier, for any image size it allows."""
    # Weights files and artifacts name arguments too, and timm reads checkpoints (pickles) by them.
    refused = sorted(set(arguments) & set(inspect.signature(timm.create_model).parameters))
    if refused:
        raise InputError(
            f"backbone.arguments holds {', '.join(refused)}, which is no argument of '{name}' but "
            "one of timm's loader and never used here; give weights with backbone.weights."
        )
    config = timm.models.get_pretrained_cfg(name) or timm.models.get_pretrained_cfg(
        name.split(".")[0]
    )
    fixed = bool(getattr(config, "fixed_input_size", False))
    # Networks with position embeddings either resample them at each call or are built for a size.
    attempts: list[dict[str, Any]] = (
        [{"dynamic_img_size": True}, {"img_size": size}] if fixed else []
    )
    with torch.random.fork_rng(devices=[]):
        failure: Exception | None = None
        for extra in [*attempts, {}]:
            torch.manual_seed(seed_of("weights", name, seed))
            try:
                return timm.create_model(
                    name, pretrained=False, num_classes=0, **extra, **arguments
                )
            except TypeError as error:
                failure = error
            except (AssertionError, ValueError, RuntimeError) as error:
                failure = error
                if not extra:
                    break
    given = ", ".join(sorted(arguments)) or "none"
    raise InputError(
        f"'{name}' cannot be built for {size} px with these arguments ({given}): "
        f"{str(failure).splitlines()[0][:160] if str(failure) else type(failure).__name__}; correct "
        "backbone.arguments or the size."
    )


def _parameter_stages(network: nn.Module) -> dict[str, int]:
    """Stage of each parameter: stem 0, then timm's coarse layer groups."""
    names = [name for name, _ in network.named_parameters()]
    matcher = getattr(network, "group_matcher", None)
    if matcher is None:
        return dict.fromkeys(names, 0)
    try:
        groups = group_parameters(network, matcher(coarse=True))
    except (TypeError, KeyError, AttributeError, ValueError):
        return dict.fromkeys(names, 0)
    found = {
        name: stage for stage, (_, members) in enumerate(sorted(groups.items())) for name in members
    }
    return {name: found.get(name, 0) for name in names}


def _first_trained(stage: int, count: int) -> int:
    first = stage + count if stage < 0 else stage
    if not 0 <= first < count:
        raise InputError(
            f"train_from_stage must be in [-{count}, {count - 1}] for this network of {count} "
            f"stages, got {stage}."
        )
    return first


def _grain(network: nn.Module, strides: Sequence[int]) -> int:
    """Pixels by which a network's input may grow: 32, or what its patches and windows need."""
    patch = getattr(getattr(network, "patch_embed", None), "patch_size", None) or 1
    patch = patch[0] if isinstance(patch, (tuple, list)) else patch
    # MaxViT's last map must be cut into whole windows; Swin pads instead.
    windows = [m.partition_size[0] for m in network.modules() if hasattr(m, "partition_size")]  # type: ignore[index]
    step = math.lcm(int(patch), max(windows) * strides[-1] if windows and strides else 1)
    return step if 32 % step else 32


def _spread(ratios: tuple[float, ...], count: int) -> list[float]:
    if not ratios:
        return [1.0] * count
    if len(ratios) > count:
        raise InputError(f"lr_ratios has {len(ratios)} values for a network of {count} stages.")
    if len(ratios) == 1 or count == 1:
        return [ratios[-1]] * count
    logs = torch.tensor(ratios, dtype=torch.float64).log()
    position = torch.linspace(0, len(ratios) - 1, count, dtype=torch.float64)
    low = position.floor().long().clamp_max(len(ratios) - 2)
    between = position - low
    return ((1 - between) * logs[low] + between * logs[low + 1]).exp().tolist()
