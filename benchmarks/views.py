"""Views per second and core, and how close they are, against torchvision v2 and lightly.

    python benchmarks/views.py [--photos FOLDER] [--size 128] [--short-side 288]

Every pipeline starts from the same stored uint8 pixels and ends with a float batch in [0, 1], with
the same distribution of crops, flips, jitter, grayscale and blur (MoCo v2's). One core: one thread,
no workers. Rounds alternate between pipelines, so that a busy machine slows all of them.
"""

import argparse
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageFilter
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F  # noqa: N812

from _record import record
from fieldmark.data.catalog import Catalog
from fieldmark.data.colour import compose
from fieldmark.data.decode import decode
from fieldmark.data.layout import MemoryPhotos
from fieldmark.data.resample import blur_radius, fast_bfloat16
from fieldmark.data.sampling import MultiView, ViewSpec, draw_views
from fieldmark.data.views import ViewMaker, center_views, render
from fieldmark.runtime import tune_allocator

CPU = torch.device("cpu")


def load(folder: Path | None, short_side: int, count: int) -> list[np.ndarray]:
    if folder is not None:
        catalog = Catalog.open(folder)
        rows = np.linspace(0, len(catalog) - 1, min(count, len(catalog))).astype(int)
        return [decode(catalog.read(int(row)), short_side=short_side).pixels for row in rows]
    rng = np.random.default_rng(0)
    photos = []
    for index in range(count):
        height, width = short_side, round(short_side * (1 + 0.5 * (index % 4) / 3))
        coarse = rng.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
        smooth = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
        photos.append(np.asarray(smooth))
    return photos


class PillowBlur:
    """Gaussian blur as MoCo's and lightly's loaders do it."""

    def __init__(self, sigma: tuple[float, float]) -> None:
        self.sigma = sigma

    def __call__(self, image: Image.Image) -> Image.Image:
        sigma = float(torch.empty(1).uniform_(*self.sigma))
        return image.filter(ImageFilter.GaussianBlur(radius=sigma))


def chain(spec: ViewSpec, blur: Callable[[Any], Any], *end: Callable[[Any], Any]) -> Any:
    jitter = v2.ColorJitter(spec.brightness, spec.contrast, spec.saturation, spec.hue)
    return v2.Compose(
        [
            v2.RandomResizedCrop(spec.size, spec.scale, spec.ratio, antialias=True),
            v2.RandomApply([jitter], spec.jitter_probability),
            v2.RandomGrayscale(spec.gray),
            v2.RandomApply([blur], spec.blur),
            v2.RandomHorizontalFlip(spec.flip),
            *end,
        ]
    )


def pipelines(photos: list[np.ndarray], spec: ViewSpec) -> dict[str, Callable[[int], torch.Tensor]]:
    """Name to a function that makes one view of every photo."""
    to_float = v2.ToDtype(torch.float32, scale=True)
    kernel = 2 * blur_radius(spec.blur_sigma[1], spec.size) + 1
    tensors = [torch.from_numpy(photo).permute(2, 0, 1) for photo in photos]
    on_tensor = chain(spec, v2.GaussianBlur(kernel, spec.blur_sigma), to_float)
    on_pillow = chain(spec, v2.Lambda(PillowBlur(spec.blur_sigma)), v2.PILToTensor(), to_float)
    store, rows = MemoryPhotos(photos), np.arange(len(photos))
    views = MultiView(specs=(spec,))

    def fieldmark(dtype: torch.dtype) -> Callable[[int], torch.Tensor]:
        maker = ViewMaker(store, views, seed=0, dtype=dtype)
        return lambda epoch: maker.make(rows, epoch)[0].images

    made = {
        "fieldmark_float32": fieldmark(torch.float32),
        "torchvision_tensor": lambda _: torch.stack([on_tensor(image) for image in tensors]),
        "torchvision_pillow": lambda _: torch.stack(
            [on_pillow(Image.fromarray(photo)) for photo in photos]
        ),
    }
    if fast_bfloat16():
        made["fieldmark_bfloat16"] = fieldmark(torch.bfloat16)
    lightly = lightly_pipeline(photos, spec)
    return made | ({"lightly": lightly} if lightly else {})


def lightly_pipeline(
    photos: list[np.ndarray], spec: ViewSpec
) -> Callable[[int], torch.Tensor] | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from lightly.transforms.moco_transform import MoCoV2Transform
    except ImportError:
        return None
    both = MoCoV2Transform(
        input_size=spec.size,
        cj_prob=spec.jitter_probability,
        cj_strength=1.0,
        cj_bright=spec.brightness,
        cj_contrast=spec.contrast,
        cj_sat=spec.saturation,
        cj_hue=spec.hue,
        min_scale=spec.scale[0],
        random_gray_scale=spec.gray,
        gaussian_blur=spec.blur,
        sigmas=spec.blur_sigma,
        hf_prob=spec.flip,
        normalize=None,
    )
    one = both.transforms[0]
    return lambda _: torch.stack([one(Image.fromarray(photo)) for photo in photos])


def measure(photos: list[np.ndarray], spec: ViewSpec, rounds: int) -> dict[str, Any]:
    made = pipelines(photos, spec)
    seconds: dict[str, list[float]] = {name: [] for name in made}
    for make in made.values():
        make(0)
    for epoch in range(1, rounds + 1):
        for name, make in made.items():
            start = time.perf_counter()
            make(epoch)
            seconds[name].append(time.perf_counter() - start)
    others = [name for name in made if not name.startswith("fieldmark")]
    ours = [name for name in made if name.startswith("fieldmark")]
    fastest = min(others, key=lambda name: statistics.median(seconds[name]))
    return {
        "views_per_second_per_core": {
            name: round(len(photos) / statistics.median(times), 1)
            for name, times in seconds.items()
        },
        "views_per_second_per_core_best_round": {
            name: round(len(photos) / min(times), 1) for name, times in seconds.items()
        },
        "fastest_other": fastest,
        "ratio": {
            name: round(
                statistics.median(b / a for a, b in zip(seconds[name], seconds[fastest])), 2
            )
            for name in ours
        },
        "target_ratio": 5.0,
    }


def closeness(photos: list[np.ndarray], spec: ViewSpec) -> dict[str, Any]:
    """Differences from torchvision on the same parameters, in units of 1/255."""
    store, rows = MemoryPhotos(photos), np.arange(len(photos))
    draws = draw_views(spec, store.shapes, rows, seed=0, epoch=0, view=0)
    kernel = 2 * blur_radius(spec.blur_sigma[1], spec.size) + 1
    floats = [torch.from_numpy(photo).permute(2, 0, 1).float() / 255 for photo in photos]
    geometry, coloured = [], []
    for index, image in enumerate(floats):
        top, left, height, width = (int(part[index]) for part in draws.crops)
        size = [spec.size, spec.size]
        plain = F.resized_crop(image, top, left, height, width, size, antialias=True)
        plain = F.horizontal_flip(plain) if draws.flipped[index] else plain
        sigma = float(draws.sigma[index])
        blurred = F.gaussian_blur(plain, [kernel] * 2, [sigma] * 2) if sigma > 0 else plain
        geometry.append(blurred)
        out = plain
        for which in draws.colour.order[index]:
            step = (
                F.adjust_brightness,
                F.adjust_contrast,
                F.adjust_saturation,
                F.adjust_hue,
            )[which]
            out = step(out, float(draws.colour.factors[index, which]))
        if draws.colour.gray[index]:
            out = F.rgb_to_grayscale(out, num_output_channels=3)
        coloured.append(F.gaussian_blur(out, [kernel] * 2, [sigma] * 2) if sigma > 0 else out)
    uncoloured = spec.model_copy(update={"jitter_probability": 0.0, "gray": 0.0})
    result: dict[str, Any] = {}
    for dtype in (torch.float32, torch.bfloat16):
        name = str(dtype).removeprefix("torch.")
        pairs = {
            "crop_resize_flip_blur": (uncoloured, torch.stack(geometry)),
            "with_colour": (spec, torch.stack(coloured)),
        }
        for what, (which_spec, expected) in pairs.items():
            images = render(store, rows, draws, which_spec, device=CPU, dtype=dtype).float()
            result[f"{what}_{name}"] = difference(images, expected)
        resize = v2.Compose([v2.Resize(round(spec.size / 0.875)), v2.CenterCrop(spec.size)])
        expected = torch.stack([resize(image) for image in floats])
        images = center_views(store, rows, spec.size, dtype=dtype).images.float()
        result[f"center_{name}"] = difference(images, expected)
    result["single_colour_operations"] = single_operations(floats, draws)
    return result


def difference(images: torch.Tensor, expected: torch.Tensor) -> dict[str, float]:
    error = (images - expected).abs() * 255
    return {"mean": round(float(error.mean()), 4), "largest": round(float(error.max()), 3)}


def single_operations(floats: list[torch.Tensor], draws: Any) -> dict[str, Any]:
    """Each colour operation alone, beside how much torchvision's changes the photo."""
    names = {
        "brightness": F.adjust_brightness,
        "contrast": F.adjust_contrast,
        "saturation": F.adjust_saturation,
        "hue": F.adjust_hue,
    }
    result = {}
    for which, (name, step) in enumerate(names.items()):
        differences, effects = [], []
        factors = np.tile([1.0, 1.0, 1.0, 0.0], (len(floats), 1))
        factors[:, which] = draws.colour.factors[:, which]
        gray = np.zeros(len(floats), bool)
        matrix, of_mean = compose(draws.colour._replace(factors=factors, gray=gray))
        for index, image in enumerate(floats):
            expected = step(image, float(factors[index, which]))
            flat = image.flatten(1).double()
            ours = torch.from_numpy(matrix[index]) @ flat
            ours += torch.from_numpy(of_mean[index]) @ flat.mean(1, keepdim=True)
            ours = ours.clamp(0, 1).view(image.shape)
            differences.append(float((ours - expected).abs().mean()) * 255)
            effects.append(float((image - expected).abs().mean()) * 255)
        result[name] = {
            "mean_difference": round(statistics.mean(differences), 3),
            "mean_effect_of_torchvisions": round(statistics.mean(effects), 3),
        }
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=Path, help="folder of photos; else smooth noise")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--short-side", type=int, default=288)
    parser.add_argument("--count", type=int, default=256, help="photos per round")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--name", default="views", help="of the result file")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    tune_allocator()
    photos = load(arguments.photos, arguments.short_side, arguments.count)
    spec = ViewSpec(size=arguments.size)
    result = {
        "settings": {
            "photos": arguments.photos.name if arguments.photos else "smooth noise",
            "count": len(photos),
            "mean_height": round(float(np.mean([photo.shape[0] for photo in photos]))),
            "mean_width": round(float(np.mean([photo.shape[1] for photo in photos]))),
            "rounds": arguments.rounds,
            "threads": 1,
            "views": spec.dump(),
        },
        "speed": measure(photos, spec, arguments.rounds),
        "difference_from_torchvision_in_255ths": closeness(photos, spec),
    }
    print(result["speed"])
    print(result["difference_from_torchvision_in_255ths"])
    print(record(arguments.name, result))


if __name__ == "__main__":
    main()
