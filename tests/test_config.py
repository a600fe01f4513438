import pytest
from pydantic import Field

from fieldmark import config
from fieldmark.config import Config
from fieldmark.errors import ConfigError


class Inner(Config):
    temperature: float = Field(0.2, gt=0)
    """Softmax temperature."""


class Outer(Config):
    inner: Inner = Inner()
    size: int = 224


def test_unknown_key_names_the_closest_valid_one():
    with pytest.raises(ConfigError, match=r"'inner\.temprature'.*did you mean 'temperature'"):
        Outer.parse({"inner": {"temprature": 0.1}}, "moco.toml")


def test_bad_value_names_key_value_and_source():
    with pytest.raises(
        ConfigError, match=r"inner\.temperature in moco\.toml.*greater than 0.*-0\.1"
    ):
        Outer.parse({"inner": {"temperature": -0.1}}, "moco.toml")


def test_set_overrides_nest_and_parse_toml_values():
    data = config.apply_sets({"inner": {"temperature": 1.0}}, ["inner.temperature=0.5", "size=96"])
    assert Outer.parse(data, "here") == Outer(inner=Inner(temperature=0.5), size=96)


def test_set_keeps_plain_text():
    assert config.apply_sets({}, ["a.b=plumage"]) == {"a": {"b": "plumage"}}


@pytest.mark.parametrize("item", ["size", "=3", "size.deep=3"])
def test_bad_set_is_refused(item):
    with pytest.raises(ConfigError):
        config.apply_sets({"size": 3}, [item])


def test_merge_leaves_its_arguments_alone():
    base, over = {"a": {"b": 1}}, {"a": {"c": 2}}
    assert config.merge(base, over) == {"a": {"b": 1, "c": 2}}
    assert base == {"a": {"b": 1}}
    assert over == {"a": {"c": 2}}


def test_toml_round_trip(tmp_path):
    path = tmp_path / "r.toml"
    path.write_text(config.to_toml(Outer(size=96)))
    assert Outer.parse(config.read_toml(path), "r") == Outer(size=96)


def test_unreadable_toml_is_one_paragraph(tmp_path):
    path = tmp_path / "r.toml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="cannot be read as TOML"):
        config.read_toml(path)
    with pytest.raises(ConfigError, match="no such recipe"):
        config.read_toml(tmp_path / "absent.toml")
