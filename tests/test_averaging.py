# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""The moving average of the weights, worked out by hand."""

import pytest
import torch
from torch import nn

from modeling_vit_scratch.training.averaging import WeightAverage


class Two(nn.Module):
    """A trained weight, a frozen one, and a buffer."""

    def __init__(self, trained: float, frozen: float = 7.0):
        super().__init__()
        self.trained = nn.Parameter(torch.tensor([trained, trained + 100]))
        self.frozen = nn.Parameter(torch.tensor([frozen]), requires_grad=False)
        self.register_buffer("counter", torch.tensor([3.0]))

    def learn(self, value: float) -> None:
        with torch.no_grad():
            self.trained.copy_(torch.tensor([value, value + 100]))


def values(model: Two) -> list[float]:
    return [model.trained[0].item(), model.frozen.item(), model.counter.item()]


def averaged(average: WeightAverage) -> float:
    """The average of the first number; the second is another by 100, and the rest is no part of it."""
    state = average.state_dict()
    assert list(state) == ["trained"]
    assert not state["trained"].requires_grad
    first, second = state["trained"].tolist()
    assert second == pytest.approx(first + 100)
    return first


def test_it_begins_with_the_weights_of_the_start():
    model = Two(5.0)
    average = WeightAverage(model, 0.9)
    model.learn(6.0)
    assert averaged(average) == 5.0


def test_the_decay_grows_from_step_to_step():
    model = Two(11.0)
    average = WeightAverage(model, 0.9)
    model.learn(0.0)
    average.update(1)  # 2/11 of the average stays
    assert averaged(average) == pytest.approx(2.0)
    model.learn(4.0)
    average.update(2)  # 3/12 of it
    assert averaged(average) == pytest.approx(2.0 / 4 + 4.0 * 3 / 4)
    model.learn(9.5)
    average.update(3)  # 4/13 of it
    assert averaged(average) == pytest.approx(3.5 * 4 / 13 + 9.5 * 9 / 13)


@pytest.mark.parametrize(
    ("decay", "steps", "kept"),
    [
        (0.9, 79, 80 / 89),
        (0.9, 80, 0.9),  # 81/90
        (0.9, 81, 0.9),
        (0.9, 100_000, 0.9),
        (0.999, 80, 81 / 90),
        (0.999, 100_000, 0.999),
        (0.125, 1, 0.125),  # less than 2/11
    ],
)
def test_the_decay_ends_at_its_full_value(decay, steps, kept):
    model = Two(1.0)
    average = WeightAverage(model, decay)
    model.learn(0.0)
    with torch.no_grad():
        model.trained[1] = 100
    average.update(steps)
    assert average.state_dict()["trained"].tolist() == pytest.approx([kept, 100 + kept], rel=1e-5)


def test_an_average_of_weights_that_stay_is_these_weights():
    model = Two(0.3)
    average = WeightAverage(model, 0.99)
    for step in range(1, 200):
        average.update(step)
    assert averaged(average) == pytest.approx(0.3)
    assert values(model) == [pytest.approx(0.3), 7.0, 3.0]


def test_the_average_and_the_weights_that_are_trained_change_places():
    model = Two(1.0)
    average = WeightAverage(model, 0.9)
    parameter, place = model.trained, model.trained.data_ptr()
    model.learn(2.0)
    average.swap()
    assert (values(model), averaged(average)) == ([1.0, 7.0, 3.0], 2.0)
    assert model.trained is parameter  # the one that the optimizer and the wrappers of the model know
    assert model.trained.data_ptr() == place
    average.swap()
    assert (values(model), averaged(average)) == ([2.0, 7.0, 3.0], 1.0)


def test_the_average_is_in_place_for_a_while():
    model = Two(1.0)
    average = WeightAverage(model, 0.9)
    model.learn(2.0)
    with average.in_place():
        assert values(model) == [1.0, 7.0, 3.0]
    assert values(model) == [2.0, 7.0, 3.0]
    with pytest.raises(KeyError), average.in_place():
        raise KeyError  # as an evaluation may
    assert (values(model), averaged(average)) == ([2.0, 7.0, 3.0], 1.0)


def test_a_change_of_place_is_exact():
    model = nn.Linear(50, 50)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    average = WeightAverage(model, 0.9)
    with torch.no_grad():
        model.weight.normal_()
    trained = model.weight.clone()
    average.update(5)
    with average.in_place():
        assert not torch.equal(model.weight, trained)
    assert torch.equal(model.weight, trained)
    assert torch.equal(model.bias, before["bias"])


def test_a_state_that_was_saved_goes_on():
    model, other = Two(1.0), Two(50.0)
    average, resumed = WeightAverage(model, 0.9), WeightAverage(other, 0.9)
    model.learn(2.0)
    average.update(1)
    resumed.load_state_dict(average.state_dict())
    assert averaged(resumed) == averaged(average) == pytest.approx(1.0 * 2 / 11 + 2.0 * 9 / 11)
    assert values(other) == [50.0, 7.0, 3.0]
    other.learn(3.0)
    resumed.update(2)
    assert averaged(resumed) == pytest.approx(averaged(average) / 4 + 3.0 * 3 / 4)  # a copy of its own


def test_a_run_that_is_resumed_has_both_in_their_places():
    # A checkpoint's model is the average, and the trained weights lie beside it.
    model = Two(1.0)
    average = WeightAverage(model, 0.9)
    model.learn(2.0)
    with average.in_place():
        saved_model, beside = model.trained.detach().clone(), average.state_dict()["trained"].clone()
    resumed_model = Two(0.0)
    with torch.no_grad():
        resumed_model.trained.copy_(saved_model)
    resumed = WeightAverage(resumed_model, 0.9)
    resumed.load_state_dict({"trained": beside})
    resumed.swap()
    assert (values(resumed_model)[0], averaged(resumed)) == (2.0, 1.0)
