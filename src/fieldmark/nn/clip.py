"""Published text-image networks as teachers: adapters for open_clip and transformers.

Both packages are imported when a teacher is loaded and by nothing else, so that embedding,
exporting and every other method work without them. Files of code are never run and pickles never
read.
"""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from fieldmark.backbones.weights import read_metadata
from fieldmark.errors import MissingExtraError, WeightsError
from fieldmark.nn.frozen import CLIP, FrozenTeacher, Statistics, TeacherNorm
from fieldmark.nn.places import HOW_TO_GET, explained, find, offline, only_safetensors


class OpenClipTeacher(FrozenTeacher):
    """A network of the open_clip package.

    Args:
        network: What ``open_clip.create_model`` returned.
        tokenizer: What ``open_clip.get_tokenizer`` returned.
        teacher_norm: See :class:`FrozenTeacher`.
    """

    def __init__(
        self,
        network: nn.Module,
        tokenizer: Callable[..., Any],
        *,
        teacher_norm: TeacherNorm = "clip",
    ) -> None:
        model: Any = network
        prepared = model.visual.preprocess_cfg
        size = prepared["size"]
        super().__init__(
            network,
            size=size if isinstance(size, int) else size[0],
            scale=float(model.logit_scale.detach().exp()),
            statistics=(tuple(prepared["mean"]), tuple(prepared["std"])),
            teacher_norm=teacher_norm,
            squash=prepared["resize_mode"] == "squash",
        )
        self._tokenizer = tokenizer
        self.dim = self.encode_texts(["a"]).shape[1]

    def _embed_images(self, images: Tensor) -> Tensor:
        return self._network.encode_image(images)

    def _embed_texts(self, texts: list[str]) -> Tensor:
        return self._network.encode_text(self._tokenizer(texts).to(self._like.device))

    @classmethod
    def load(cls, place: str, *, teacher_norm: TeacherNorm = "clip") -> "OpenClipTeacher":
        """Load ``MODEL:FILE.safetensors``, ``MODEL:TAG`` or a folder.

        A file alone does not say how images were normalised: open_clip's first tag of the same
        model is taken. A folder says it itself, in ``open_clip_config.json``.

        Raises:
            MissingExtraError: If open_clip is not installed.
            WeightsError: If there is no such model or file, or the file is a pickle.
        """
        open_clip = _import("open_clip")
        model, _, weights = place.partition(":")
        if not weights:
            folder = find(place)
            if folder is None or not (folder / "open_clip_config.json").is_file():
                raise WeightsError(
                    f"open_clip needs MODEL:FILE, MODEL:TAG or a folder with open_clip_config.json, "
                    f"got 'open_clip:{place}'. {HOW_TO_GET}"
                )
            # create_model reads from the folder how images are normalised.
            settings: dict[str, Any] = {}
            file, name = only_safetensors(folder), f"local-dir:{folder}"
        else:
            if model not in open_clip.list_models():
                raise WeightsError(
                    f"open_clip has no model '{model}'; its models are such as ViT-B-32, "
                    "ViT-B-32-quickgelu or ViT-B-16-SigLIP (open_clip.list_models())."
                )
            file, settings = _open_clip_file(open_clip, model, weights)
            name = model
        read_metadata(file)
        kept = ("mean", "std", "interpolation", "resize_mode", "fill_color")
        settings = {key: settings[key] for key in kept if settings.get(key) is not None}
        with explained(f"open_clip:{place}"):
            network = open_clip.create_model(
                name,
                pretrained=None if name.startswith("local-dir:") else str(file),
                force_preprocess_cfg=settings,
            )
            tokenizer = open_clip.get_tokenizer(name)
        return cls(network, tokenizer, teacher_norm=teacher_norm)


class TransformersTeacher(FrozenTeacher):
    """A CLIP or SigLIP network of the transformers package.

    SigLIP adds a bias to its logits; it is the same for all texts, so a softmax over texts does
    not see it.

    Args:
        network: With ``get_image_features``, ``get_text_features`` and ``logit_scale``.
        tokenizer: Its tokenizer.
        statistics: Mean and deviation of its image processor.
        teacher_norm: See :class:`FrozenTeacher`.
        squash: Whether its image processor changes the shape of images.
    """

    def __init__(
        self,
        network: nn.Module,
        tokenizer: Callable[..., Any],
        *,
        statistics: Statistics = CLIP,
        teacher_norm: TeacherNorm = "clip",
        squash: bool = False,
    ) -> None:
        model: Any = network
        super().__init__(
            network,
            size=model.config.vision_config.image_size,
            scale=float(model.logit_scale.detach().exp()),
            statistics=statistics,
            teacher_norm=teacher_norm,
            squash=squash,
        )
        # SigLIP was trained on texts filled up to their full length, and reads the last place.
        self._filled = "siglip" in model.config.model_type
        self._limit: int = model.config.text_config.max_position_embeddings
        self._tokenizer = tokenizer
        self.dim = self.encode_texts(["a"]).shape[1]

    def _embed_images(self, images: Tensor) -> Tensor:
        return _pooled(self._network.get_image_features(pixel_values=images))

    def _embed_texts(self, texts: list[str]) -> Tensor:
        tokens = self._tokenizer(
            texts,
            padding="max_length" if self._filled else True,
            truncation=True,
            max_length=self._limit,
            return_tensors="pt",
        )
        names = ("input_ids",) if self._filled else ("input_ids", "attention_mask")
        given = {name: tokens[name].to(self._like.device) for name in names}
        return _pooled(self._network.get_text_features(**given))

    @classmethod
    def load(cls, place: str, *, teacher_norm: TeacherNorm = "clip") -> "TransformersTeacher":
        """Load a folder that transformers wrote, or a name on the hub.

        Raises:
            MissingExtraError: If transformers is not installed.
            WeightsError: If there is no such folder or name, it holds no safetensors file, or the
                network has no towers for images and texts.
        """
        transformers = _import("transformers")
        if find(place) is None and (place.startswith((".", "/", "~")) or place.count("/") > 1):
            raise WeightsError(f"there is no folder {place} (text teacher). {HOW_TO_GET}")
        with explained(f"transformers:{place}"), _quiet(transformers):
            folder = find(place) or _from_hub(place)
            read_metadata(only_safetensors(folder))
            # From a folder only: given a hub's name, transformers looks there even when told not
            # to. Files of code are never run (trust_remote_code) and pickles never read.
            never = {"local_files_only": True, "trust_remote_code": False}
            network = transformers.AutoModel.from_pretrained(folder, use_safetensors=True, **never)
            tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **never)
            images = transformers.AutoImageProcessor.from_pretrained(folder, **never)
        if not hasattr(network, "get_text_features") or not hasattr(network, "logit_scale"):
            raise WeightsError(
                f"'{place}' is a {type(network).__name__}, which does not place images and texts "
                f"in one space; a CLIP or SigLIP network is needed. {HOW_TO_GET}"
            )
        return cls(
            network,
            tokenizer,
            statistics=(tuple(images.image_mean), tuple(images.image_std)),
            teacher_norm=teacher_norm,
            squash=not getattr(images, "do_center_crop", None),
        )


@contextlib.contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """Without transformers' own progress bar: a library says nothing."""
    bars = transformers.utils.logging.is_progress_bar_enabled()
    transformers.utils.logging.disable_progress_bar()
    try:
        yield
    finally:
        if bars:
            transformers.utils.logging.enable_progress_bar()


def _pooled(output: Any) -> Tensor:
    # Since version 5 transformers returns an object with more in it, before that a tensor.
    tensor: Tensor = output if isinstance(output, Tensor) else output.pooler_output
    return tensor


def _import(package: str) -> Any:
    try:
        # Imported here: embedding, exporting and every other method work without it.
        if package == "open_clip":
            import open_clip

            return open_clip
        import transformers

        return transformers
    except ImportError:
        raise MissingExtraError(package, "text", "for this text teacher") from None


def _from_hub(name: str) -> Path:
    """The folder in the hub's local cache, filled first unless offline."""
    if offline():
        return _cached(name, "config.json").parent
    import huggingface_hub

    kept = ["*.safetensors", "*.json", "*.txt", "*.model"]
    return Path(huggingface_hub.snapshot_download(name, allow_patterns=kept))


def _cached(repository: str, name: str) -> Path:
    # The hub's client asks its server who is calling even when told to stay local; this does not.
    import huggingface_hub

    found = huggingface_hub.try_to_load_from_cache(repository, name)
    if not isinstance(found, str):
        raise FileNotFoundError(f"{repository}/{name} is not in the hub's local cache")
    return Path(found)


def _open_clip_file(open_clip: Any, model: str, weights: str) -> tuple[Path, dict[str, Any]]:
    """The file, and how its images are normalised."""
    tags = open_clip.list_pretrained_tags_by_model(model)
    if weights not in tags:
        file = find(weights)
        if file is None:
            known = f"; its tags: {', '.join(tags)}" if tags else ""
            raise WeightsError(
                f"there is no file '{weights}' and no tag of that name for open_clip's model "
                f"'{model}'{known}. {HOW_TO_GET}"
            )
        file = only_safetensors(file) if file.is_dir() else file
        return file, open_clip.get_pretrained_cfg(model, tags[0]) if tags else {}
    settings = open_clip.get_pretrained_cfg(model, weights)
    repository = str(settings.get("hf_hub", "")).rsplit("/", 1)[0]
    name = "open_clip_model.safetensors"
    with explained(f"open_clip:{model}:{weights}"):
        if offline():
            return _cached(repository, name), settings
        import huggingface_hub

        return Path(huggingface_hub.hf_hub_download(repository, name)), settings
