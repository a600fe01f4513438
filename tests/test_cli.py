import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from fieldmark.cli import app


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for index in range(20):
        pixels = np.random.default_rng(index).integers(0, 256, (24, 30, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{index:02d}.png")
    return folder


def test_help_names_every_command_and_needs_no_torch():
    code = (
        "import sys; from fieldmark.cli import app; sys.argv = ['fieldmark', '--help']\n"
        "try: app.main()\nexcept SystemExit: pass\n"
        "assert 'torch' not in sys.modules, 'torch was imported'"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for name in app.COMMANDS:
        assert name in done.stdout


@pytest.mark.parametrize("name", list(app.COMMANDS))
def test_every_command_has_help_with_an_example_and_json(run, name):
    code, out, _ = run(name, "--help")
    assert code == 0
    assert "--json" in out
    assert f"fieldmark {name}" in out


def test_train_prints_one_object_on_the_last_line_of_stdout(run, photos, tmp_path):
    out_folder = tmp_path / "run"
    code, out, _ = run(
        "train", photos, "--out", out_folder, "--recipe", "smoke", "--epochs", 1, "--set",
        "health.photos=16", "--json",
    )  # fmt: skip
    assert code == 0
    result = json.loads(out.strip().splitlines()[-1])
    assert result["verdict"] == "not measured"
    assert result["shipped"] == "start"
    assert set(result) >= {"start", "trained", "gain", "interval"}
    assert (out_folder / "report.html").is_file()


def test_train_without_out_says_where_the_run_goes(run, photos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = ["train", "photos", "--recipe", "smoke", "--epochs", 1]
    arguments += ["--set", "health.photos=16", "--set", "train.tensorboard=false"]
    code, out, err = run(*arguments)
    assert code == 0
    assert "the run goes to runs/photos-smoke" in err
    assert "runs/photos-smoke/report.html" in out
    assert (tmp_path / "runs" / "photos-smoke" / "encoder" / "encoder.json").is_file()
    code, _, err = run(*arguments)  # the same command goes on with the same run
    assert code == 0
    assert "already" in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "EMPTY", "--out", "NEW", "--recipe", "smoke"], "no photo in"),
        (["train", "ABSENT", "--out", "NEW", "--recipe", "smoke"], "ABSENT"),
        (["train", "PHOTOS", "--out", "NEW", "--recipe", "smok"], "did you mean 'smoke'"),
        (
            ["train", "PHOTOS", "--out", "NEW", "--recipe", "smoke", "--set", "method.temprature=1"],
            "temperature",
        ),
        (["train", "PHOTOS", "--out", "FILE", "--recipe", "smoke"], "is a file"),
        (["train", "PHOTOS", "--out", "PHOTOS", "--recipe", "smoke"], "not empty"),
        (["train", "PHOTOS", "--out", "NEW", "--recipe", "smoke", "--probe", "FILE"], "FILE"),
        (["train", "PHOTOS", "--out", "NEW", "--recipe", "smoke", "--weights", "FILE"], "FILE"),
        (["eval", "ABSENT", "PHOTOS"], "ABSENT"),
        (["report", "PHOTOS"], "report.json"),
        (["finetune", "ABSENT", "PHOTOS", "--out", "NEW"], "ABSENT"),
        (["finetune", "PHOTOS", "PHOTOS", "--out", "NEW"], "not an encoder"),
        (["finetune", "PHOTOS", "PHOTOS", "--out", "NEW", "--set", "head_rat=1"], "head_rate"),
        (["ablate", "nothing", "PHOTOS", "--out", "NEW"], "unknown method"),
        (["ablate", "mocov2", "PHOTOS", "--out", "NEW", "--study", "queu"], "did you mean 'queue'"),
    ],
)  # fmt: skip
def test_bad_input_is_one_paragraph_and_exit_code_2(run, photos, tmp_path, arguments, words):
    (tmp_path / "EMPTY").mkdir()
    (tmp_path / "FILE").write_text("<html>not what you think</html>")
    places = {"PHOTOS": photos}
    places |= {name: tmp_path / name for name in ("EMPTY", "ABSENT", "NEW", "FILE")}
    code, out, err = run(*[places.get(word, word) for word in arguments])
    assert code == 2, err
    assert "Traceback" not in err
    assert words.lower() in err.lower().replace("\n", " ")
    assert out == ""


def test_doctor_tells_versions(run):
    code, out, _ = run("doctor", "--seconds", 0, "--json")
    assert code == 0
    report = json.loads(out)
    assert report["versions"]["fieldmark"]
    assert report["problems"] == []


def test_plan_predicts_without_leaving_anything(run, photos, tmp_path, monkeypatch):
    from fieldmark.workflows import plan as module

    trial = module.trial
    monkeypatch.setattr(module, "trial", lambda *a, **more: trial(*a, **more | {"seconds": 0.1}))
    monkeypatch.chdir(tmp_path)
    code, out, _ = run("plan", photos, "--recipe", "smoke", "--set", "health.photos=16", "--json")
    assert code == 0
    plan = json.loads(out.strip().splitlines()[-1])
    assert plan["steps"] == 20 // 16 * 2
    assert plan["images_per_second"] > 0
    assert plan["minutes"] >= plan["preparation_minutes"] >= 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photos"]


def test_weights_that_name_their_network_stand_in_for_the_recipes(tmp_path):
    import torch
    from safetensors.torch import save_file

    from fieldmark.cli.train import overrides
    from fieldmark.workflows.recipe import load_recipe

    file = tmp_path / "w.safetensors"
    save_file({"a": torch.zeros(1)}, file, {"arch": "test_vit"})
    settings = overrides(str(file))
    assert load_recipe("lodisc", extra=settings).backbone.name == "test_vit"
    sets = ["backbone.name=test_resnet"]
    assert load_recipe("lodisc", sets, extra=settings).backbone.name == "test_resnet"
    save_file({"a": torch.zeros(1)}, file)
    assert load_recipe("lodisc", extra=overrides(str(file))).backbone.name == "vit_base_patch16_224"
    assert overrides("random") == {"backbone": {"weights": "random"}}
