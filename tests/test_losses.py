# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""The loss of a classifier and the weights of its classes, worked out by hand."""

import math

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from transformers.modeling_outputs import ImageClassifierOutput

from modeling_vit_scratch.training.classification import kept_of
from modeling_vit_scratch.training.losses import ClassificationLoss, class_weights

# Probabilities 1/8, 2/8 and 5/8, and what each costs where it is the target.
LOGITS = [0.0, math.log(2), math.log(5)]
COSTS = [math.log(8), math.log(4), math.log(8 / 5)]
WEIGHTS = [2.0, 1.0, 0.5]


def loss(labels, *, num_items=None, smoothing=0.0, weights=None, dtype=torch.float32) -> float:
    """The loss of images that all have the logits above."""
    logits = torch.tensor([LOGITS] * len(labels), dtype=dtype)
    criterion = ClassificationLoss(smoothing, None if weights is None else torch.tensor(weights))
    result = criterion(ImageClassifierOutput(logits=logits), torch.tensor(labels), num_items)
    assert (result.shape, result.dtype) == ((), torch.float32)
    return result.item()


# --- The loss --------------------------------------------------------------------------------------------------------


def test_it_is_the_mean_cross_entropy_of_the_images():
    assert loss([2, 0]) == pytest.approx((COSTS[2] + COSTS[0]) / 2)


def test_in_training_it_is_a_share_of_that_of_the_whole_step():
    for images in (10, torch.tensor(10)):
        assert loss([2, 0], num_items=images) == pytest.approx((COSTS[2] + COSTS[0]) / 10)
    # So processes, or batches whose gradients are accumulated, together have the loss of one batch.
    parts = loss([2, 0], num_items=5) + loss([1], num_items=5) + loss([1, 1], num_items=5)
    assert parts == pytest.approx(loss([2, 0, 1, 1, 1]))


def test_a_label_may_be_shares_of_the_classes():
    assert loss([[0.25, 0.0, 0.75]]) == pytest.approx(0.25 * COSTS[0] + 0.75 * COSTS[2])
    shares = [[0.0, 1.0, 0.0], [0.5, 0.25, 0.25]]
    expected = COSTS[1] + 0.5 * COSTS[0] + 0.25 * COSTS[1] + 0.25 * COSTS[2]
    assert loss(shares) == pytest.approx(expected / 2)
    assert loss(shares, num_items=8) == pytest.approx(expected / 8)


def test_smoothing_spreads_a_share_of_the_target_over_all_classes():
    # Of 0.3, each of the three classes gets 0.1.
    assert loss([2], smoothing=0.3) == pytest.approx(0.1 * COSTS[0] + 0.1 * COSTS[1] + 0.8 * COSTS[2])
    shares = [[0.25, 0.0, 0.75]]  # 0.7 times that, and 0.1
    assert loss(shares, smoothing=0.3) == pytest.approx(0.275 * COSTS[0] + 0.1 * COSTS[1] + 0.625 * COSTS[2])


def test_an_image_counts_as_much_as_its_class_weighs():
    # Not as in torch's own mean, which the weights would leave again: the images of a step are all that divides.
    assert loss([2, 0], weights=WEIGHTS) == pytest.approx((0.5 * COSTS[2] + 2 * COSTS[0]) / 2)
    assert loss([2, 2], weights=WEIGHTS) == pytest.approx(0.5 * COSTS[2])
    assert loss([2, 0], weights=WEIGHTS, num_items=10) == pytest.approx((0.5 * COSTS[2] + 2 * COSTS[0]) / 10)
    mixed = (0.25 * 2 + 0.75 * 0.5) * (0.25 * COSTS[0] + 0.75 * COSTS[2])
    assert loss([[0.25, 0.0, 0.75]], weights=WEIGHTS) == pytest.approx(mixed)


def test_smoothing_leaves_the_weight_of_an_image_as_it_is():
    # Torch's own weights would count each part of the target by its class: 0.1 * 2 * COSTS[0] and so on.
    smoothed = 0.1 * COSTS[0] + 0.1 * COSTS[1] + 0.8 * COSTS[2]
    assert loss([2], smoothing=0.3, weights=WEIGHTS) == pytest.approx(0.5 * smoothed)
    shares = [[0.25, 0.0, 0.75]]
    smoothed = 0.275 * COSTS[0] + 0.1 * COSTS[1] + 0.625 * COSTS[2]
    assert loss(shares, smoothing=0.3, weights=WEIGHTS) == pytest.approx((0.25 * 2 + 0.75 * 0.5) * smoothed)


@pytest.mark.parametrize("mixed", [False, True], ids=["labels", "shares"])
def test_a_common_class_is_still_learned_where_a_rare_one_weighs_far_more(mixed):
    # 400 dark and 16 light images that one number tells apart: the odds are 25, and the smoothing leaves 19.
    labels = torch.tensor([0] * 400 + [1] * 16)
    brightness = 2.0 * labels - 1
    criterion = ClassificationLoss(0.1, class_weights("auto", ["dark", "light"], labels.numpy()))
    targets = torch.nn.functional.one_hot(labels).float() if mixed else labels
    slope, bias = (torch.zeros(2, requires_grad=True) for _ in range(2))
    optimizer = torch.optim.LBFGS([slope, bias], line_search_fn="strong_wolfe")

    def measure():
        optimizer.zero_grad()
        value = criterion({"logits": brightness[:, None] * slope + bias}, targets)
        value.backward()
        return value

    for _ in range(5):
        optimizer.step(measure)
    logits = (brightness[:, None] * slope + bias).detach()
    assert (logits.argmax(dim=1) == labels).all()
    # At its best each image has the probability that smoothing asks for, whatever it weighs.
    assert logits.softmax(dim=1).gather(1, labels[:, None]).flatten().tolist() == pytest.approx([0.95] * 416, abs=1e-3)


@pytest.mark.parametrize("options", [{}, {"smoothing": 0.1}, {"weights": WEIGHTS}, {"smoothing": 0.1, "num_items": 7}])
def test_a_label_is_the_share_1_of_its_class(options):
    assert loss([2, 0], **options) == pytest.approx(loss([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]], **options))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_it_is_computed_in_single_precision(dtype):
    assert loss([2, 0], dtype=dtype) == pytest.approx(loss([2, 0]), abs=0.01)
    images = torch.zeros(70_000, 2, dtype=dtype)  # float16 ends at 65,504
    total = ClassificationLoss()({"logits": images}, torch.zeros(70_000, dtype=torch.int64), 1)
    assert total.item() == pytest.approx(70_000 * math.log(2), rel=1e-3)


def test_the_logits_learn():
    logits = torch.tensor([LOGITS], requires_grad=True)
    ClassificationLoss()({"logits": logits}, torch.tensor([2])).backward()
    torch.testing.assert_close(logits.grad, torch.tensor([[1 / 8, 2 / 8, 5 / 8 - 1]]))


@pytest.mark.parametrize("settings", [(0.0, None), (0.1, None), (0.1, [0.5, 2.0, 1.0])], ids=str)
def test_validation_keeps_four_numbers_of_an_image_whose_mean_loss_is_that_of_all(settings):
    smoothing, weights = settings
    criterion = ClassificationLoss(smoothing, None if weights is None else torch.tensor(weights))
    logits, labels = torch.randn(11, 3, generator=torch.Generator().manual_seed(0)), torch.arange(11) % 3
    kept = kept_of(logits, labels, loss=criterion, num_labels=3)
    assert [column.shape for column in kept] == [(11,)] * 4
    torch.testing.assert_close(kept[-1].mean(), criterion({"logits": logits}, labels))
    one = criterion({"logits": logits[4:5]}, labels[4:5])
    torch.testing.assert_close(kept[-1][4], one)


# --- Weights of the classes ------------------------------------------------------------------------------------------

NAMES = ["cat", "dog", "hot dog"]


def test_auto_lets_each_class_count_alike_and_the_average_image_1():
    labels = np.array([0, 0, 0, 0, 0, 0, 1, 1, 1, 2])
    weights = class_weights("auto", NAMES, labels)
    torch.testing.assert_close(weights, torch.tensor([10 / 18, 10 / 9, 10 / 3]))
    torch.testing.assert_close(weights * torch.tensor([6, 3, 1]), torch.full((3,), 10 / 3))
    assert weights[labels].mean().item() == pytest.approx(1)


def test_auto_is_what_scikit_learn_calls_balanced():
    labels = np.random.default_rng(0).choice(5, size=200, p=[0.5, 0.25, 0.125, 0.1, 0.025])
    expected = compute_class_weight("balanced", classes=np.arange(5), y=labels)
    weights = class_weights("auto", list("abcde"), labels)
    torch.testing.assert_close(weights, torch.from_numpy(expected).float())


def test_images_of_one_number_in_each_class_are_not_weighted():
    assert class_weights("auto", NAMES, np.array([2, 1, 0, 0, 1, 2])).tolist() == [1, 1, 1]


def test_a_class_without_images_weighs_what_the_average_image_does():
    # A rare class may be in the validation split alone. The others are weighted as if it were not there.
    for labels, expected in (([0, 0, 0, 2], [4 / 6, 1, 4 / 2]), ([0, 0, 0, 1], [4 / 6, 4 / 2, 1])):
        weights = class_weights("auto", NAMES, np.array(labels))
        torch.testing.assert_close(weights, torch.tensor(expected))
        assert weights[np.array(labels)].mean().item() == pytest.approx(1)


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("cat=2,dog=0.5,hot dog=3", [2, 0.5, 3]),
        ("hot dog=3,cat=2", [2, 1, 3]),  # who is not named weighs 1
        (" cat = 2 , hot dog= 1e1 ", [2, 1, 10]),
        ("cat=0", [0, 1, 1]),
    ],
)
def test_weights_can_be_given_by_name(setting, expected):
    weights = class_weights(setting, NAMES, np.array([0, 1, 2]))
    assert weights.tolist() == expected
    assert weights.dtype == torch.float32


def test_the_name_of_a_class_may_have_an_equals_sign():
    assert class_weights("a=b=2", ["a", "a=b"], np.array([0, 1])).tolist() == [1, 2]


@pytest.mark.parametrize(
    "setting", ['"dog, small"=2,cat=3', 'cat=3, "dog, small"=2', '{"dog, small": 2, "cat": 3}'], ids=str
)
def test_a_class_with_a_comma_is_named_as_in_csv_or_json(setting):
    assert class_weights(setting, ["cat", "dog, small"], np.array([0, 1])).tolist() == [3, 2]


UNKNOWN = r"class_weights must be 'auto' or class=weight,…, with classes of the data \(cat, dog, hot dog\); got "


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("bird=2", rf"{UNKNOWN}'bird=2'\."),
        ("cat=1,Dog=2", rf"{UNKNOWN}'Dog=2'\."),
        ("balanced", rf"{UNKNOWN}'balanced'\."),
        ("cat", rf"{UNKNOWN}'cat'\."),
        ("2", rf"{UNKNOWN}'2'\."),
        ("cat=1,", rf"{UNKNOWN}''\."),
        ("", rf"{UNKNOWN}''\."),
        ("cat=heavy", r"class_weights has no number for 'cat': 'heavy'\."),
        ("cat=1,cat=2", r"class_weights has two weights for 'cat': keep one of them\."),
        ('{"cat": 1, "cat": 2}', r"class_weights has two weights for 'cat': keep one of them\."),
        ('{"cat": true}', r"class_weights has no number for 'cat': True\."),
        ('{"cat": null}', r"class_weights has no number for 'cat': None\."),
        ('{"wolf": 1}', UNKNOWN + r"'wolf'\."),
        ("cat=1\ndog=2", UNKNOWN + r"'cat=1\\ndog=2'\."),
        ('"cat=1', UNKNOWN + r"""'"cat=1'\."""),
        ("cat=", r"class_weights has no number for 'cat': ''\."),
        ("cat=-1", r"class_weights must be 0 or more, and not all 0, got 'cat=-1'\."),
        ("cat=nan", r"class_weights must be 0 or more, and not all 0, got 'cat=nan'\."),
        ("cat=inf", r"class_weights must be 0 or more, and not all 0, got 'cat=inf'\."),
        ("cat=0,dog=0,hot dog=0", r"class_weights must be 0 or more, and not all 0, got 'cat=0,dog=0,hot dog=0'\."),
    ],
)
def test_names_and_weights_that_will_not_do_are_refused_in_one_sentence(setting, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        class_weights(setting, NAMES, np.array([0, 1, 2]))
