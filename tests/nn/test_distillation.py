import math

import pytest
import torch

from fieldmark.errors import ConfigError
from fieldmark.nn.distillation import TextConfig, TextDistillation, text_divergence


class Fake:
    """A teacher of three directions; knows texts by their length."""

    dim, scale = 3, 7.0

    def encode_images(self, images):
        return torch.nn.functional.normalize(images.mean((2, 3)), dim=1)

    def encode_texts(self, texts):
        self.asked = texts
        generator = torch.Generator().manual_seed(1)
        return torch.nn.functional.normalize(
            torch.randn(len(texts), 3, generator=generator).double(), dim=1
        )


def settings(**changes):
    return TextConfig(**{"teacher": "fieldmark:x", "texts": "birds", **changes})


def part(**changes):
    torch.manual_seed(0)
    return TextDistillation(settings(**changes), Fake(), 5).double()


def by_hand(module, pooled, images, scale):
    """Eq. 3 and 4 as plain loops."""
    weight, bias = module.project.weight.tolist(), module.project.bias.tolist()
    texts = module.texts.tolist()

    def unit(v):
        length = math.sqrt(sum(x * x for x in v))
        return [x / length for x in v]

    def softmax(v):
        powers = [math.exp(x - max(v)) for x in v]
        return [p / sum(powers) for p in powers]

    def logits(v):
        return [scale * sum(a * b for a, b in zip(v, text)) for text in texts]

    total = 0.0
    for feature, image in zip(pooled.tolist(), images.mean((2, 3)).tolist()):
        feature = unit(feature)
        v = unit([sum(w * x for w, x in zip(row, feature)) + b for row, b in zip(weight, bias)])
        p, q = softmax(logits(unit(image))), softmax(logits(v))
        total += sum(a * (math.log(a) - math.log(b)) for a, b in zip(p, q))
    return total / (len(pooled) * len(texts))


@pytest.mark.parametrize(("count", "kind"), [(8, "fine"), (3, "coarse")])
@pytest.mark.parametrize(("kd_scale", "scale"), [(20.0, 20.0), ("teacher", 7.0)])
def test_loss_is_the_papers(count, kind, kd_scale, scale):
    module = part(text_count=count, text_kind=kind, kd_scale=kd_scale)
    pooled, images = torch.randn(4, 5).double(), torch.rand(4, 3, 6, 6).double()
    found = module(pooled, images, torch.arange(4))
    assert found.item() == pytest.approx(by_hand(module, pooled, images, scale), abs=1e-12)
    assert len(module.teacher.asked) == count
    assert found > 0


def test_kinds_of_texts_differ():
    fine, coarse = part(), part(text_kind="coarse")
    assert fine.teacher.asked[0].startswith("a bird characterised")
    assert coarse.teacher.asked[0] == "a bird"


def test_divergence_is_zero_only_where_logits_agree():
    logits = torch.randn(5, 8).double()
    assert text_divergence(logits, logits).item() == pytest.approx(0, abs=1e-15)
    assert text_divergence(logits, logits + 3.0).item() == pytest.approx(0, abs=1e-15)
    assert text_divergence(logits, logits.roll(1, 1)) > 0.01


def test_weight_on_the_mean_over_texts_is_the_released_one():
    """1.2 on the mean over photos and 8 texts is 0.15 on the mean over photos."""
    teacher, student = torch.randn(6, 8).double(), torch.randn(6, 8).double()
    released = torch.nn.functional.kl_div(
        student.log_softmax(1), teacher.softmax(1), reduction="batchmean"
    )
    assert (1.2 * text_divergence(teacher, student)).item() == pytest.approx(0.15 * released.item())


def test_teacher_gets_no_gradient_and_the_feature_does():
    module = part()
    pooled = torch.randn(4, 5).double().requires_grad_()
    images = torch.rand(4, 3, 6, 6).double().requires_grad_()
    module(pooled, images, torch.arange(4)).backward()
    assert pooled.grad.abs().max() > 0
    assert images.grad is None


def test_nothing_of_the_teacher_is_kept():
    kept = {"bank.rows", "bank.vectors", "project.bias", "project.weight"}
    assert set(part().state_dict()) == kept
    assert set(part(teacher_views="photo").state_dict()) == kept


def test_photos_are_remembered_by_row():
    module = part(teacher_views="photo")
    rows = torch.tensor([5, 2, 9])
    images = torch.rand(1, 3, 4, 4).double()
    # Before the first epoch, as when a step is timed, there are only the crops.
    assert torch.equal(module.told(images, rows[:1]), module.teacher.encode_images(images))
    embedded = torch.eye(3).double()
    module.remember(rows, embedded)
    told = module.told(torch.rand(2, 3, 4, 4).double(), torch.tensor([9, 5]))
    assert torch.equal(told, embedded[[2, 0]])
    assert module.bank.rows.tolist() == [2, 5, 9]


def test_off_without_a_teacher_and_says_how_to_get_one():
    config = TextConfig()
    assert not config.distils
    assert "AIS IS OFF" in config.why_off
    assert "hf download" in config.why_off
    assert TextConfig(ais=False, teacher="fieldmark:x").distils is False
    assert settings().distils
    assert settings().why_off == ""


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"ais": True, "teacher": None}, "needs a text-image teacher.*hf download"),
        ({"texts": None}, r"method.texts is required.*\(.*birds.*cars"),
        ({"texts": "brids"}, "did you mean 'birds'"),
    ],
)
def test_what_is_missing_is_named(changes, text):
    with pytest.raises(ConfigError, match=text):
        settings(**changes)


def test_cosines_are_not_rounded_to_half_precision():
    module = part().float()
    pooled, images = torch.randn(4, 5), torch.rand(4, 3, 6, 6)
    exact = module(pooled, images, torch.arange(4))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(module(pooled, images, torch.arange(4)), exact)
