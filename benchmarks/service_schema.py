"""Does the service keep to its own description? Schemathesis asks every operation, alone and in sequences.

A service of its own is started on a small index in a temporary folder: drawn birds with parts, a third of them
labelled, and a finished run. Schemathesis sends what fits the description and what does not, follows links
from one answer to the next request, and checks every answer. Once without tokens and once with: then it also
tries without and with wrong ones. The page of results says: cases by operation, failures, seconds.

    python benchmarks/service_schema.py [--examples 200] [--seed 1]
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import tomli_w

from _record import record
from fieldmark.app.tokens import Scope, add_token
from fieldmark.backbones.backbone import Backbone, BackboneConfig
from fieldmark.data.aviary import AviaryConfig, draw, write
from fieldmark.encoder import Encoder
from fieldmark.index.places import open_index
from fieldmark.nn.spec import EncoderSpec
from fieldmark.workflows.index import index_photos

_REFUSED = ["400", "401", "403", "404", "405", "406", "409", "413", "415", "422", "428", "429"]
SETTINGS: dict[str, Any] = {
    "max-failures": 10_000,
    "continue-on-failure": True,
    "request-timeout": 60,
    # Bodies may hold thousands of labels, of which chance makes slow work.
    "suppress-health-check": ["all"],
    "cache": {"enabled": False},
    "generation": {"database": "none"},
    "checks": {
        # JSON Schema has no word for a filter's grammar, for bytes that are a photo, or for "key or query, not
        # both": what fits the schema may still be refused with 422, and only with that (status_code_conformance).
        "positive_data_acceptance": {"enabled": False},
        # Values that are wrong because they are too long may be too long for a head (431) or body (413) first.
        "negative_data_rejection": {"expected-statuses": [*_REFUSED, "431"]},
        # 503 with Retry-After is described: the service sheds load, and photos wait in a bounded queue.
        "not_a_server_error": {"expected-statuses": ["2xx", "3xx", "4xx", "503"]},
    },
    "operations": [
        {
            # It waits as long as it is asked to, up to 25 s; that takes time and tells nothing.
            "include-path": "/api/v1/labels/changes",
            "parameters": {"query.wait": [0, 0.05]},
        }
    ],
}


_SERVE = """
from fieldmark.app import access
from fieldmark.cli.app import main
# Schemathesis tries hundreds of unknown tokens a minute and wants each answered 401; the service answers 429
# from the 21st on, which tests/app/test_access.py looks at.
access._MOST_WRONG = 10**9
main()
"""


def make_place(root: Path) -> None:
    """Index, photos, run and tokens in a folder."""
    write(draw(AviaryConfig(species=3, per_species=8, size=64)), root / "birds")
    network = Backbone.build(BackboneConfig(name="test_resnet", weights="random", seed=0), size=32)
    Encoder(EncoderSpec(network), device="cpu").save(root / "encoder")
    index_photos(
        root / "encoder", root / "birds" / "images", root / "index", device="cpu", parts=True
    )
    with open_index(root / "index") as index:
        keys = [item.key for item in index.items()]
        index.set_labels({key: None for row, key in enumerate(keys) if row % 3})
    run = root / "runs" / "first"
    run.mkdir(parents=True)
    (run / "run.json").write_text(json.dumps({"recipe": "fieldmark"}))
    line = {"kind": "train", "step": 1, "epoch": 0.1, "loss": 3.0, "grad_norm": 1.0, "lr": 0.01}
    (run / "metrics.jsonl").write_text(json.dumps(line) + "\n")


@contextmanager
def serving(root: Path, *more: str) -> Iterator[str]:
    """A service in a process of its own; gives its URL, and holds that it ends in peace."""
    command = [sys.executable, "-c", _SERVE, "serve", str(root / "index"), "--no-open"]
    command += ["--photos", str(root / "birds" / "images"), "--runs", str(root / "runs")]
    command += ["--port", "0", "--json", *more]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield json.loads(server.stdout.readline())["url"].rstrip("/")
            assert server.poll() is None, "the service ended by itself"
        finally:
            server.terminate()
    assert server.returncode == 0


def ask(
    url: str, folder: Path, arguments: argparse.Namespace, *, token: str = ""
) -> dict[str, Any]:
    """Everything that schemathesis has; what it found."""
    settings = folder / "schemathesis.toml"
    headers = {"headers": {"Authorization": f"Bearer {token}"}} if token else {}
    settings.write_text(tomli_w.dumps(SETTINGS | headers))
    told, events = folder / "told.json", folder / "events.ndjson"
    command = [str(Path(sys.executable).with_name("schemathesis")), "--config-file", str(settings)]
    command += ["run", f"{url}/api/v1/openapi.json", "--max-examples", str(arguments.examples)]
    command += ["--seed", str(arguments.seed), "--checks", "all", "--no-color"]
    command += ["--phases", "examples,coverage,fuzzing,stateful", "--report", "json,ndjson"]
    command += ["--report-json-path", str(told), "--report-ndjson-path", str(events)]
    command += ["--exclude-checks", "positive_data_acceptance"]
    began = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=os.environ)
    seconds = time.perf_counter() - began
    if not told.is_file():
        raise SystemExit(done.stdout[-4000:] + done.stderr[-4000:])
    if done.returncode:
        sys.stderr.write(done.stdout[-20_000:])
    found = json.loads(told.read_text())
    phases, statuses = count(events)
    return {
        "operations": found["operations"],
        "phases": {name: each["status"] for name, each in found["phases"].items()},
        "test_cases": found["test_cases"],
        "failures": found["failures"],
        "errors": found["errors"],
        "cases": phases,
        "statuses": statuses,
        "seconds": round(seconds, 1),
        "schemathesis": found["schemathesis_version"],
    }


def count(events: Path) -> tuple[dict[str, dict[str, int]], dict[str, int]]:
    """Cases by operation and phase, and answers by status, of a report's events."""
    cases: dict[str, Counter[str]] = {}
    statuses: Counter[str] = Counter()
    with events.open(encoding="utf-8") as lines:
        for line in lines:
            scenario = json.loads(line).get("ScenarioFinished")
            if scenario is None:
                continue
            recorder = scenario["recorder"]
            for name, case in recorder.get("cases", {}).items():
                value = case["value"]
                label = recorder["label"]
                if scenario["phase"] == "stateful":
                    label = f"{value['method']} {value['path']}"
                cases.setdefault(label, Counter())[scenario["phase"]] += 1
                answer = recorder.get("interactions", {}).get(name, {}).get("response")
                if answer is not None:
                    statuses[str(answer["status_code"])] += 1
    told = {label: dict(sorted(each.items())) for label, each in sorted(cases.items())}
    return told, dict(sorted(statuses.items()))


def main() -> int:
    """Ask, and write down what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--examples", type=int, default=200, help="Of each operation and phase.")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    found = {}
    for name in ("open", "guarded"):
        with tempfile.TemporaryDirectory() as place:
            root = Path(place)
            make_place(root)
            token, more = "", ()
            if name == "guarded":
                token = add_token(root / "tokens.toml", "Ida", Scope.admin)
                more = ("--tokens", str(root / "tokens.toml"))
            with serving(root, *more) as url:
                found[name] = ask(url, root, arguments, token=token)
    failures = sum(len(each["failures"]) + len(each["errors"]) for each in found.values())
    record(
        "service-schema",
        {"examples": arguments.examples, "seed": arguments.seed, "failures": failures, **found},
    )
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
