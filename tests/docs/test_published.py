"""Published figures: each with a source, a status, a protocol and a start."""

import tomllib
from pathlib import Path

from fieldmark.data.benchmarks import BENCHMARKS

PUBLISHED = Path(__file__).parents[2] / "benchmarks" / "published.toml"
_FACTS = {"data", "method", "network", "start", "protocol", "source", "status"}


def test_every_figure_says_where_it_stands_and_under_what_protocol():
    data = tomllib.loads(PUBLISHED.read_text())
    assert len(data["row"]) > 25
    for row in data["row"]:
        assert row.keys() >= _FACTS, row
        assert row["source"] in data["sources"]
        assert row["status"] in {"printed", "rerun", "remembered", "claimed"}
        assert row["data"] in BENCHMARKS
        figures = {key: value for key, value in row.items() if key not in {*_FACTS, "size"}}
        assert figures, row
        for value in figures.values():
            for number in value if isinstance(value, list) else [value]:
                assert 0 < number < 100
    assert {row["source"] for row in data["row"]} == data["sources"].keys()
