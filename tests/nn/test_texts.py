import pytest
import tomli_w

from fieldmark import shipped
from fieldmark.errors import ConfigError
from fieldmark.nn.texts import MOST_TEXTS, TextBank, text_bank
from fieldmark.workflows import recipe

KINDS = ("aircraft", "birds", "butterflies", "cars", "dogs", "flowers", "objects")


def bank(**changes):
    data = {
        "description": "test",
        "relevant": "a bird characterised by feathers",
        "irrelevant": ("a dog characterised by fur", "a car characterised by wheels"),
        "coarse_relevant": "a bird",
        "coarse_irrelevant": ("a dog", "a car"),
    }
    return {**data, **changes}


def test_a_bank_is_shipped_for_every_kind_of_photo():
    assert tuple(shipped.texts()) == KINDS


def test_banks_are_no_recipes():
    assert not set(recipe.available()) & set(KINDS)
    assert "mocov2" in recipe.available()


@pytest.mark.parametrize("name", KINDS)
def test_shipped_banks_hold_sixteen_texts_in_both_forms_and_say_what_they_are_of(name):
    read = text_bank(name)
    fine, coarse = read.select(MOST_TEXTS), read.select(MOST_TEXTS, "coarse")
    assert read.available() == read.available("coarse") == MOST_TEXTS
    for long, short in zip(fine, coarse, strict=True):
        # No capitals: no names of breeds, makes or places.
        assert long == long.lower()
        assert " characterised by " in long
        assert len(short.split()) <= 5
        # CLIP reads 77 tokens; a word is rarely more than two.
        assert len(long.split()) <= 25
    if name != "objects":
        singular = {"butterflies": "butterfly"}.get(name, name.removesuffix("s"))
        assert singular in coarse[0]
        assert not any(singular in text for text in coarse[1:])


def test_the_relevant_text_comes_first_and_more_texts_only_add():
    read = TextBank.parse(bank(), "the test")
    assert read.select(1) == ["a bird characterised by feathers"]
    assert read.select(3) == [read.relevant, *read.irrelevant]
    assert read.select(2, "coarse") == ["a bird", "a dog"]


@pytest.mark.parametrize("count", [-1, 0, 4])
def test_a_count_that_the_bank_cannot_give_is_refused(count):
    read = TextBank.parse(bank(), "the test")
    with pytest.raises(ConfigError, match=rf"1 to 3 .* got {count}; add irrelevant texts"):
        read.select(count)


def test_a_bank_may_do_without_coarse_texts():
    data = bank()
    del data["coarse_relevant"], data["coarse_irrelevant"]
    read = TextBank.parse(data, "the test")
    assert read.available("coarse") == 0
    with pytest.raises(ConfigError, match=r"no coarse texts.*'fine' is available"):
        read.select(1, "coarse")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"relevant": " "}, "relevant.*must say something"),
        ({"irrelevant": ("a dog", "")}, "irrelevant.*empty text"),
        ({"irrelevant": ()}, "at least one text"),
        ({"irrelevant": ("a dog", "A  Dog")}, "fine text 'A  Dog' is there twice"),
        ({"irrelevant": ("a dog", "a bird characterised by Feathers")}, "there twice"),
        ({"coarse_irrelevant": ("a dog", "a bird")}, "coarse text 'a bird' is there twice"),
        ({"coarse_irrelevant": ()}, "together or not at all"),
        ({"irrelevant": tuple(f"text {i}" for i in range(16))}, "at most 15"),
        ({"irelevant": ("a cat",)}, "did you mean 'irrelevant'"),
    ],
)
def test_a_bank_that_makes_no_sense_is_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        TextBank.parse(bank(**changes), "the test")


def test_a_user_writes_a_bank_of_their_own(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(tomli_w.dumps(bank()))
    assert text_bank(str(path)) == TextBank.parse(bank(), "the test")
    with pytest.raises(ConfigError, match=r"no such file of texts: .*other\.toml.*birds"):
        text_bank(str(tmp_path / "other.toml"))
    with pytest.raises(ConfigError, match="did you mean 'birds'"):
        text_bank("bird")


def test_texts_are_found_inside_an_installed_package(tmp_path, monkeypatch):
    package = tmp_path / "fieldmark"
    (package / "recipes" / "texts").mkdir(parents=True)
    (package / "recipes" / "texts" / "mine.toml").write_text(tomli_w.dumps(bank()))
    (package / "recipes" / "one.toml").write_text("")
    monkeypatch.setattr(shipped, "__file__", str(package / "shipped.py"))
    assert list(shipped.texts()) == ["mine"]
    assert list(shipped.recipes()) == ["one"]
