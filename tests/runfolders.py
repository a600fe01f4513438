"""Folders of training runs as runs leave them, without training."""

import base64
import json
from pathlib import Path

from fieldmark.evaluation.report import ConfusablePair, Facts, Measure, Outcome, ReportData

PHOTO = b"RIFF....WEBPVP8 "
SETTINGS = 'name = "gentle"\n[method]\nname = "simclr"\n[train]\nepochs = 8\n'


def line(step: int, **values: object) -> str:
    return json.dumps({"kind": "train", "step": step, "epoch": step / 10, "loss": 0.5, **values})


def make_run(folder: Path, *, steps: int = 20, finished: bool = False) -> Path:
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({"fieldmark": "0.1.0", "photos": "/secret/place"}))
    (folder / "config.resolved.toml").write_text(SETTINGS)
    (folder / "environment.json").write_text("{}")
    began = {"identity": {"photos": {"count": 120}}, "epochs": 8}
    (folder / "training.json").write_text(json.dumps({"began": began}))
    (folder / "metrics.jsonl").write_text("".join(f"{line(n + 1)}\n" for n in range(steps)))
    (folder / "timing.jsonl").write_text(
        '{"step": 10, "images_per_second": 60.0, "unix_time": 1.0}\n'
    )
    if finished:
        report = finished_report()
        (folder / "report.json").write_text(report.to_json())
        result = {"verdict": report.outcome.word, "sentence": report.outcome.sentence}
        (folder / "result.json").write_text(json.dumps(result))
    return folder


def finished_report() -> ReportData:
    return ReportData(
        title="<b>birds</b>",
        outcome=Outcome("hurt", "Training hurt: mAP fell.", "start"),
        facts=Facts(photos=120, test=40, classes=4),
        measures=(Measure("map", 40.0, 30.0, low=-12.0, high=-8.0),),
        confusable=(ConfusablePair("a", "b", 10.0, 20.0, ("one", "gone"), ()),),
        photos={"one": "data:image/webp;base64," + base64.b64encode(PHOTO).decode()},
    )
