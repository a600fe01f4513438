"""Measures of a network's features that need no labels, taken on the same photos every epoch."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fieldmark import rng
from fieldmark.nn.measures import (
    alignment,
    effective_rank,
    feature_spread,
    neighbour_agreement,
    neighbours,
    uniformity,
    view_recall,
)
from fieldmark.training.precision import Precision, autocast

Images = Float[Tensor, "B 3 H W"]
MEASURES = {
    "feature_spread": "how much features differ between photos: 0 all alike, 1 evenly spread",
    "effective_rank": "number of directions that features use",
    "alignment": "squared distance between two views of a photo; lower is closer",
    "uniformity": "how evenly features fill the sphere; lower is more even",
    "view_recall": "share of views that find their photo's other view first",
    "start_neighbours": "share of the start's nearest neighbours that are still nearest",
    "feature_distance": "1 - cosine between a photo's feature now and at the start",
    "weight_distance": "length of the way the weights have come, relative to their size",
}
"""What each measure says, for logs and reports."""


class HealthProbe:
    """Looks at a fixed sample of photos through the network, every epoch.

    Args:
        start: Encoder that training starts from: images to unit vectors. Its features are taken
            now; the network itself is not kept, but its backbone's weights are.
        views: Makes the sample's images: two held-out augmented views and the plain look. Called at
            each look, so that nothing large stays in memory; must give the same images each time.
        neighbours_kept: k of the agreement with the start.
        every_epochs: Epochs between two looks.
        device: Where the encoder computes.
        batch_size: Images per forward pass.
    """

    def __init__(
        self,
        start: nn.Module,
        views: Callable[[], tuple[Tensor, Tensor, Tensor]],
        *,
        neighbours_kept: int = 10,
        every_epochs: int = 1,
        device: torch.device | str = "cpu",
        batch_size: int = 128,
    ) -> None:
        self.views = views
        self.k = neighbours_kept
        self.every_epochs = every_epochs
        self.device = torch.device(device)
        self.batch_size = batch_size
        self._weights = _weights(start)
        _, _, plain = self.views()
        self._features = self._embed(start, plain, "fp32")
        self._neighbours = neighbours(self._features, self.k)

    @classmethod
    def build(
        cls,
        start: nn.Module,
        store: Any,
        rows: Any,
        multi_view: Any,
        *,
        size: int,
        seed: int = 0,
        photos: int = 512,
        neighbours_kept: int = 10,
        every_epochs: int = 1,
        device: torch.device | str = "cpu",
    ) -> "HealthProbe":
        """A probe on photos of a store, with views that training never sees.

        Args:
            start: Encoder that training starts from.
            store: Photo store.
            rows: Catalog rows to choose from; at most ``photos`` of them are used.
            multi_view: The method's views; the first two are looked at.
            size: Pixels a side of the plain look.
            seed: Seed of the run.
            photos: Size of the sample.
            neighbours_kept: k of the agreement with the start.
            every_epochs: Epochs between two looks.
            device: Where to compute.
        """
        import numpy as np

        from fieldmark.data.views import ViewMaker, center_views

        rows = np.asarray(rows)
        order = np.argsort(rng.mix("health", seed, rows), kind="stable")
        sample = np.sort(rows[order[:photos]])
        # Another seed, so that these views are not among those trained on.
        held_out = rng.seed_of("health", "views", seed)
        maker = ViewMaker(store, multi_view, seed=held_out, device=torch.device(device))

        def views() -> tuple[Tensor, Tensor, Tensor]:
            first, second = (view.images for view in maker.make(sample, 0)[:2])
            return first, second, center_views(store, sample, size).images

        return cls(
            start,
            views,
            neighbours_kept=neighbours_kept,
            every_epochs=every_epochs,
            device=device,
        )

    @torch.no_grad()
    def _embed(
        self, encoder: nn.Module, images: Tensor, precision: Precision
    ) -> Float[Tensor, "N D"]:
        modes = [(part, part.training) for part in encoder.modules()]
        encoder.eval()
        try:
            with autocast(precision, self.device):
                parts = [
                    encoder(part.to(self.device).float()) for part in images.split(self.batch_size)
                ]
        finally:
            # Part by part: a backbone may keep some of its parts in eval mode for ever.
            for part, training in modes:
                part.training = training
        return nn.functional.normalize(torch.cat(parts).float().cpu(), dim=1)

    def look(self, encoder: nn.Module, precision: Precision = "fp32") -> dict[str, float]:
        """Measure an encoder.

        Args:
            encoder: Images to unit vectors; its modes are left as they were.
            precision: Arithmetic of the forward passes.

        Returns:
            One number for each of ``MEASURES``.
        """
        first, second, plain = (self._embed(encoder, x, precision) for x in self.views())
        return {
            "feature_spread": feature_spread(plain),
            "effective_rank": effective_rank(plain),
            "alignment": alignment(first, second),
            "uniformity": uniformity(plain),
            "view_recall": view_recall(first, second),
            "start_neighbours": neighbour_agreement(self._neighbours, neighbours(plain, self.k)),
            "feature_distance": float((1 - (plain * self._features).sum(1)).mean()),
            "weight_distance": self._way(encoder),
        }

    def _way(self, encoder: nn.Module) -> float:
        now = _weights(encoder)
        moved = total = 0.0
        for name, before in self._weights.items():
            if name in now:
                moved += float((now[name] - before).square().sum())
                total += float(before.square().sum())
        return (moved / total) ** 0.5 if total else 0.0


def _weights(encoder: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().float().cpu().clone() for name, p in encoder.named_parameters()}
