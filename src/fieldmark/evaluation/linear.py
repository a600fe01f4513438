"""Linear probes on frozen embeddings, at any fraction of the labels (docs/protocols.md, P-LIN)."""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, Int
from scipy.optimize import minimize
from torch import Tensor

from fieldmark.errors import InputError
from fieldmark.evaluation.retrieval import Matrix, unit_rows
from fieldmark.rng import seed_of


class Probe(NamedTuple):
    """A linear classifier of unit vectors."""

    weight: Float[np.ndarray, "C D"]
    bias: Float[np.ndarray, " C"]

    def scores(self, embeddings: Matrix) -> Float[np.ndarray, "N C"]:
        """Logit of each class for each photo."""
        return unit_rows(embeddings, "embeddings to classify") @ self.weight.T + self.bias

    def predict(self, embeddings: Matrix) -> Int[np.ndarray, " N"]:
        """Class of each photo; of equal logits the smaller class."""
        return self.scores(embeddings).argmax(axis=1)


def logistic_probe(
    train: Matrix,
    train_labels: Int[np.ndarray, " N"],
    *,
    classes: int,
    strength: float = 10.0,
    max_steps: int = 300,
) -> Probe:
    """Multinomial logistic regression on L2-normalised embeddings, by L-BFGS from zero.

    Minimises ``strength * sum_i CE_i + ||W||^2 / 2`` (scikit-learn's ``C``; the bias is free).
    Draws nothing at random.

    Args:
        train: Embeddings of labelled photos.
        train_labels: Their classes, 0 to ``classes - 1``.
        classes: Number of classes; classes without train photos are never predicted.
        strength: Weight of the data against the penalty, above 0; 10 suits unit vectors.
        max_steps: Most L-BFGS steps.

    Raises:
        InputError: If labels are out of range or ``strength`` is not positive.
    """
    x, labels = _check(train, train_labels, classes)
    if strength <= 0:
        raise InputError(f"strength must be above 0, got {strength}; 10 suits unit vectors.")
    seen, targets = np.unique(labels, return_inverse=True)
    weight, bias = _fit(
        torch.from_numpy(x), torch.from_numpy(targets), len(seen), strength, max_steps
    )
    full = Probe(np.zeros((classes, x.shape[1]), np.float32), np.full(classes, -1e9, np.float32))
    full.weight[seen], full.bias[seen] = weight, bias
    return full


def _fit(
    x: Float[Tensor, "N D"],
    targets: Int[Tensor, " N"],
    classes: int,
    strength: float,
    max_steps: int,
) -> tuple[Float[np.ndarray, "C D"], Float[np.ndarray, " C"]]:
    rows = torch.arange(len(x))
    # The free bias absorbs the mean, so centring leaves the solution as it is and spares steps
    # where features share a large mean, as after a ReLU.
    mean = x.double().mean(dim=0)
    # The penalty keeps weights in the span of the photos: fewer photos than dimensions, less work.
    basis = torch.linalg.qr((x.double() - mean).T)[0] if len(x) < x.shape[1] else None
    x = x - mean.float()
    if basis is not None:
        x = x @ basis.float()
    dim = x.shape[1]
    # The optimiser sees the mean loss, whose gradient does not grow with the number of photos.
    scale = 1.0 / (strength * len(x))

    def objective(flat: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
        parameters = torch.from_numpy(flat).float().view(classes, dim + 1)
        weight, bias = parameters[:, :dim], parameters[:, dim]
        log_probability = torch.log_softmax(torch.addmm(bias, x, weight.T), dim=1)
        loss = -log_probability[rows, targets].double().mean()
        loss = loss + scale / 2 * weight.double().square().sum()
        residual = log_probability.exp_()
        residual[rows, targets] -= 1
        residual /= len(x)
        gradient = torch.empty_like(parameters)
        gradient[:, :dim] = residual.T @ x + scale * weight
        gradient[:, dim] = residual.sum(dim=0)
        return float(loss), gradient.double().flatten().numpy()

    found = minimize(
        objective,
        np.zeros(classes * (dim + 1)),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": max_steps, "ftol": 1e-7, "gtol": 1e-6, "maxcor": 10},
    )
    solution = found.x.reshape(classes, dim + 1)
    weight = solution[:, :dim] if basis is None else solution[:, :dim] @ basis.numpy().T
    bias = solution[:, dim] - weight @ mean.numpy()
    return weight.astype(np.float32), bias.astype(np.float32)


def sgd_probe(
    epochs: Iterable[tuple[Matrix, Int[np.ndarray, " N"]]],
    *,
    classes: int,
    total_epochs: int = 100,
    lr: float = 30.0,
    momentum: float = 0.9,
    batch_size: int = 256,
    milestones: Sequence[float] = (0.6, 0.8),
    seed: int = 0,
) -> Probe:
    """The probe of the fine-grained literature: SGD with a large rate on unit vectors.

    Args:
        epochs: For each epoch the embeddings of that epoch's views and their labels; when it ends
            early it is read again from its first entry (a list of cached views is cycled).
        classes: Number of classes.
        total_epochs: Passes to make.
        lr: Rate; 30 makes sense because embeddings have unit length.
        momentum: SGD momentum.
        batch_size: Photos per step.
        milestones: Fractions of the run at which the rate is divided by 10.
        seed: Seeds weights and order.

    Source:
        Shu, van den Hengel and Liu 2023 (LCR), linear evaluation: weight N(0, 0.01), bias 0, SGD
        lr 30, momentum 0.9, no decay, batch 256, 100 epochs, rate x 0.1 at 60 and 80.
    """
    cached = [(_check(x, labels, classes)) for x, labels in epochs]
    if not cached:
        raise InputError("the SGD probe got no views; give the embeddings of at least one epoch.")
    generator = torch.Generator().manual_seed(seed_of("sgd-probe", seed))
    weight = torch.randn(classes, cached[0][0].shape[1], generator=generator) * 0.01
    bias = torch.zeros(classes)
    parameters = torch.cat([weight, bias[:, None]], dim=1)
    velocity = torch.zeros_like(parameters)
    for epoch in range(total_epochs):
        drops = sum(epoch >= fraction * total_epochs for fraction in milestones)
        x, labels = (torch.from_numpy(part) for part in cached[epoch % len(cached)])
        for rows in torch.randperm(len(x), generator=generator).split(batch_size):
            photos, targets = x[rows], labels[rows]
            # The gradient of softmax cross-entropy, written out: a layer this small spends its
            # time in autograd's and the optimiser's bookkeeping otherwise.
            residual = torch.softmax(photos @ parameters[:, :-1].T + parameters[:, -1], dim=1)
            residual[torch.arange(len(rows)), targets] -= 1
            residual /= len(rows)
            velocity *= momentum
            velocity[:, :-1].addmm_(residual.T, photos)
            velocity[:, -1] += residual.sum(dim=0)
            parameters -= lr * 0.1**drops * velocity
    return Probe(parameters[:, :-1].contiguous().numpy(), parameters[:, -1].contiguous().numpy())


def label_subset(
    labels: Int[np.ndarray, " N"], fraction: float, seed: int = 0
) -> Int[np.ndarray, " K"]:
    """Indices of a stratified part of the train photos, ascending.

    Of each class ``ceil(fraction * n)`` photos. Subsets of one seed are nested: a smaller fraction
    is part of every larger one.

    Args:
        labels: Class of each train photo.
        fraction: In (0, 1].
        seed: Which subset; at least three are averaged in reports.

    Raises:
        InputError: If the fraction is out of range.
    """
    if not 0 < fraction <= 1:
        raise InputError(
            f"a label fraction must be above 0 and at most 1, got {fraction}; as 0.2 for 20 %."
        )
    chosen = []
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        order = np.random.default_rng(seed_of("label-subset", seed, int(label))).permutation(
            members
        )
        # 0.1 * 30 is 3.0000000000000004 in floating point; that must not make it 4.
        chosen.append(order[: math.ceil(round(fraction * len(members), 9))])
    return np.sort(np.concatenate(chosen)) if chosen else np.empty(0, np.int64)


def _check(
    x: Matrix, labels: npt.NDArray[np.integer], classes: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    if len(x) != len(labels) or len(x) == 0:
        raise InputError(
            f"a linear probe got {len(x)} embeddings and {len(labels)} labels; it needs one label "
            "for each and at least one."
        )
    if labels.min() < 0 or labels.max() >= classes:
        raise InputError(
            f"labels run from {labels.min()} to {labels.max()}; with {classes} classes they must "
            f"run from 0 to {classes - 1}."
        )
    return unit_rows(x, "train embeddings"), labels.astype(np.int64)
