"""Measures of a network's features that need no labels, taken on the same photos every epoch."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from fieldmark import rng
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


def feature_spread(features: Float[Tensor, "N D"]) -> float:
    """Standard deviation over photos, mean over dimensions, times the square root of D.

    Source:
        Chen and He 2021, arXiv:2011.10566, section 4.1: std of unit vectors is 1/sqrt(D) when
        they fill the sphere and 0 when they have collapsed.
    """
    return float(features.std(0, correction=0).mean() * features.shape[1] ** 0.5)


def effective_rank(features: Float[Tensor, "N D"]) -> float:
    """Exponential of the entropy of the singular values (RankMe).

    Source:
        Garrido et al. 2023, arXiv:2210.02885, Eq. 1.
    """
    wide = features.double()
    gram = wide @ wide.T if len(wide) < wide.shape[1] else wide.T @ wide
    singular = torch.linalg.eigvalsh(gram).clamp(min=0).sqrt()
    share = singular / singular.sum().clamp(min=1e-12) + 1e-7
    return float(torch.exp(-(share * share.log()).sum()))


def alignment(first: Float[Tensor, "N D"], second: Float[Tensor, "N D"]) -> float:
    """Mean squared distance between two views of the same photo.

    Source:
        Wang and Isola 2020, arXiv:2005.10242, Eq. 4 with alpha 2.
    """
    return float((first - second).square().sum(1).mean())


def uniformity(features: Float[Tensor, "N D"]) -> float:
    """Logarithm of the mean Gaussian potential between photos.

    Source:
        Wang and Isola 2020, arXiv:2005.10242, Eq. 5 with t = 2.
    """
    squared = (2 - 2 * features @ features.T).clamp(min=0)
    upper = torch.triu(torch.ones_like(squared, dtype=torch.bool), diagonal=1)
    return float((-2 * squared[upper]).exp().mean().log())


def view_recall(first: Float[Tensor, "N D"], second: Float[Tensor, "N D"]) -> float:
    """Share of first views whose nearest second view is their own photo's.

    Equal similarities count as misses, so a collapsed network scores 0.
    """
    similarity = first @ second.T
    own = similarity.diagonal().clone()
    similarity.fill_diagonal_(-torch.inf)
    return float((own > similarity.max(1).values).float().mean())


def neighbours(features: Float[Tensor, "N D"], k: int) -> Int[Tensor, "N K"]:
    """Rows of the ``k`` nearest other photos by cosine."""
    similarity = features @ features.T
    similarity.fill_diagonal_(-torch.inf)
    return similarity.topk(min(k, len(features) - 1)).indices


def neighbour_agreement(before: Int[Tensor, "N K"], after: Int[Tensor, "N K"]) -> float:
    """Mean share of neighbours that two lists have in common."""
    return float((before[:, :, None] == after[:, None, :]).any(2).float().mean())


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
