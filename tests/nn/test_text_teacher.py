import copy
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn

from fieldmark.errors import ConfigError, InputError, MissingExtraError, WeightsError
from fieldmark.nn import clip
from fieldmark.nn.frozen import CLIP, IMAGENET, prepare
from fieldmark.nn.text_teacher import (
    TextImageTeacher,
    embed_photos,
    load_teacher,
)
from fieldmark.nn.towers import Towers, TowersConfig, split_words

TEXTS = ["a bird with feathers", "a dog", "a blurred background of leaves, without a bird"]
SIZE = 32


def towers(seed=0, size=16):
    torch.manual_seed(seed)
    words = tuple(sorted({word for text in TEXTS for word in split_words(text)}))
    return Towers(TowersConfig(words=words, size=size, dim=8, width=4))


def images(count=3, height=SIZE, width=SIZE, seed=0):
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 6, 6, generator=generator)
    return nn.functional.interpolate(coarse, (height, width), mode="bilinear")


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory):
    """A tiny random CLIP as transformers stores it, with a tokenizer of letters."""
    import transformers

    folder = tmp_path_factory.mktemp("clip")
    letters = [*"abcdefghijklmnopqrstuvwxyz,."]
    pieces = [piece for letter in letters for piece in (letter, f"{letter}</w>")]
    pieces += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {piece: place for place, piece in enumerate(pieces)}
    tower = {"hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 2}
    tower["num_attention_heads"] = 2
    ends = {"bos_token_id": len(pieces) - 2, "eos_token_id": len(pieces) - 1}
    torch.manual_seed(0)
    network = transformers.CLIPModel(
        transformers.CLIPConfig(
            text_config={**tower, **ends, "vocab_size": len(pieces), "max_position_embeddings": 77},
            vision_config={**tower, "image_size": SIZE, "patch_size": 8},
            projection_dim=12,
        )
    )
    # Its own start is so small that all texts look alike.
    for parameter in network.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    network.logit_scale.data.fill_(3.0)
    network.save_pretrained(folder)
    transformers.CLIPTokenizer(vocab=vocabulary, merges=[]).save_pretrained(folder)
    transformers.CLIPImageProcessor(
        size={"shortest_edge": SIZE}, crop_size={"height": SIZE, "width": SIZE}
    ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def siglip_folder(tmp_path_factory):
    """A tiny random SigLIP, which has a bias, another padding and other statistics."""
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers

    folder = tmp_path_factory.mktemp("siglip")
    words = sorted({word for text in TEXTS for word in split_words(text)})
    vocabulary = {word: place for place, word in enumerate(["<pad>", "<unk>", *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>"
    ).save_pretrained(folder)
    tower = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    tower["num_attention_heads"] = 2
    torch.manual_seed(1)
    network = transformers.SiglipModel(
        transformers.SiglipConfig(
            text_config={**tower, "vocab_size": len(vocabulary), "max_position_embeddings": 16},
            vision_config={**tower, "image_size": SIZE, "patch_size": 8},
        )
    )
    for parameter in network.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    network.save_pretrained(folder)
    transformers.SiglipImageProcessor(size={"height": SIZE, "width": SIZE}).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def open_clip_file(tmp_path_factory):
    """Random weights of a tiny model that open_clip is told about."""
    import open_clip

    folder = tmp_path_factory.mktemp("open_clip")
    config = {
        "embed_dim": 12,
        "vision_cfg": {
            "image_size": SIZE, "layers": 2, "width": 24, "head_width": 12, "patch_size": 8,
        },
        "text_cfg": {
            "context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1,
        },
    }  # fmt: skip
    (folder / "tiny-test.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder / "tiny-test.json")
    torch.manual_seed(2)
    network = open_clip.create_model("tiny-test")
    for parameter in network.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    file = folder / "open_clip_model.safetensors"
    save_file(network.state_dict(), file)
    (folder / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": config, "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.25] * 3}})
    )
    return file


def both(teacher):
    with torch.no_grad():
        return teacher.encode_images(images()), teacher.encode_texts(TEXTS)


def unit(vectors):
    return torch.allclose(vectors.norm(dim=1), torch.ones(len(vectors)), atol=1e-5)


# What holds for every teacher.


@pytest.fixture(params=["small", "transformers", "siglip", "open_clip"])
def teacher(request, tmp_path):
    if request.param == "small":
        towers().save(tmp_path)
        return load_teacher(f"fieldmark:{tmp_path}")
    if request.param == "open_clip":
        file = request.getfixturevalue("open_clip_file")
        return load_teacher(f"open_clip:tiny-test:{file}")
    kind = {"transformers": "clip_folder", "siglip": "siglip_folder"}[request.param]
    return load_teacher(f"transformers:{request.getfixturevalue(kind)}")


def test_a_teacher_gives_unit_vectors_and_learns_nothing(teacher):
    assert isinstance(teacher, TextImageTeacher)
    shown, said = images().requires_grad_(), teacher.encode_texts(TEXTS)
    seen = teacher.encode_images(shown)
    assert seen.shape == (3, teacher.dim)
    assert said.shape == (3, teacher.dim)
    assert unit(seen)
    assert unit(said)
    assert not seen.requires_grad
    assert not said.requires_grad
    assert teacher.scale > 0
    assert (said @ said.T).triu(1).max() < 1 - 1e-4, "texts that differ must not look the same"


def test_a_teacher_is_in_no_state_no_optimiser_and_never_in_training_mode(teacher):
    class Method(nn.Module):
        def __init__(self):
            super().__init__()
            self.learns = nn.Linear(2, 2)
            self.teacher = teacher

    method = Method().train().requires_grad_(True)
    assert set(method.state_dict()) == {"learns.weight", "learns.bias"}
    assert len(list(method.parameters())) == 2
    method.load_state_dict(method.state_dict())
    network = method.teacher.__dict__["network"]
    assert not any(module.training for module in network.modules())
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_a_teacher_follows_its_method_and_can_be_copied(teacher):
    before = both(teacher)
    holder = nn.ModuleDict({"teacher": copy.deepcopy(teacher)})
    holder.double()
    held = holder["teacher"]
    assert {p.dtype for p in held.__dict__["network"].parameters()} == {torch.float64}
    assert {p.dtype for p in teacher.__dict__["network"].parameters()} == {torch.float32}
    for first, second in zip(before, both(held), strict=True):
        assert second.dtype == torch.float32
        assert torch.allclose(first, second, atol=1e-4)


def test_each_text_and_image_counts_for_itself(teacher):
    seen, said = both(teacher)
    alone = torch.cat([teacher.encode_texts([text]) for text in TEXTS])
    assert torch.allclose(said, alone, atol=1e-5)
    each = embed_photos(teacher, [images()[:1], images()[1:]])
    assert torch.allclose(seen, each, atol=1e-5)
    assert embed_photos(teacher, []).shape == (0, teacher.dim)


def test_images_of_any_size_and_type_are_taken(teacher):
    wide = teacher.encode_images(images(2, 40, 70))
    assert wide.shape == (2, teacher.dim)
    half = teacher.encode_images(images().bfloat16())
    assert half.dtype == torch.float32
    assert (half * teacher.encode_images(images())).sum(1).min() > 0.99


def test_no_text_is_refused(teacher):
    with pytest.raises(ConfigError, match="at least one text"):
        teacher.encode_texts([])


def test_a_saved_folder_in_the_folder_for_weights_is_found(tmp_path, monkeypatch):
    towers().save(tmp_path / "mine")
    monkeypatch.setenv("FIELDMARK_WEIGHTS_DIR", str(tmp_path))
    assert load_teacher("fieldmark:mine").dim == 8


# The packages' own way of computing.


def test_transformers_computes_what_its_own_model_and_processor_do(clip_folder):
    import transformers

    teacher = load_teacher(f"transformers:{clip_folder}")
    model = transformers.CLIPModel.from_pretrained(clip_folder).eval()
    tokens = transformers.CLIPTokenizer.from_pretrained(clip_folder)(
        TEXTS, padding=True, return_tensors="pt"
    )
    processor = transformers.CLIPImageProcessor.from_pretrained(clip_folder)
    for height, width in ((SIZE, SIZE), (64, 64), (50, 90), (20, 28)):
        shown = images(3, height, width)
        pixels = processor(list(shown), return_tensors="pt", do_rescale=False)["pixel_values"]
        with torch.no_grad():
            own = model(**tokens, pixel_values=pixels)
        seen, said = teacher.encode_images(shown), teacher.encode_texts(TEXTS)
        assert torch.allclose(seen, own.image_embeds, atol=1e-4), (height, width)
        assert torch.allclose(said, own.text_embeds, atol=1e-4)
        logits = teacher.scale * seen @ said.T
        assert torch.allclose(logits, own.logits_per_image, atol=1e-4), (height, width)


def test_resizing_is_transformers_up_to_the_bytes_it_rounds_to(clip_folder):
    import transformers

    processor = transformers.CLIPImageProcessor.from_pretrained(clip_folder)
    deviation = torch.tensor(CLIP[1]).view(3, 1, 1)
    noise = torch.rand(3, 3, 50, 70, generator=torch.Generator().manual_seed(3))
    for shown, most in ((images(3, 50, 70), 1.01), (noise, 16)):
        pixels = (shown * 255).round().to(torch.uint8)
        theirs = processor(list(pixels), return_tensors="pt")["pixel_values"]
        levels = (prepare(pixels / 255, SIZE, *CLIP) - theirs).abs() * deviation * 255
        # Bytes are rounded, and in noise cut off at 0 and 255, after each of two passes.
        assert levels.max() < most
        assert levels.mean() < 0.5


def test_loading_says_nothing_and_leaves_transformers_as_it_was(clip_folder, capfd):
    from transformers.utils import logging

    logging.enable_progress_bar()
    load_teacher(f"transformers:{clip_folder}")
    said = capfd.readouterr()
    assert said.out + said.err == ""
    assert logging.is_progress_bar_enabled()


def test_siglip_differs_from_its_own_logits_by_one_number_only(siglip_folder):
    import transformers

    teacher = load_teacher(f"transformers:{siglip_folder}")
    assert teacher.mean == (0.5, 0.5, 0.5)
    assert teacher.squash
    model = transformers.SiglipModel.from_pretrained(siglip_folder).eval()
    tokens = transformers.AutoTokenizer.from_pretrained(siglip_folder)(
        TEXTS, padding="max_length", max_length=16, return_tensors="pt"
    )
    shown = images(3, 40, 60)
    processor = transformers.SiglipImageProcessor.from_pretrained(siglip_folder, resample=3)
    pixels = processor(list(shown), return_tensors="pt", do_rescale=False)["pixel_values"]
    with torch.no_grad():
        own = model(input_ids=tokens["input_ids"], pixel_values=pixels)
    seen, said = teacher.encode_images(shown), teacher.encode_texts(TEXTS)
    assert torch.allclose(seen, own.image_embeds, atol=1e-4)
    assert torch.allclose(said, own.text_embeds, atol=1e-4)
    apart = own.logits_per_image - teacher.scale * seen @ said.T
    assert torch.allclose(apart, model.logit_bias.expand(3, 3), atol=1e-4)
    ours = (teacher.scale * seen @ said.T).softmax(1)
    assert torch.allclose(ours, own.logits_per_image.softmax(1), atol=1e-4)


def test_open_clip_computes_what_its_own_model_and_transform_do(open_clip_file):
    import open_clip

    teacher = load_teacher(f"open_clip:tiny-test:{open_clip_file}")
    model, _, transform = open_clip.create_model_and_transforms(
        "tiny-test", pretrained=str(open_clip_file)
    )
    tokens = open_clip.get_tokenizer("tiny-test")(TEXTS)
    shown = images()
    with torch.no_grad():
        pixels = torch.stack([transform.transforms[-1](image) for image in shown])
        logits, _ = model.eval().get_logits(pixels, tokens)
        seen, said, scale = model(pixels, tokens)
    assert torch.allclose(teacher.encode_images(shown), seen, atol=1e-4)
    assert torch.allclose(teacher.encode_texts(TEXTS), said, atol=1e-4)
    assert teacher.scale == pytest.approx(float(scale), rel=1e-5)
    ours = teacher.scale * teacher.encode_images(shown) @ teacher.encode_texts(TEXTS).T
    assert torch.allclose(ours, logits, atol=1e-4)


@pytest.mark.parametrize(("height", "width"), [(64, 64), (50, 90), (20, 28)])
def test_resizing_is_open_clips_up_to_the_bytes_it_rounds_to(open_clip_file, height, width):
    import open_clip

    _, _, transform = open_clip.create_model_and_transforms(
        "tiny-test", pretrained=str(open_clip_file)
    )
    pixels = (images(1, height, width)[0].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    theirs = transform(Image.fromarray(pixels))
    given = torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255
    ours = prepare(given, SIZE, *CLIP)[0]
    # Pillow rounds to bytes after each of two passes: at most 1 / 255, divided by the deviation.
    assert (ours - theirs).abs().max() < 1.01 / 255 / min(CLIP[1])


def test_an_open_clip_folder_says_itself_how_images_are_normalised(open_clip_file):
    teacher = load_teacher(f"open_clip:{open_clip_file.parent}")
    assert teacher.mean == (0.5, 0.5, 0.5)
    assert teacher.std == (0.25, 0.25, 0.25)
    other = load_teacher(f"open_clip:tiny-test:{open_clip_file}")
    assert torch.allclose(teacher.encode_texts(TEXTS), other.encode_texts(TEXTS), atol=1e-5)
    assert not torch.allclose(both(teacher)[0], both(other)[0], atol=1e-3)


def test_the_release_normalises_with_the_statistics_of_imagenet(clip_folder):
    proper = load_teacher(f"transformers:{clip_folder}")
    faithful = load_teacher(f"transformers:{clip_folder}", teacher_norm="imagenet")
    assert (proper.mean, proper.std) == CLIP
    assert (faithful.mean, faithful.std) == IMAGENET
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in CLIP)
    wrong_mean, wrong_std = (torch.tensor(values).view(3, 1, 1) for values in IMAGENET)
    disguised = (images() - wrong_mean) / wrong_std * std + mean
    assert torch.allclose(
        faithful.encode_images(images()), proper.encode_images(disguised), atol=1e-5
    )
    assert not torch.allclose(both(proper)[0], both(faithful)[0], atol=1e-3)


def test_preparing_keeps_to_what_bytes_can_hold():
    steep = torch.zeros(1, 3, 40, 40)
    steep[:, :, :, 20:] = 1
    out = prepare(steep, 24, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    assert out.min() >= 0
    assert out.max() <= 1
    cut = prepare(images(1, 48, 96), 24, (0.0,) * 3, (1.0,) * 3)
    middle = prepare(images(1, 48, 96)[:, :, :, 24:72], 24, (0.0,) * 3, (1.0,) * 3)
    assert (cut - middle)[..., 2:-2].abs().max() < 1e-5, "the middle is kept"
    squashed = prepare(images(1, 48, 96), 24, (0.0,) * 3, (1.0,) * 3, squash=True)
    assert (squashed - cut).abs().max() > 0.05


# The small teacher.


def test_the_text_tower_takes_the_mean_of_known_words():
    built = towers()
    place = {word: i for i, word in enumerate(built.config.words)}
    words = [place[word] for word in ("a", "bird", "with", "feathers")]
    mean = built.words.weight[words].mean(0)
    expected = nn.functional.normalize(built.text_out(mean), dim=0)
    got = built.encode_text(["A bird WITH feathers.", "feathers, unheard a with bird"])
    assert torch.allclose(got[0], expected, atol=1e-6)
    assert torch.allclose(got[1], expected, atol=1e-6)
    with pytest.raises(InputError, match=r"knows no word of the text 'zebra'.*such as"):
        built.encode_text(["a bird", "zebra"])


def test_towers_come_back_as_they_were(tmp_path):
    built = towers(seed=4)
    built.save(tmp_path)
    again = Towers.load(tmp_path)
    assert again.config == built.config
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in built.state_dict().items())


def test_gradients_reach_both_towers():
    built = towers()
    (built.encode_image(images()) @ built.encode_text(TEXTS).T).diagonal().sum().backward()
    assert built.image[0].weight.grad.abs().max() > 0
    assert built.words.weight.grad.abs().max() > 0


def test_damaged_towers_are_refused(tmp_path):
    with pytest.raises(WeightsError, match="holds no text teacher of fieldmark"):
        load_teacher(f"fieldmark:{tmp_path}")
    towers().save(tmp_path)
    tensors = load_file(tmp_path / "teacher.safetensors")
    del tensors["image_out.bias"]
    save_file(tensors, tmp_path / "teacher.safetensors")
    with pytest.raises(WeightsError, match=r"does not fit teacher\.json.*image_out\.bias"):
        load_teacher(f"fieldmark:{tmp_path}")
    (tmp_path / "teacher.json").write_text("{}")
    with pytest.raises(WeightsError, match="format"):
        load_teacher(f"fieldmark:{tmp_path}")


# What goes wrong.


@pytest.mark.parametrize("name", ["", "clip", "fieldmark:", "timm:resnet50", "/some/folder"])
def test_a_name_of_no_known_form_is_refused_with_the_forms(name):
    with pytest.raises(ConfigError, match=r"named 'open_clip:MODEL.*To get one: pip install"):
        load_teacher(name)


def test_a_folder_that_is_not_there_is_said(monkeypatch):
    for name in ("transformers:./nowhere", "open_clip:./nowhere", "open_clip:ViT-B-32:nowhere"):
        with pytest.raises(WeightsError, match=r"nowhere.*To get one"):
            load_teacher(name)
    with pytest.raises(WeightsError, match="no model 'ViT-Z'"):
        load_teacher("open_clip:ViT-Z:file")


@pytest.mark.parametrize("name", ["transformers:openai/clip", "open_clip:ViT-B-32:openai"])
def test_nothing_is_fetched_when_offline(monkeypatch, tmp_path, name):
    import huggingface_hub

    def reached(*_, **__):
        raise AssertionError("the network was reached")

    monkeypatch.setenv("FIELDMARK_OFFLINE", "1")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("socket.socket.connect", reached)
    with pytest.raises(WeightsError, match=r"downloading is switched off.*To get one"):
        load_teacher(name)


def test_pickles_are_never_read(tmp_path, open_clip_file):
    torch.save({"a": torch.zeros(1)}, tmp_path / "model.pt")
    with pytest.raises(WeightsError, match="is a pickle"):
        load_teacher(f"open_clip:tiny-test:{tmp_path / 'model.pt'}")
    (tmp_path / "model.pt").rename(tmp_path / "pytorch_model.bin")
    (tmp_path / "config.json").write_text('{"model_type": "clip"}')
    with pytest.raises(WeightsError, match=r"no \.safetensors file; pickles are never read"):
        load_teacher(f"transformers:{tmp_path}")
    (tmp_path / "open_clip_config.json").write_text('{"model_cfg": {}}')
    with pytest.raises(WeightsError, match=r"no \.safetensors file"):
        load_teacher(f"open_clip:{tmp_path}")


def test_weights_of_another_model_are_refused(tmp_path, open_clip_file):
    save_file({"visual.proj": torch.zeros(2, 2)}, tmp_path / "other.safetensors")
    with pytest.raises(WeightsError, match="could not be loaded"):
        load_teacher(f"open_clip:tiny-test:{tmp_path / 'other.safetensors'}")


def test_a_network_without_texts_is_refused(tmp_path):
    import transformers

    config = transformers.CLIPVisionConfig(
        hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1,
        image_size=16, patch_size=8,
    )  # fmt: skip
    transformers.CLIPVisionModel(config).save_pretrained(tmp_path)
    with pytest.raises(WeightsError, match="To get one"):
        load_teacher(f"transformers:{tmp_path}")


@pytest.mark.parametrize("package", ["open_clip", "transformers"])
def test_a_missing_package_is_said_in_one_line(monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=r"pip install 'fieldmark\[text\]'"):
        load_teacher(f"{package}:ViT-B-32:openai")


INFERENCE = """
import sys

class Forbidden:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"open_clip", "transformers"}:
            raise ImportError(f"{name} was imported")

sys.meta_path.insert(0, Forbidden())
import numpy as np
import fieldmark, fieldmark.methods, fieldmark.workflows.train, fieldmark.nn.text_teacher
from fieldmark.backbones.backbone import Backbone, BackboneConfig
from fieldmark.encoder import Encoder
from fieldmark.nn.spec import EncoderSpec
backbone = Backbone.build(BackboneConfig(name="test_resnet", weights="random"), size=32)
Encoder(EncoderSpec(backbone), device="cpu").save(sys.argv[1])
photo = np.zeros((40, 40, 3), np.uint8)
assert Encoder.load(sys.argv[1]).embed([photo]).shape[0] == 1
assert not {"open_clip", "transformers"} & set(sys.modules)
print("fine")
"""


def test_embedding_and_exporting_need_no_text_image_package(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", INFERENCE, str(tmp_path / "encoder")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == "fine", done.stderr


def test_the_check_would_notice_an_import(monkeypatch, tmp_path):
    told = INFERENCE.replace("import numpy as np", "import numpy as np, transformers")
    done = subprocess.run(
        [sys.executable, "-c", told, str(tmp_path / "encoder")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "transformers was imported" in done.stderr


def test_the_adapters_are_the_only_place_that_imports_the_packages():
    from pathlib import Path

    source = Path(clip.__file__).parents[1]
    for path in source.rglob("*.py"):
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
        found = [
            line
            for line in lines
            if line.startswith(("import ", "from "))
            and line.split()[1].split(".")[0] in {"open_clip", "transformers"}
        ]
        assert not found or path.name == "clip.py", path
