import re
from pathlib import Path

import numpy as np

from fieldmark.index.sqlite import SqliteIndex
from fieldmark.label.classifier import FieldClassifier

PAGE = (Path(__file__).parents[2] / "docs" / "label.md").read_text(encoding="utf-8")


def test_the_python_of_the_page_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    draw = np.random.default_rng(0)
    kind = np.arange(60) % 3
    x = (np.eye(3, 6)[kind] + 0.2 * draw.normal(size=(60, 6))).astype(np.float32)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    keys = [f"{row}.jpg" for row in range(60)]
    with SqliteIndex(Path("birds.index"), create=True) as index:
        index.add_space("e" * 64, 6)
        index.add(keys, x)
        index.set_labels({key: ("wren", "robin", "tit")[k] for key, k in zip(keys, kind)})
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names = {}
    exec(code, names)
    again = FieldClassifier.load("birds.classifier")
    assert (again.predict(x) == names["classifier"].predict(x)).all()
