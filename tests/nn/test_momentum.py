import pytest
import torch
from torch import nn

from fieldmark.nn.momentum import follow, frozen_copy


def filled(value):
    layer = nn.Linear(2, 2)
    for parameter in layer.parameters():
        nn.init.constant_(parameter, value)
    return layer


def test_closed_form():
    """From 0 towards 1: 1 - m^n after n steps."""
    teacher, student = frozen_copy(filled(0.0)), filled(1.0)
    for _ in range(5):
        follow(teacher, student, 0.9)
    assert torch.allclose(teacher.weight, torch.full((2, 2), 1 - 0.9**5), atol=1e-6)
    assert student.weight.eq(1).all()


@pytest.mark.parametrize(("momentum", "expected"), [(1.0, 0.0), (0.0, 1.0)])
def test_ends_of_the_range(momentum, expected):
    teacher, student = frozen_copy(filled(0.0)), filled(1.0)
    follow(teacher, student, momentum)
    assert teacher.weight.eq(expected).all()


def test_a_copy_has_its_own_frozen_weights():
    student = filled(1.0)
    teacher = frozen_copy(student)
    assert not any(p.requires_grad for p in teacher.parameters())
    assert all(p.requires_grad for p in student.parameters())
    with torch.no_grad():
        student.weight.zero_()
    assert teacher.weight.eq(1).all()


def test_statistics_are_the_teachers_own():
    student = nn.BatchNorm1d(2)
    teacher = frozen_copy(student)
    student(torch.randn(8, 2) + 5)
    follow(teacher, student, 0.5)
    assert teacher.running_mean.eq(0).all()


def test_what_does_not_train_is_left_alone():
    student = filled(1.0)
    teacher = frozen_copy(student)
    student.bias.requires_grad_(False)
    with torch.no_grad():
        teacher.bias.fill_(3.0)
    follow(teacher, student, 0.5)
    assert teacher.bias.eq(3).all()


@pytest.mark.parametrize("momentum", [-0.1, 1.1])
def test_momentum_is_a_share(momentum):
    with pytest.raises(ValueError, match=r"in \[0, 1\]"):
        follow(filled(0.0), filled(1.0), momentum)
