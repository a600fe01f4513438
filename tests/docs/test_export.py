import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fieldmark.encoder import Encoder
from fieldmark.export import export_onnx
from fieldmark.nn.spec import EncoderSpec
from tiny import TinyBackbone

PAGE = (Path(__file__).parents[2] / "docs" / "export.md").read_text(encoding="utf-8")


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """A folder as the page assumes it: an exported encoder and two photos."""
    encoder = Encoder(EncoderSpec(TinyBackbone()), device="cpu", precision="fp32")
    export_onnx(encoder).save(tmp_path / "birds.onnx")
    for index, name in enumerate("ab"):
        coarse = np.random.default_rng(index).integers(0, 256, (5, 5, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((50, 40)).save(tmp_path / f"{name}.jpg", quality=95)
    monkeypatch.chdir(tmp_path)
    return encoder


def test_the_python_of_the_page_runs(workplace):
    alone, ours, _ = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert "fieldmark" not in alone
    names = {}
    exec(alone, names)
    pixels = np.asarray(Image.open("a.jpg"))
    expected = workplace.embed([pixels])[0]
    assert names["embedding"][0] @ expected > 0.9999
    assert names["licences"]["code"] == "Apache-2.0"
    exec(ours, names)
    assert names["embeddings"].shape == (2, workplace.dim)
    assert names["embeddings"][0] @ expected > 0.999


def test_the_page_names_all_metadata_there_is(workplace):
    from fieldmark.onnx_encoder import OnnxEncoder

    table = PAGE[PAGE.index("| metadata | what |") : PAGE.index("Neither paths")]
    named = set(re.findall(r"`(\w+)`", table))
    assert set(OnnxEncoder.load("birds.onnx").metadata) <= named
