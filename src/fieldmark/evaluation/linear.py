"""Linear probes on frozen embeddings, at any fraction of the labels (docs/protocols.md, P-LIN)."""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, Int
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


_NEVER = -1e9
"""Bias of classes without photos."""


class _Objective(NamedTuple):
    """What is minimised, and how closely."""

    classes: int
    strength: float
    max_steps: int
    tolerance: float


def logistic_probe(
    train: Matrix,
    train_labels: Int[np.ndarray, " N"],
    *,
    classes: int,
    strength: float = 10.0,
    max_steps: int = 300,
    tolerance: float = 1e-7,
    start: Probe | None = None,
) -> Probe:
    """Multinomial logistic regression on L2-normalised embeddings, down to its one minimum.

    Minimises ``strength * sum_i CE_i + ||W||^2 / 2`` (scikit-learn's ``C``; the bias is free).
    Draws nothing at random.

    Args:
        train: Embeddings of labelled photos.
        train_labels: Their classes, 0 to ``classes - 1``.
        classes: Number of classes; classes without train photos are never predicted.
        strength: Weight of the data against the penalty, above 0; 10 suits unit vectors.
        max_steps: Most L-BFGS steps.
        tolerance: Relative decrease of the objective below which it ends. 1e-6 moves no accuracy;
            1e-4 takes a third of the steps and moved accuracy by 0.2 points at most on birds.
        start: Probe of the same classes to begin at, as one fitted before a few more labels came in;
            zero by default. The minimum is the same.

    Raises:
        InputError: If labels are out of range, ``strength`` is not positive, or ``start`` has other
            classes or dimensions.
    """
    x, labels = _check(train, train_labels, classes)
    if start is not None and start.weight.shape != (classes, x.shape[1]):
        raise InputError(
            f"the probe to begin at has weights of shape {list(start.weight.shape)}; {classes} classes "
            f"and embeddings of {x.shape[1]} numbers want [{classes}, {x.shape[1]}]."
        )
    if strength <= 0:
        raise InputError(f"strength must be above 0, got {strength}; 10 suits unit vectors.")
    seen, targets = np.unique(labels, return_inverse=True)
    full = Probe(np.zeros((classes, x.shape[1]), np.float32), np.full(classes, _NEVER, np.float32))
    full.bias[seen] = 0
    if len(seen) > 1:
        objective = _Objective(len(seen), strength, max_steps, tolerance)
        begin = None
        if start is not None:
            # Classes that had no photo until now carry a bias that forbids them.
            bias = np.maximum(start.bias[seen], start.bias[start.bias > _NEVER].min(initial=0.0))
            begin = torch.from_numpy(start.weight[seen]), torch.from_numpy(bias)
        full.weight[seen], full.bias[seen] = _fit(
            torch.from_numpy(x), torch.from_numpy(targets), objective, begin
        )
    return full


def _fit(
    x: Float[Tensor, "N D"],
    targets: Int[Tensor, " N"],
    objective: _Objective,
    begin: "_Parameters | None",
) -> tuple[Float[np.ndarray, "C D"], Float[np.ndarray, " C"]]:
    # The penalty keeps weights in the span of the photos: far fewer photos than dimensions, less work.
    basis = torch.linalg.qr(x.T)[0] if 2 * len(x) < x.shape[1] else None
    if basis is not None:
        x = x @ basis
        begin = None if begin is None else (begin[0] @ basis, begin[1])
    weight, bias = _Logistic(x, targets, objective).minimise(begin)
    if basis is not None:
        weight = weight @ basis.T
    return weight.numpy(), bias.numpy()


_MEMORY = 10
"""Steps that L-BFGS remembers."""
_ROWS = 8_192
"""Photos whose probabilities are held at a time."""

_Parameters = tuple[Tensor, Tensor]
"""Weight [C D] and bias [C]."""


class _Logistic:
    """The objective of multinomial logistic regression on features, and its minimum.

    L-BFGS whose first guess of the curvature is that of the photos themselves: the Hessian at equal
    probabilities is their covariance, which costs one product and one Cholesky factor and saves two
    thirds of the steps. Logits are linear in the parameters, so that a line search needs no further
    product of photos and weights.

    Source:
        Nocedal and Wright 2006, Numerical Optimization, algorithm 7.4; curvature bound: Boehning 1992,
        Annals of the Institute of Statistical Mathematics 44.
    """

    def __init__(
        self, x: Float[Tensor, "N D"], targets: Int[Tensor, " N"], objective: _Objective
    ) -> None:
        self.x, self.targets, self.objective = x, targets, objective
        classes = objective.classes
        # The mean loss does not grow with the number of photos.
        self.decay = 1.0 / (objective.strength * len(x))
        # The free bias absorbs the mean, so centring leaves the solution as it is and spares steps
        # where features share a large mean, as after a ReLU. Written out, it needs no second copy.
        self.mean = x.mean(dim=0)
        curvature = 1.0 / classes * (1.0 - 1.0 / classes)
        covariance = (x.T @ x).div_(len(x)).addr_(self.mean, self.mean, alpha=-1.0)
        covariance.mul_(curvature).diagonal().add_(self.decay)
        factor, failed = torch.linalg.cholesky_ex(covariance)
        if failed:  # rounding, where the penalty is tiny beside the covariance
            covariance.diagonal().add_(1e-6 * float(covariance.diagonal().max()))
            factor = torch.linalg.cholesky(covariance)
        self.factor = factor
        self.bias_inverse = 1.0 / curvature

    def minimise(self, begin: _Parameters | None = None) -> _Parameters:
        """Weight and bias for features that are not centred, as are those to begin at."""
        if begin is None:
            weight = self.x.new_zeros(self.objective.classes, self.x.shape[1])
            bias = self.x.new_zeros(self.objective.classes)
            logits = self.x.new_zeros(len(self.x), self.objective.classes)
        else:
            weight, bias = begin[0], begin[1] + begin[0] @ self.mean
            logits = self._logits(weight, bias)
        value, gradient = self._value(logits, weight), self._gradient(logits, weight)
        steps: list[tuple[_Parameters, _Parameters, float]] = []
        for _ in range(self.objective.max_steps):
            direction = self._direction(gradient, steps)
            slopes = self._logits(*direction)
            length = self._search(logits, slopes, weight, direction)
            moved = length * direction[0], length * direction[1]
            weight, bias = weight + moved[0], bias + moved[1]
            logits.add_(slopes, alpha=length)
            before, old = value, gradient
            value, gradient = self._value(logits, weight), self._gradient(logits, weight)
            bent = gradient[0] - old[0], gradient[1] - old[1]
            curvature = _dot(moved, bent)
            if curvature > 0:
                steps = [*steps[1 - _MEMORY :], (moved, bent, 1.0 / curvature)]
            if before - value <= self.objective.tolerance * value:
                break
        return weight, bias - weight @ self.mean

    def _logits(self, weight: Tensor, bias: Tensor) -> Tensor:
        return torch.addmm(bias - weight @ self.mean, self.x, weight.T)

    def _value(self, logits: Tensor, weight: Tensor) -> float:
        total = 0.0
        for part, targets in self._parts(logits):
            own = part.gather(1, targets[:, None])[:, 0]
            total += float((torch.logsumexp(part, dim=1).double() - own.double()).sum())
        return total / len(logits) + self.decay / 2 * float(
            weight.square().sum(dtype=torch.float64)
        )

    def _gradient(self, logits: Tensor, weight: Tensor) -> _Parameters:
        residual_sum = torch.zeros_like(weight[:, 0])
        result = self.decay * weight
        done = 0
        for part, targets in self._parts(logits):
            residual = torch.softmax(part, dim=1)
            residual[torch.arange(len(part)), targets] -= 1
            residual /= len(logits)
            result.addmm_(residual.T, self.x[done : done + len(part)])
            residual_sum += residual.sum(dim=0)
            done += len(part)
        return result.addr_(residual_sum, self.mean, alpha=-1.0), residual_sum

    def _direction(
        self, gradient: _Parameters, steps: list[tuple[_Parameters, _Parameters, float]]
    ) -> _Parameters:
        weight, bias = gradient[0].clone(), gradient[1].clone()
        shares = []
        for moved, bent, scale in reversed(steps):
            share = scale * _dot(moved, (weight, bias))
            shares.append(share)
            weight.add_(bent[0], alpha=-share)
            bias.add_(bent[1], alpha=-share)
        weight, bias = self._unbent(weight, bias)
        if steps:
            _, bent, scale = steps[-1]
            guessed = self._unbent(*bent)
            fit = 1.0 / (scale * _dot(bent, guessed))
            weight, bias = weight * fit, bias * fit
        for (moved, bent, scale), share in zip(steps, reversed(shares), strict=True):
            further = share - scale * _dot(bent, (weight, bias))
            weight.add_(moved[0], alpha=further)
            bias.add_(moved[1], alpha=further)
        return -weight, -bias

    def _unbent(self, weight: Tensor, bias: Tensor) -> _Parameters:
        """Times the inverse of the first guess of the curvature."""
        return torch.cholesky_solve(weight.T, self.factor).T, bias * self.bias_inverse

    def _search(
        self, logits: Tensor, slopes: Tensor, weight: Tensor, direction: _Parameters
    ) -> float:
        """Length of the step, by Newton's method on the line; the objective is convex."""
        across = float((weight * direction[0]).sum(dtype=torch.float64))
        square = float(direction[0].square().sum(dtype=torch.float64))
        length, first = 1.0, 0.0
        for attempt in range(4):
            slope, bend = self.decay * (across + length * square), self.decay * square
            done = 0
            for part, targets in self._parts(logits):
                change = slopes[done : done + len(part)]
                chances = torch.softmax(part + length * change, dim=1)
                chances *= change
                mean = chances.sum(dim=1)
                own = change.gather(1, targets[:, None])[:, 0]
                slope += float((mean - own).sum(dtype=torch.float64)) / len(logits)
                spread = (chances * change).sum(dim=1) - mean.square()
                bend += float(spread.sum(dtype=torch.float64)) / len(logits)
                done += len(part)
            if attempt == 0:
                first = abs(slope)
            elif abs(slope) <= 0.1 * first:
                break
            length = max(length - slope / bend, length / 10) if bend > 0 else length
        return length

    def _parts(self, logits: Tensor) -> Iterable[tuple[Tensor, Tensor]]:
        return zip(logits.split(_ROWS), self.targets.split(_ROWS), strict=True)


def _dot(a: _Parameters, b: _Parameters) -> float:
    return sum(
        float((one * other).sum(dtype=torch.float64)) for one, other in zip(a, b, strict=True)
    )


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
