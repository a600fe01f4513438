"""The report's plain words: what each measure, curve and verdict means to a reader who is no coder."""

import re
from typing import NamedTuple


class Wording(NamedTuple):
    """Name and meaning of one measure."""

    label: str
    explanation: str


MEASURES: dict[str, Wording] = {
    "rank1": Wording(
        "Rank-1", "Share of test photos whose nearest other photo shows the same class."
    ),
    "rank5": Wording(
        "Rank-5",
        "Share of test photos with at least one photo of the same class among the five nearest.",
    ),
    "map": Wording(
        "mAP",
        "Mean average precision: how far up the whole list the photos of the same class stand. "
        "100 would mean that all of them come before any other.",
    ),
    "map_at_r": Wording(
        "mAP@R",
        "The same, looking only at the first R places, R being the number of photos of the class.",
    ),
    "knn": Wording(
        "kNN", "Share of test photos named correctly by a vote of the most similar train photos."
    ),
    "agreement": Wording(
        "Agreement (no labels)",
        "Measured without labels, on photos kept from training: how far up the list stand the "
        "photos that the start finds nearest when it looks ten times, at a larger input.",
    ),
    "linear": Wording(
        "Linear, 100 %",
        "Share of test photos named correctly by a simple classifier that sees only the embedding.",
    ),
}


class Curve(NamedTuple):
    """Name, meaning and healthy range of one health curve."""

    label: str
    explanation: str
    better: str
    """``up``, ``down`` or ``steady``: where a healthy curve goes."""
    low: float | None = None
    """Healthy from this multiple of the start's value."""
    high: float | None = None
    """Healthy up to this multiple of the start's value."""
    absolute_low: float | None = None
    share: bool = False
    """A share in [0, 1], shown in percent."""


# The multiples are rules of thumb: in trial runs, training that did harm halved the effective
# rank and lost view recall, and no other curve told harm from help reliably.
HEALTH: dict[str, Curve] = {
    "view_recall": Curve(
        "Views find each other",
        "How often two different croppings of one photo recognise each other among all photos. "
        "A fall says that something broke; a rise does not say that training helped.",
        "up",
        low=0.97,
        share=True,
    ),
    "effective_rank": Curve(
        "Effective rank",
        "How many independent directions the embedding really uses. When it halves, "
        "fine differences are being thrown away.",
        "up",
        low=0.6,
    ),
    "feature_spread": Curve(
        "Feature spread",
        "How differently the photos are described. Near zero every photo looks the same to the "
        "network: collapse.",
        "steady",
        low=0.5,
    ),
    "start_neighbours": Curve(
        "Agreement with the start",
        "Share of each photo's nearest neighbours that are still those of the starting encoder. "
        "Some change is learning; losing nearly all is forgetting.",
        "steady",
        absolute_low=0.3,
        share=True,
    ),
    "feature_distance": Curve(
        "Features moved",
        "How far the photos' descriptions have turned away from the start's (1 − cosine). "
        "Short and early usually wins.",
        "steady",
    ),
    "weight_distance": Curve(
        "Weights moved",
        "Length of the way the weights have come, relative to their size.",
        "steady",
    ),
    "alignment": Curve(
        "Alignment",
        "Distance between two views of one photo. Lower is steadier under crops and colours.",
        "down",
    ),
    "uniformity": Curve(
        "Uniformity",
        "How evenly the photos fill the space (more negative is more even). "
        "Rising towards zero means crowding.",
        "down",
    ),
    "loss": Curve(
        "Loss",
        "What training minimises. It says little: it also falls while an encoder gets worse.",
        "down",
    ),
}

HEALTH_ALIASES = {
    "spread": "feature_spread",
    "neighbour_agreement": "start_neighbours",
    "distance": "weight_distance",
}
"""Other names that a health row may use."""

MEANING: dict[str, str] = {
    "helped": (
        "On photos that it never saw, the {after} brings photos of the same class closer together "
        "than the {before} does, by more than the luck of which photos and classes were tested "
        "can explain."
    ),
    "hurt": (
        "With the {after}, photos of the same class are harder to find than with the {before}, "
        "by more than luck can explain. Nothing is lost: both encoders are kept, and unless you "
        "asked otherwise the one to use is still the {before}."
    ),
    "no difference shown": (
        "The test cannot tell the two encoders apart. That is not a proof that they are equal: "
        "the true difference may lie anywhere inside the intervals. More labelled test photos "
        "make the intervals narrower."
    ),
    "not measured": (
        "Without labels nobody can say whether classes are told apart better. The measures below "
        "need no labels; they show whether something went wrong, and photos kept from training choose "
        "what ships, but whether the result is useful nobody has checked. A few dozen labelled "
        "photos per split are enough for a verdict."
    ),
}

DECISION = (
    "The rule, fixed beforehand: helped when mAP's 95 % interval lies above zero and rank-1's "
    "does not lie below; hurt when either lies below zero; otherwise no difference shown."
)

ADVICE: dict[str, tuple[str, ...]] = {
    "helped": (),
    "hurt": (
        "Keep normalisation layers at the start's statistics: `--set backbone.normalization=frozen`. "
        "Changing batch statistics undoes a good start.",
        "Leave colours as they are if they tell your classes apart: `--set views.preset=plumage`. "
        "On birds the usual changes of hue and to grayscale did much of the harm in our own trials.",
        "Train more gently: `--recipe gentle`, or a third of the learning rate and fewer epochs.",
        "Train only the last stages: `--set backbone.train_from_stage=-3`.",
        "Use the start with post-processing: `--recipe start` takes a minute or two and often gains more.",
    ),
    "no difference shown": (
        "Use the start with post-processing: `--recipe start` takes a minute or two and often gains more.",
        "Give the network larger photos, such as `--size 224`: small marks vanish at small sizes.",
        "Add unlabelled photos of the same kind of thing; a few hundred are few.",
        "Label more test photos: with twice as many the intervals shrink by about a third.",
    ),
    "not measured": (
        "Label some photos and give them with `--probe split.csv` (columns path, class, split). "
        "Ten photos of each of ten classes already say something.",
        "Look at the neighbour sheets below: do the right-hand photos look more alike in the way "
        "that matters to you?",
    ),
}

_RANK = re.compile(r"^rank(\d+)$")
_FRACTION = re.compile(r"^linear[@_ ]?(\d+(?:\.\d+)?)\s*%?$")


def fraction_of(name: str, given: float | None) -> float | None:
    """Share of labels behind a linear probe's name (``linear@20`` is 0.2, ``linear`` is 1)."""
    if given is not None:
        return given
    if name == "linear":
        return 1.0
    found = _FRACTION.match(name)
    if not found:
        return None
    number = float(found[1])
    return number if number < 1 or ("." in found[1] and number <= 1) else number / 100


def wording(name: str, label: str, explanation: str, fraction: float | None) -> Wording:
    """Name and meaning to show; what the caller gave wins."""
    known = MEASURES.get(name, Wording(name.replace("_", " "), ""))
    if fraction is not None and name != "linear":
        known = Wording(
            f"Linear, {100 * fraction:g} %",
            f"The same classifier, given the labels of only {100 * fraction:g} % of train photos.",
        )
    if name not in MEASURES and (rank := _RANK.match(name)):
        known = Wording(
            f"Rank-{rank[1]}",
            "Share of test photos with at least one photo of the same class among the "
            f"{rank[1]} nearest.",
        )
    return Wording(label or known.label, explanation or known.explanation)


def labels_sentence(how: str, labels_seen: str) -> str:
    """What the start already owes to labels, in words."""
    if how == "random":
        return "The start is a random network: whatever the trained encoder can do, it learnt here."
    if labels_seen == "none":
        return "The starting weights never saw a label."
    if labels_seen in {"", "unknown"}:
        return (
            "Whether the starting weights saw labels of such photos is not known; "
            "take what the start can do with that in mind."
        )
    if labels_seen.endswith("."):
        return labels_seen
    return (
        f"The starting weights learnt from the labels of {labels_seen}. Where those cover things "
        "like yours, part of what both encoders can do is owed to them."
    )


def duration(seconds: float) -> str:
    """A length of time in words, such as ``1 h 05 min``."""
    total = round(seconds)
    if total < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{total} s"
    minutes, rest = divmod(total, 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"
