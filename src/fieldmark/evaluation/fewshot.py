"""N-way K-shot episodes: how well a handful of labelled photos tells a few new classes apart."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from fieldmark.errors import InputError
from fieldmark.evaluation.retrieval import Matrix, unit_rows
from fieldmark.rng import seed_of


class FewShot(NamedTuple):
    """Accuracy over episodes."""

    accuracy: float
    """Mean, percent."""
    margin: float
    """Half of the 95 % interval of the mean over episodes, points."""
    episodes: Float[np.ndarray, " E"]
    """Accuracy of each, in [0, 1]."""


def few_shot(
    embeddings: Matrix,
    labels: Int[np.ndarray, " N"],
    *,
    ways: int = 5,
    shots: int = 1,
    queries: int = 15,
    episodes: int = 600,
    seed: int = 0,
) -> FewShot:
    """Nearest mean of class in episodes drawn from photos that nothing was fitted on.

    An episode draws ``ways`` classes and of each ``shots`` photos that are shown with their class and
    up to ``queries`` others that are asked; a query takes the class whose mean of shown embeddings has
    the largest cosine with it. Both sides of a comparison get the same episodes.

    Args:
        embeddings: One row a photo.
        labels: Their classes.
        ways: Classes in an episode, >= 2.
        shots: Photos shown of each class, >= 1.
        queries: Photos asked of each class, at most; classes with fewer than ``shots + 1`` photos
            take no part.
        episodes: How many, >= 2.
        seed: Same seed, same episodes.

    Raises:
        InputError: If a number is out of range or too few classes have enough photos.

    Source:
        Snell, Swersky and Zemel 2017, arXiv:1703.05175, with cosine; 600 episodes and the interval:
        Chen et al. 2019, arXiv:1904.04232.
    """
    if ways < 2 or shots < 1 or queries < 1 or episodes < 2:
        raise InputError(
            f"few-shot episodes need ways >= 2, shots >= 1, queries >= 1 and episodes >= 2, got {ways}, "
            f"{shots}, {queries} and {episodes}; usual are 5, 1, 15 and 600."
        )
    x = unit_rows(embeddings, "embeddings of few-shot photos")
    members = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    members = [rows for rows in members if len(rows) > shots]
    if len(members) < ways:
        raise InputError(
            f"{ways}-way {shots}-shot episodes need {ways} classes of {shots + 1} photos or more; there "
            f"are {len(members)}."
        )
    draw = np.random.default_rng(seed_of("few-shot", seed, ways, shots))
    right = np.empty(episodes)
    for episode in range(episodes):
        chosen = draw.choice(len(members), ways, replace=False)
        shown, asked, truth = [], [], []
        for way, rows in enumerate(members[i] for i in chosen):
            some = draw.permutation(rows)[: shots + queries]
            shown.append(x[some[:shots]].mean(axis=0))
            asked.append(x[some[shots:]])
            truth += [way] * len(asked[-1])
        means = unit_rows(np.stack(shown), "means of shown photos")
        right[episode] = ((np.concatenate(asked) @ means.T).argmax(axis=1) == truth).mean()
    margin = 1.96 * right.std(ddof=1) / np.sqrt(episodes)
    return FewShot(float(100 * right.mean()), float(100 * margin), right)
