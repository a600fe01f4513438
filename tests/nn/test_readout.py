import pytest
import torch

from fieldmark.errors import InputError
from fieldmark.nn.readout import Readout, gem
from fieldmark.types import Features


def features(cls=True):
    generator = torch.Generator().manual_seed(0)
    tokens = torch.rand(2, 6, 4, generator=generator)
    stage = torch.rand(2, 3, 5, 5, generator=generator)
    return Features(
        torch.rand(2, 4, generator=generator),
        tokens,
        (2, 3),
        torch.rand(2, 4, generator=generator) if cls else None,
        (stage,),
    )


def test_pooling_against_plain_loops():
    given = features()
    mean = torch.stack([sum(photo[t] for t in range(6)) / 6 for photo in given.tokens])
    cubes = torch.stack([sum(photo[t] ** 3 for t in range(6)) / 6 for photo in given.tokens])
    torch.testing.assert_close(Readout("gap")(given), mean)
    torch.testing.assert_close(Readout("gem", gem_power=3.0)(given), cubes ** (1 / 3))
    assert torch.equal(Readout("network")(given), given.pooled)
    assert torch.equal(Readout("cls")(given), given.cls)
    torch.testing.assert_close(Readout("cls+gap")(given), torch.cat([given.cls, mean], 1))


def test_gem_lies_between_mean_and_maximum():
    tokens = features().tokens
    torch.testing.assert_close(gem(tokens, 1.0), tokens.mean(1))
    torch.testing.assert_close(gem(tokens, 50.0), tokens.amax(1), rtol=0.05, atol=0.0)
    assert (gem(tokens, 3.0) >= tokens.mean(1)).all()


def test_stages_are_appended_with_their_weight():
    given = features()
    result = Readout("gap", stages=(-2,), stage_weight=0.4)(given)
    main, stage = result[:, :4], result[:, 4:]
    torch.testing.assert_close(main.norm(dim=1), torch.ones(2))
    torch.testing.assert_close(stage.norm(dim=1), torch.full((2,), 0.4))
    pooled = given.stages[0].mean((2, 3))
    torch.testing.assert_close(stage / 0.4, pooled / pooled.norm(dim=1, keepdim=True))


@pytest.mark.parametrize("pooling", ["cls", "cls+gap"])
def test_a_class_token_that_is_not_there(pooling):
    with pytest.raises(InputError, match="class token"):
        Readout(pooling)(features(cls=False))
