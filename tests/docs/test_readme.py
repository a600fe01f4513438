import re
import runpy
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fieldmark.backbones.backbone import Backbone, BackboneConfig
from fieldmark.cli.app import COMMANDS
from fieldmark.encoder import Encoder
from fieldmark.nn.spec import EncoderSpec

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """A folder as the README assumes it: a run and three photos."""
    backbone = Backbone.build(BackboneConfig(name="test_resnet", weights="random"), size=32)
    Encoder(EncoderSpec(backbone), device="cpu").save(tmp_path / "run" / "encoder")
    for index, name in enumerate("abc"):
        pixels = np.random.default_rng(index).integers(0, 256, (40, 50, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{name}.jpg")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_python_of_the_readme_runs(workplace):
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    names = {}
    exec(code, names)
    assert names["embeddings"].shape == (3, names["encoder"].dim)
    np.testing.assert_allclose(np.diag(names["similarity"]), 1, atol=1e-5)


def test_the_example_finds_a_photo_itself_first(workplace):
    photos = workplace / "photos"
    photos.mkdir()
    for name in "abc":
        shutil.copy(workplace / f"{name}.jpg", photos)
    nearest = runpy.run_path(str(ROOT / "examples" / "nearest.py"))["nearest"]
    found = nearest(workplace / "run", photos, workplace / "b.jpg", 2)
    assert found[0][0] == "b.jpg"
    assert found[0][1] == pytest.approx(1, abs=1e-4)
    assert len(found) == 2


def test_the_table_of_commands_is_complete():
    assert set(re.findall(r"^\| `fieldmark (\w+)", README, re.MULTILINE)) == set(COMMANDS)


def test_links_of_readme_and_docs_lead_somewhere():
    broken = []
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text(encoding="utf-8")):
            if not (page.parent / target).exists():
                broken.append(f"{page.name}: {target}")
    assert broken == []


def test_generated_pages_are_current(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["generate.py", "--check"])
    assert runpy.run_path(str(ROOT / "docs" / "generate.py"))["main"]() == 0
