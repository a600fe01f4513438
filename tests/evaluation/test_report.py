"""The report page: self-contained, escaped, complete for every verdict, readable by everyone."""

import dataclasses
import itertools
import json
import math
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from fieldmark.errors import ArtifactError
from fieldmark.evaluation.report import (
    BadPhoto,
    ConfusablePair,
    EmbeddingMap,
    Facts,
    Grid,
    Measure,
    Neighbour,
    NeighbourSheet,
    Outcome,
    ReportData,
    WeightsFacts,
    encode_photos,
    page_of,
    photo_ids_of,
    render,
)
from fieldmark.evaluation.report.charts import number, scale_over, signed

VOID = {"meta", "link", "img", "br", "hr", "input", "source"}
EVIL = "\"'><img src=x onerror=alert(1)></style></script><script>alert(2)</script><!--\u2028\u202e"


class Page(HTMLParser):
    """What a browser would see: elements with attributes, text, balance of tags."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.stack, self.faults, self.words = [], [], [], []
        self.scripts = []
        self.feed(text)
        self.close()
        assert not self.stack, f"not closed: {self.stack}"
        assert not self.faults, self.faults

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        assert len(attrs) == len(dict(attrs)), f"repeated attribute in {tag}: {attrs}"
        if tag not in VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if not self.stack or self.stack[-1] != tag:
            self.faults.append(f"</{tag}> closes {self.stack[-3:]}")
        if self.stack:
            self.stack.pop()

    def handle_data(self, data):
        inside = self.stack[-1] if self.stack else ""
        if inside in {"script", "style"}:
            self.scripts.append((inside, self.elements[-1][1], data))
        else:
            self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())

    def all(self, tag):
        return [attrs for name, attrs in self.elements if name == tag]

    def ids(self):
        return [attrs["id"] for _, attrs in self.elements if "id" in attrs]


def photo(seed):
    return np.random.default_rng(seed).integers(0, 255, (40, 52, 3), dtype=np.uint8)


def sample(**changes):
    names = ["001.Reed_Warbler", "002.Marsh_Warbler"]
    ids = [f"photos/{i:02d}.jpg" for i in range(12)]
    sheet = NeighbourSheet(
        ids[0],
        names[0],
        (Neighbour(ids[1], names[1], False), Neighbour(ids[2], names[0], True)),
        (Neighbour(ids[2], names[0], True), Neighbour(ids[3], names[0], True)),
    )
    rng = np.random.default_rng(3)
    plane = tuple((float(x), float(y)) for x, y in rng.normal(size=(12, 2)))
    data = ReportData(
        title="warblers",
        outcome=Outcome("helped", "mAP rose by 2.0 points (1.0 to 3.0).", "trained"),
        facts=Facts(120, 118, 60, 58, 2, 128, "ours: half and half"),
        measures=(
            Measure("map", 20.0, 22.0, 2.0, 1.0, 3.0),
            Measure("rank1", 40.0, 41.0, 1.0, -0.5, 2.5),
            Measure("linear", 50.0, 49.0, -1.0, -1.5, -0.5),
            Measure("linear@20", 30.0, 33.0),
        ),
        grids=(Grid("mAP", 20.0, 21.0, 21.5, 22.0),),
        post_processing="whitening to 32 dimensions",
        health=tuple(
            {"epoch": float(e), "view_recall": 0.7 + 0.01 * e, "effective_rank": 90.0 - 30 * e}
            for e in range(4)
        ),
        sheets=(sheet,),
        map=EmbeddingMap(tuple(ids), tuple(names[i % 2] for i in range(12)), plane, plane, "PCA"),
        confusable=(ConfusablePair(*names, 30.0, 20.0, (ids[0],), (ids[1],)),),
        bad_photos=tuple(
            BadPhoto(f"bad/{i}.jpg", "refused", "not_an_image", "this is a text file")
            for i in range(15)
        ),
        weights=WeightsFacts("resnet50", "supervised", "ImageNet-1k", "ImageNet-1k", "MIT"),
        recipe_name="gentle",
        recipe="[train]\nepochs = 3\n",
        machine={"processor": "2 cores"},
        versions={"fieldmark": "0.1.0"},
        command="fieldmark train photos",
        started="2026-11-12T14:03:00",
        run_seconds=75.0,
        notes=("A note.",),
    )
    data = dataclasses.replace(data, **changes)
    shown, small = photo_ids_of(data)
    return dataclasses.replace(
        data, photos=encode_photos(shown, lambda name: photo(len(name)), small=small)
    )


@pytest.fixture(scope="module")
def full():
    return page_of(sample())


def test_page_is_well_formed_and_ids_are_unique(full):
    page = Page(full)
    ids = page.ids()
    assert len(ids) == len(set(ids))
    for tag, attrs in page.elements:
        for key in ("aria-labelledby", "for"):
            if key in attrs:
                assert attrs[key] in ids, (tag, attrs)
        href = attrs.get("href", "")
        if href.startswith("#"):
            assert href[1:] in ids, href


def test_nothing_is_fetched(full):
    page = Page(full)
    assert not re.search(r"https?:|//[a-z]+\.|@import|srcset", full)
    for tag, attrs in page.elements:
        assert "src" not in attrs, (tag, attrs)
        if "href" in attrs:
            assert attrs["href"].startswith(("#", "data:")), (tag, attrs)
    for target in re.findall(r"url\(([^)]{0,30})", full):
        assert target.startswith(("data:image/", '" + data.uris')), target


def test_policy_allows_exactly_the_pages_own_code(full):
    import base64
    import hashlib

    page = Page(full)
    (policy,) = (
        attrs["content"]
        for attrs in page.all("meta")
        if attrs.get("http-equiv") == "Content-Security-Policy"
    )
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    hashes = set(re.findall(r"'(sha256-[^']+)'", policy))
    found = {
        "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        for _, attrs, text in page.scripts
        if attrs.get("type") != "application/json"
    }
    assert found == hashes
    # Inline handlers and style attributes would be blocked by the policy, silently.
    for tag, attrs in page.elements:
        assert "style" not in attrs, (tag, attrs)
        assert not any(key.startswith("on") for key in attrs), (tag, attrs)


def test_hostile_names_stay_text():
    data = sample()
    evil = EVIL
    data = dataclasses.replace(
        data,
        title=evil,
        outcome=Outcome("helped", evil, evil),
        notes=(evil,),
        advice=(evil,),
        post_processing=evil,
        recipe=evil,
        recipe_name=evil,
        command=evil,
        machine={evil: evil},
        versions={"fieldmark": evil},
        measures=(*data.measures, Measure(evil, 1.0, 2.0, label=evil, explanation=evil, unit=evil)),
        health=tuple({**row, evil: 1.0} for row in data.health),
        grids=(Grid(evil, 1.0, 2.0, 3.0, 4.0, evil),),
        bad_photos=(BadPhoto(evil, evil, evil, evil),),
        weights=WeightsFacts(*[evil] * 7, notes=(evil,)),
        started=evil,
        confusable=(ConfusablePair(evil, evil + "2", 1.0, 2.0, (evil,), (evil,)),),
        sheets=(NeighbourSheet(evil, evil, (Neighbour(evil, evil, True),)),),
        map=EmbeddingMap(
            (evil, "b", "c"), (evil, None, evil), ((0.0, 0.0), (1.0, 0.0), (0.0, 1.0)), how=evil
        ),
        photos={evil: next(iter(data.photos.values())), "b": "data:image/webp;base64,AA==);x{"},
        facts=dataclasses.replace(data.facts, split=evil),
    )
    text = page_of(data)
    page = Page(text)
    assert not page.all("img")
    assert len(page.all("script")) == 3
    assert len(page.all("style")) == 2
    assert "alert(2)</script>" not in text
    assert not any(key.startswith("on") for _, attrs in page.elements for key in attrs)
    (found,) = (
        json.loads(text) for _, attrs, text in page.scripts if attrs.get("id") == "map-data"
    )
    assert found["names"] == [evil]
    assert "base64,AA==)" not in text


def test_photo_data_that_is_no_picture_is_left_out():
    data = sample()
    bad = dict.fromkeys(data.photos, "data:text/html;base64,AAAA")
    text = page_of(dataclasses.replace(data, photos=bad))
    assert "text/html" not in text
    assert "picture left out" in text


@pytest.mark.parametrize(
    ("word", "title", "says"),
    [
        ("helped", "Training helped.", "closer together"),
        ("hurt", "Training hurt.", "harder to find"),
        ("no difference shown", "No difference shown.", "cannot tell the two encoders apart"),
        ("not measured", "Not measured.", "Without labels nobody can say"),
    ],
)
def test_every_verdict_is_said_in_plain_words(word, title, says):
    page = Page(page_of(sample(outcome=Outcome(word, "A sentence.", "start"))))
    assert title in page.text
    assert says in page.text
    assert "A sentence." in page.text
    assert ("What to try next" in page.text) == (word != "helped")


def test_transductive_runs_are_marked():
    facts = dataclasses.replace(sample().facts, transductive=True)
    assert "Transductive run" in page_of(sample(facts=facts))
    assert "Transductive run" not in page_of(sample())


def test_recipe_without_training_speaks_of_post_processing():
    text = Page(page_of(sample(kind="start", health=()))).text
    assert "Post-processing helped." in text
    assert "Training helped." not in text
    assert "Plain start" in text


def test_missing_parts_leave_no_empty_shell():
    bare = ReportData(
        title="bare",
        outcome=Outcome("not measured", "No labels were given.", "start"),
        facts=Facts(40),
    )
    text = page_of(bare)
    page = Page(text)
    sections = {attrs["id"] for attrs in page.all("section") if "id" in attrs}
    assert sections == {"verdict", "photos", "run"}
    linked = {attrs["href"][1:] for attrs in page.all("a")} - {"verdict"}
    assert linked == {"photos", "run"}
    assert not page.all("table")
    assert not page.all("figure")
    assert "map-data" not in page.ids()


def test_without_labels_neighbours_carry_no_marks():
    sheet = NeighbourSheet("a", None, (Neighbour("b"),), (Neighbour("c"),))
    text = page_of(sample(sheets=(sheet,), confusable=(), measures=(), grids=()))
    part = text[text.index('id="neighbours"') : text.index('id="map"')]
    assert "class not known" in part
    assert 'class="badge"' not in part
    assert "same class" not in part


def test_hits_and_misses_differ_in_words_and_shape(full):
    main = full[full.index("<main>") :]
    assert "Place 1: Marsh Warbler, another class" in main
    assert "Place 1: Reed Warbler, same class" in main
    assert main.count('<span class="badge"><svg class="icon"') == 4
    assert main.count("#i-miss") >= 2
    assert main.count("#i-hit") >= 4


def test_every_picture_has_words_and_every_control_a_name(full):
    page = Page(full)
    for tag, attrs in page.elements:
        if attrs.get("role") == "img":
            assert attrs.get("aria-label"), (tag, attrs)
        if tag == "svg" and attrs.get("role") != "img":
            assert attrs.get("aria-hidden") == "true" or attrs.get("overflow"), attrs
        if tag == "img":
            assert attrs.get("alt")
        if attrs.get("tabindex"):
            assert attrs["tabindex"] == "0"
    assert page.all("html")[0]["lang"] == "en"
    first_link = page.all("a")[0]
    assert first_link["class"] == "skip"
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h[1-6]", tag)]
    assert levels.count(1) == 1
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    assert len(page.all("th")) == len([attrs for attrs in page.all("th") if "scope" in attrs])
    # A table is announced by its caption, or by the region around it.
    assert full.count("<caption") >= 3


def test_page_cares_for_dark_print_phone_and_motion(full):
    for rule in (
        "prefers-color-scheme: dark",
        "@media print",
        "max-width: 640px",
        "prefers-reduced-motion",
        ":focus-visible",
        "forced-colors",
    ):
        assert rule in full, rule
    assert 'content="width=device-width, initial-scale=1"' in full


def test_each_photo_is_stored_once():
    data = sample()
    text = page_of(data)
    for uri in data.photos.values():
        assert text.count(uri) == sum(other == uri for other in data.photos.values())


def test_size_stays_sendable():
    count = 400
    ids = tuple(f"{i}.jpg" for i in range(count))
    plane = tuple((float(i % 30), float(i // 30)) for i in range(count))
    data = sample(map=EmbeddingMap(ids, ("a",) * count, plane, plane))
    # Noise is the hardest picture to compress.
    photos = encode_photos(ids, lambda name: photo(len(name)), side=112, budget_bytes=500_000)
    assert sum(map(len, photos.values())) <= 500_000
    assert len(page_of(dataclasses.replace(data, photos=photos))) < 1_000_000


def test_json_round_trip():
    data = sample()
    assert ReportData.from_json(data.to_json()) == data


def test_json_keeps_odd_numbers_and_names_harmless():
    data = sample(
        measures=(Measure("map", math.nan, math.inf),),
        bad_photos=(BadPhoto("caf\udce9.jpg", "refused", "x"),),
    )
    again = ReportData.from_json(data.to_json())
    assert again.measures[0].start is None
    assert again.measures[0].trained is None
    assert again.bad_photos[0].path == "caf\\udce9.jpg"
    page_of(data).encode("utf-8")


def test_numpy_numbers_are_taken():
    data = sample()
    # Past the type checks of the test run, as a caller's slip would be.
    object.__setattr__(data, "health", ({"epoch": np.int64(0), "loss": np.float32(1.5)},))
    assert ReportData.from_json(data.to_json()).health[0] == {"epoch": 0, "loss": 1.5}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "not valid JSON"),
        ("[]", "does not hold the data"),
        ('{"format": "fieldmark-report", "version": 99}', "report version 99"),
        ('{"format": "fieldmark-report", "version": 1, "title": 3}', "title"),
    ],
)
def test_unusable_data_is_refused_in_words(text, says):
    with pytest.raises(ArtifactError, match=says):
        ReportData.from_json(text)


def test_unknown_keys_are_refused():
    body = json.loads(sample().to_json())
    body["facts"]["weather"] = "fine"
    with pytest.raises(ArtifactError, match=r"facts\.weather"):
        ReportData.from_json(json.dumps(body))


def test_render_writes_whole_file(tmp_path):
    out = render(sample(), tmp_path / "report.html")
    assert out.read_text(encoding="utf-8").rstrip().endswith("</html>")
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_rendering_is_repeatable():
    assert page_of(sample()) == page_of(sample())


def test_health_says_when_a_curve_leaves_its_band(full):
    text = Page(full).text
    # Effective rank falls from 90 to 0, view recall rises.
    assert "Effective rank look here" in text
    assert "Views find each other healthy" in text
    assert "70.0 %" in text


def test_backticks_set_code_and_nothing_else():
    text = page_of(sample(advice=("try `--set a=<b>` now", "a ` alone")))
    assert "try <code>--set a=&lt;b&gt;</code> now" in text
    assert "a ` alone" in text


def test_label_free_measures_stand_in_for_the_forest():
    measures = (
        Measure("view_recall", 71.0, 74.0, label="Views"),
        Measure("rank", 212, 193, unit=""),
    )
    text = page_of(sample(measures=measures, outcome=Outcome("not measured", "x", "start")))
    assert "hero-figure" not in text[text.index("<main>") :]
    assert "paired bootstrap" not in text
    assert "Views 71.0 → 74.0 %" in Page(text).text
    assert "−19.0" in text


def test_deciding_measures_come_first():
    measures = tuple(
        Measure(name, 1.0, 2.0, 1.0, 0.5, 1.5)
        for name in ("linear@10", "rank10", "knn", "rank1", "odd", "map")
    )
    text = page_of(sample(measures=measures))
    rows = re.findall(r'<th scope="row">([^<]+?)\s*<', text[text.index('id="numbers"') :])
    assert rows[:6] == ["mAP", "Rank-1", "Rank-10", "kNN", "Linear, 10 %", "odd"]
    forest = re.findall(r'forest-label">([^<]+)<', text)
    assert forest == ["mAP", "Rank-1", "kNN"]


def test_very_many_bad_photos_are_counted_not_listed():
    bad = tuple(BadPhoto(f"bad/{i}.jpg", "refused", "x") for i in range(1500))
    text = page_of(sample(bad_photos=bad))
    assert text.count("bad/") == 1000
    assert "500 more are not listed" in text


def test_names_that_would_become_equal_are_left_alone():
    pair = ConfusablePair("1.Wren", "2.Wren", 1.0, 1.0)
    text = Page(page_of(sample(confusable=(pair,), sheets=(), map=None))).text
    assert "1.Wren" in text
    assert "2.Wren" in text


def test_numbers_read_well():
    assert signed(-1.25) == "−1.2"
    assert signed(0.04) == "0.0"
    assert signed(2.0) == "+2.0"
    assert [number(value) for value in (212.4, 0.0876, 1.0, -3.1, -6e-8)] == [
        "212",
        "0.0876",
        "1.00",
        "−3.10",
        "0",
    ]


def test_scale_holds_all_values_and_round_ticks():
    scale = scale_over([-1.2, 0.0, 4.3])
    assert scale.low < -1.2 < 4.3 < scale.high
    assert 0.0 in scale.ticks
    assert all(scale.low <= tick <= scale.high for tick in scale.ticks)
    assert scale_over([2.0, 2.0]).high > 2.0
