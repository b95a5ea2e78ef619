# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""What ends a run before its time: signals, raised for real, and losses that are no numbers, in one process and two."""

import signal
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from runs import FORKS
from torch import multiprocessing

from modeling_vit_scratch.system import interruption
from modeling_vit_scratch.system.interruption import SAME_SIGNAL, STOPPING_SIGNALS, Interrupted, StopSignal, Vote

# --- Signals ---------------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def handlers():
    """The handlers of this process, which every test must leave as they were."""
    before = {number: signal.getsignal(number) for number in STOPPING_SIGNALS}
    yield before
    after = {number: signal.getsignal(number) for number in STOPPING_SIGNALS}
    for number, handler in before.items():
        signal.signal(number, handler)
    assert after == before


@pytest.fixture
def now(monkeypatch):
    """The time in seconds, `now[0]`, which the test sets."""
    now = [1000.0]
    monkeypatch.setattr(interruption, "time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


def interrupts(number: int) -> bool:
    """Raise a signal; whether it interrupts this process."""
    try:
        signal.raise_signal(number)
    except KeyboardInterrupt:
        return True
    return False


@pytest.mark.parametrize("number", STOPPING_SIGNALS)
def test_a_signal_is_noted_instead_of_ending_the_process(number):
    stop = StopSignal()
    with stop.listening() as listening:
        assert listening is stop
        assert stop.received is None
        assert not interrupts(number)
        assert stop.received == number
    assert stop.received == number  # for those who ask later


def test_afterwards_signals_mean_what_they_did(handlers):
    with StopSignal().listening():
        assert {signal.getsignal(number) for number in STOPPING_SIGNALS}.isdisjoint(handlers.values())
    assert {number: signal.getsignal(number) for number in STOPPING_SIGNALS} == handlers


def test_afterwards_signals_mean_what_they_did_even_after_an_error(handlers):
    with pytest.raises(ValueError, match="no number"), StopSignal().listening():
        raise ValueError("the loss is no number")
    assert {number: signal.getsignal(number) for number in STOPPING_SIGNALS} == handlers


def test_a_handler_of_someone_else_comes_back_in_its_place(handlers):
    heard = []
    signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
    try:
        with StopSignal().listening():
            signal.raise_signal(signal.SIGTERM)
        assert heard == []
        signal.raise_signal(signal.SIGTERM)
        assert heard == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, handlers[signal.SIGTERM])


@pytest.mark.parametrize("later", [0.0, 0.5, SAME_SIGNAL])
def test_ctrl_c_that_arrives_twice_at_once_is_one(now, later):
    # The terminal sends it to all processes, and a launcher passes it on to its own.
    with StopSignal().listening() as stop:
        assert not interrupts(signal.SIGINT)
        now[0] += later
        assert not interrupts(signal.SIGINT)
        assert stop.received == signal.SIGINT


@pytest.mark.parametrize("first", STOPPING_SIGNALS)
def test_ctrl_c_for_the_second_time_ends_the_process_at_once(now, first):
    with StopSignal().listening() as stop:
        assert not interrupts(first)
        now[0] += SAME_SIGNAL / 2
        assert not interrupts(signal.SIGINT)  # the same one
        now[0] += SAME_SIGNAL / 2 + 0.01
        assert interrupts(signal.SIGINT)
        assert stop.received == first


@pytest.mark.parametrize("first", STOPPING_SIGNALS)
def test_a_scheduler_that_asks_again_gets_no_other_answer(now, first):
    with StopSignal().listening() as stop:
        assert not interrupts(first)
        now[0] += 60
        assert not interrupts(signal.SIGTERM)
        assert stop.received == first


def test_an_interruption_is_a_keyboard_interrupt_that_knows_its_signal():
    # So that no `except Exception` on the way takes it for an error.
    interrupt = Interrupted(signal.SIGTERM, "stopped at step 3 with a checkpoint.")
    assert isinstance(interrupt, KeyboardInterrupt)
    assert not isinstance(interrupt, Exception)
    assert (interrupt.signal, str(interrupt)) == (15, "stopped at step 3 with a checkpoint.")
    assert str(Interrupted(signal.SIGINT)) == ""


# --- Votes -----------------------------------------------------------------------------------------------------------

FINE, NAN = torch.tensor(0.5), torch.tensor(float("nan"))


def vote(loss: torch.Tensor, stop: int | None = None) -> tuple[bool, bool]:
    ballot = Vote()
    ballot.cast(1, loss, stop)
    return ballot.result()


@pytest.mark.parametrize(
    ("loss", "failed"),
    [
        (0.0, False),
        (-3.4e38, False),
        (float("nan"), True),
        (float("inf"), True),
        (float("-inf"), True),
        ([0.5, 0.25], False),
        ([0.5, float("nan")], True),
    ],
)
def test_a_loss_that_is_no_number_is_a_failure(loss, failed):
    assert vote(torch.tensor(loss)) == (failed, False)
    assert vote(torch.tensor(loss), stop=signal.SIGTERM) == (failed, True)


def test_before_the_first_vote_nothing_is_wrong():
    assert Vote().result() == (False, False)
    assert Vote().step == 0


def test_the_last_vote_counts_and_may_be_asked_for_twice():
    ballot = Vote()
    ballot.cast(3, NAN, signal.SIGINT)
    assert (ballot.step, ballot.result(), ballot.result()) == (3, (True, True), (True, True))
    ballot.cast(4, FINE, None)
    assert (ballot.step, ballot.result(), ballot.result()) == (4, (False, False), (False, False))


def test_a_vote_does_not_hold_the_graph_of_the_loss():
    ballot = Vote()
    ballot.cast(1, torch.tensor(0.5, requires_grad=True) * 2, None)
    assert not ballot.pending[0].requires_grad


# What the first process casts, the second casts, and both must hear.
VOTES = [
    ((FINE, None), (FINE, None), (False, False)),
    ((NAN, None), (FINE, None), (True, False)),
    ((FINE, None), (NAN, None), (True, False)),
    ((FINE, signal.SIGTERM), (FINE, None), (False, True)),
    ((FINE, None), (FINE, signal.SIGINT), (False, True)),
    ((FINE, signal.SIGINT), (FINE, signal.SIGTERM), (False, True)),
    ((NAN, None), (FINE, signal.SIGTERM), (True, True)),
    ((FINE, None), (FINE, None), (False, False)),
]


def _vote_together(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/group", rank=rank, world_size=2)
    try:
        ballot = Vote()
        for step, (*casts, expected) in enumerate(VOTES):
            ballot.cast(step, *casts[rank])
            assert ballot.result() == ballot.result() == expected, (step, rank)
        # The usual way: each vote is asked for a step later, and some are not asked for at all.
        for *casts, _ in VOTES:
            ballot.cast(0, *casts[rank])
        assert ballot.result() == VOTES[-1][2]
        Path(folder, str(rank)).touch()
    finally:
        dist.destroy_process_group()


@pytest.mark.skipif(not dist.is_gloo_available(), reason="needs torch.distributed with gloo")
def test_processes_agree_on_what_any_of_them_says(tmp_path):
    method = FORKS.get_start_method()
    multiprocessing.start_processes(_vote_together, (str(tmp_path),), nprocs=2, start_method=method)
    assert {path.name for path in tmp_path.iterdir()} >= {"0", "1"}
