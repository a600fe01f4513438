"""The tutorials run as they are printed, on fewer photos, and print what they show.

In a page

- ```` ```sh ```` blocks are commands: ``fieldmark`` runs in this process, and so do Python files that call its
  command line; anything else in a shell;
- a ```` ```python name.py ```` block (or csv, or toml) is a file that the reader saves;
- a ```` ```text ```` block is what the block above prints, numbers and species aside; ``…`` stands for any
  lines, or for any end of one;
- ``<!-- test adds: OPTIONS -->`` above a block is added to its (only) command, to make it small, before
  ``||`` where it has that. It can say nothing else, so every printed word is executed.
"""

import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from itertools import chain, groupby, pairwise
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from fieldmark.methods import METHODS
from serving import Running, wait_for

DOCS = Path(__file__).parents[2] / "docs"
PAGES = ("tutorial-biologist", "tutorial-catalogue", "tutorial-researcher")
_BLOCK = re.compile(
    r"(?:^<!-- test adds: (?P<adds>[^\n]*?) -->\n)?"
    r"^```(?P<kind>sh|python|csv|toml|text)(?: (?P<name>[^\n]+))?\n(?P<body>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
_ADDRESS = "127.0.0.1:8000"
"""Where a service listens on the pages."""
_WRITES = ("--out", "--sheet", "--save", "--folders", "--onnx")
_MASKS = (
    (r"\b\d\d-[a-z]+-[a-z]+-[a-z]+\b", "SPECIES"),
    (r"\b[0-9a-f]{12,64}\b", "IDENTITY"),
    (r"\b[a-z]*\d+([.,]\d+)*\b", "#"),
    (r"[-+−](?=#)", ""),
    (r" ± #", ""),
    (r"# (kB|MB|KiB|MiB)\b", "SIZE"),
    (r"\b(start|trained)\b", "ENCODER"),
    (r"# \w+(, # \w+)*\.$", "# of each."),
    (r"^Head: .*?, right", "Head: HEAD, right"),
    (r" +", " "),
    (r"\bnan\b", "#"),
)
"""What may be another on another machine, and on fewer photos."""


class Block(NamedTuple):
    """A fenced block."""

    kind: str
    name: str
    body: str
    adds: list[str]
    """Words that the test adds to the command."""


def blocks(page: str) -> list[Block]:
    return [
        Block(found["kind"], found["name"] or "", found["body"], shlex.split(found["adds"] or ""))
        for found in _BLOCK.finditer(page)
    ]


def commands(block: Block) -> list[str]:
    joined = block.body.replace("\\\n", " ")
    return [line for line in joined.splitlines() if line.strip() and not line.startswith("#")]


def masked(text: str) -> list[str]:
    """Lines with what may differ taken out; lines that are alike then are one."""
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    for pattern, word in _MASKS:
        lines = [re.sub(pattern, word, line) for line in lines]
    return [line for line, _ in groupby(lines)]


def agrees(shown: list[str], printed: list[str]) -> bool:
    """Whether printed lines are those shown, where ``…`` stands for any."""
    if not shown:
        return not printed
    if shown[0].strip() == "…":
        return any(agrees(shown[1:], printed[first:]) for first in range(len(printed) + 1))
    same = ".*".join(map(re.escape, shown[0].split("…")))
    return bool(printed) and bool(re.fullmatch(same, printed[0])) and agrees(shown[1:], printed[1:])


def written(words: list[str]) -> Iterator[Path]:
    for option, value in pairwise(words):
        if option in _WRITES and "://" not in value:
            yield Path(value)


@pytest.fixture
def shell(tmp_path, monkeypatch):
    """What a reader has: an empty folder, and python."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("NO_COLOR", "1")
    # Other numbers of threads add up in another order, and a page says that two runs are the same to the bit.
    monkeypatch.setenv("OMP_NUM_THREADS", str(torch.get_num_threads()))


@pytest.fixture
def script(monkeypatch, capsys):
    """Run a Python file with arguments as ``python`` would; returns what the fixture run does."""

    def call(*words):
        monkeypatch.setattr(sys, "argv", list(words))
        # What the file registers, commands that are not called through it do not know.
        known = dict(METHODS)
        try:
            runpy.run_path(words[0], run_name="__main__")
            code = 0
        except SystemExit as end:
            code = end.code or 0
        finally:
            METHODS.clear()
            METHODS.update(known)
        out, err = capsys.readouterr()
        return code, out, err

    return call


@pytest.fixture
def short_trials(monkeypatch):
    """A prediction of the time that a benchmark takes is not what is tested here."""
    monkeypatch.setattr("fieldmark.workflows.bench._TRIAL_SECONDS", 0.1)


class Services:
    """The service that a page has started, if any."""

    def __init__(self):
        self._running = None

    def start(self, words):
        self.stop()
        self._running = Running(*words).start()
        urllib.request.urlopen(self._running.url, timeout=30).close()
        wait_for(self._ready, 30)

    def _ready(self):
        try:
            return self._running.get("/readyz")
        except urllib.error.HTTPError:  # 503: it is getting ready.
            return False

    def stop(self):
        if self._running is not None:
            self._running.stop()
        self._running = None

    def there(self, line):
        """A command line with the address where the service is in place of the page's."""
        if self._running is None:
            assert _ADDRESS not in line, f"no service is running: {line}"
            return line
        return line.replace(_ADDRESS, f"127.0.0.1:{self._running.port}")


@pytest.fixture
def services():
    made = Services()
    yield made
    made.stop()


@pytest.mark.usefixtures("short_trials")
@pytest.mark.parametrize("name", PAGES)
def test_the_tutorial_runs_and_prints_what_it_shows(name, run, script, shell, services):
    page = (DOCS / f"{name}.md").read_text(encoding="utf-8")
    if "\ncurl " in page and not shutil.which("curl"):
        pytest.skip("NOT RUN: commands of this page need curl")
    found = blocks(page)
    # Nothing that looks like a block, or like a word to the test, may be passed over.
    assert len(re.findall(r"^```", page, re.MULTILINE)) == 2 * len(found)
    assert page.count("<!--") == sum(bool(block.adds) for block in found)
    printed = ""
    for block in found:
        if block.kind in ("python", "csv", "toml"):
            Path(block.name).write_text(block.body, encoding="utf-8")
        elif block.kind == "text":
            assert agrees(masked(block.body), masked(printed)), (
                f"shown:\n{block.body}\nprinted:\n{printed}"
            )
        else:
            lines = commands(block)
            assert not block.adds or len(lines) == 1, lines
            printed = "".join(_execute(line, block.adds, run, script, services) for line in lines)


def _execute(line: str, adds: list[str], run, script, services) -> str:
    line = services.there(line)
    words = shlex.split(line, comments=True)
    if words[:2] == ["fieldmark", "serve"]:
        services.start([word for word in (*words[2:], *adds) if word != "&"])
        return ""
    if words == ["kill", "%1"]:
        services.stop()
        return ""
    if words[0] == "python" and "fieldmark.cli" in Path(words[1]).read_text(encoding="utf-8"):
        run = script
    elif words[0] != "fieldmark":
        first, bars, rest = line.partition(" || ")
        line = f"{first} {shlex.join(adds)}{bars}{rest}"
        done = subprocess.run(line, shell=True, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{line}\n{done.stderr}"
        return done.stdout
    # Names with a star stand for what there is, as in a shell.
    starred = [sorted(map(str, Path().glob(word))) if "*" in word else [word] for word in words]
    words = list(chain.from_iterable(starred))
    code, out, err = run(*words[1:], *adds)
    assert code == 0, f"{line}\n{err}"
    for path in written(words):
        assert path.exists(), f"{line} wrote no {path}"
    return out


def test_what_a_page_shows_must_be_printed():
    printed = masked(
        "12 photos\n  0.913  photos/00012.jpg  01-ringed-capped-finch\n  0.4  00001.jpg\n"
    )
    assert agrees(masked("360 photos\n 0.1 photos/00001.jpg 03-browed-naped-awlbill\n…\n"), printed)
    assert not agrees(masked("360 pictures\n…\n"), printed)
    assert not agrees(masked("360 photos\n"), printed)
    assert not agrees(masked("360 photos\n…\nand more\n"), printed)


def test_what_a_file_registers_is_known_only_while_it_runs(script, tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "import sys\n"
        "from fieldmark.methods import METHODS\n"
        "METHODS['mine'] = METHODS['simclr']\n"
        "print(sys.argv[1], 'mine' in METHODS)\n"
        "sys.exit(3)\n",
        encoding="utf-8",
    )
    code, out, _ = script(str(file), "told")
    assert (code, out) == (3, "told True\n")
    assert "mine" not in METHODS
