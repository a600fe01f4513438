import numpy as np
import pytest

from fieldmark.errors import InputError, LabelError
from fieldmark.label.mistakes import suspects
from fieldmark.label.taxonomy import Name, Taxonomy

TREE = Taxonomy(
    ("family", "genus"),
    {
        "herring gull": ("Laridae", "Larus"),
        "common gull": ("Laridae", "Larus"),
        "little tern": ("Laridae", "Sternula"),
        "odd bird": ("Other", None),
    },
    finest="species",
)
LABELS = ["herring gull", "common gull", "little tern", "odd bird"]


def test_the_deepest_name_that_is_likely_enough_is_given():
    mass = np.array(
        [
            [0.95, 0.03, 0.01, 0.01],
            [0.5, 0.45, 0.03, 0.02],
            [0.4, 0.2, 0.35, 0.05],
            [0.3, 0.2, 0.1, 0.4],
            [0.02, 0.03, 0.03, 0.92],
        ]
    )
    found = TREE.roll_up(mass, LABELS, least=0.9)
    assert [(name.level, name.name) for name in found] == [
        ("species", "herring gull"),
        ("genus", "Larus"),
        ("family", "Laridae"),
        (None, None),
        ("species", "odd bird"),
    ]
    assert [name.probability for name in found] == pytest.approx([0.95, 0.95, 0.95, 0.6, 0.92])


def test_without_levels_only_labels_are_names():
    flat = Taxonomy((), {"a": (), "b": ()})
    assert flat.roll_up(np.array([[0.95, 0.05], [0.6, 0.4]]), ["a", "b"]) == [
        Name("label", "a", 0.95),
        Name(None, None, 0.6),
    ]


def test_trees_that_are_none_are_refused():
    with pytest.raises(
        LabelError, match=r"the genus 'Larus' stands under 'Laridae' for 'a' and under"
    ):
        Taxonomy(("family", "genus"), {"a": ("Laridae", "Larus"), "b": ("Alcidae", "Larus")})
    with pytest.raises(LabelError, match="'a' has 1 names; the taxonomy has 2 levels"):
        Taxonomy(("family", "genus"), {"a": ("Laridae",)})
    with pytest.raises(LabelError, match="does not know wren"):
        TREE.roll_up(np.ones((1, 1)), ["wren"])
    with pytest.raises(InputError, match=r"must lie in \(0, 1\], got 0"):
        TREE.roll_up(np.ones((1, 4)) / 4, LABELS, least=0.0)


def test_labels_that_look_wrong_come_surest_first_and_nothing_is_said_of_what_was_not_held_out():
    mass = np.array([[0.9, 0.1], [0.2, 0.8], [0.001, 0.999], [np.nan, np.nan], [0.6, 0.4]])
    found = suspects(mass, np.array([0, 0, 0, 1, 1]))
    assert [suspect.row for suspect in found] == [2, 1, 4]
    assert [suspect.suggested for suspect in found] == [1, 1, 0]
    assert found[0].score == pytest.approx(np.log(999))
