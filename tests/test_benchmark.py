"""The benchmark: both sides have the same outputs before they are timed, and what it writes is what it printed."""

import json
import re
import shutil
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from runs import Run

import benchmark
import busy
import data_loading
import mixed_sizes
import peers
import timing
from modeling_vit_scratch.presets import preset_path

ROOT = Path(__file__).parent.parent


def run(folder, *flags, before=""):
    """Run the script on a preset of which three blocks are left."""
    preset = shutil.copytree(preset_path("vit-micro-patch4-32"), folder / "preset")
    config = json.loads((preset / "config.json").read_text())
    (preset / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    small = "from pathlib import Path; from modeling_vit_scratch import presets\n"
    small += f"presets._presets = lambda: {{'vit-micro-patch4-32': Path({str(preset)!r})}}\n" + before
    flags = ("--models", "vit-micro-patch4-32", "--rounds", "2", "--output", folder / "speed", *flags)
    return Run(flags, folder, before=small, script=ROOT / "scripts/benchmark.py").end()


def test_it_writes_a_table_json_and_a_picture(tmp_path):
    result = run(tmp_path, "--batch-sizes", "2", "--peers", "transformers", "torch")
    assert result.status == 0, result.err
    written = json.loads((tmp_path / "speed.json").read_text())
    assert written["machine"]["rounds"] == 2
    assert [(row["mode"], row["peer"], row["batch"]) for row in written["rows"]] == [
        ("inference", "transformers", 2),
        ("inference", "torch", 2),
        ("train-step", "transformers", 2),
        ("train-step", "torch", 2),
    ]
    for row in written["rows"]:
        low, high = row["ratio_range"]
        assert low <= row["ratio"] <= high
        assert benchmark.table_row(row) in result.out
    training = written["rows"][2]["peak_memory"]
    assert training["ours, checkpointed"] < training["ours"]
    with Image.open(tmp_path / "speed.png") as picture:
        assert picture.width > 500


def test_merging_and_int8_are_timed_beside_a_peer_that_cannot(tmp_path):
    flags = ("--batch-sizes", "1", "--peers", "torch", "--modes", "inference", "--token-merging", "5", "--int8")
    result = run(tmp_path, *flags)
    assert result.status == 0, result.err
    assert "merging 5 int8" in result.out


def test_mixed_sizes_and_loading_have_tables_too(tmp_path):
    flags = ("--batch-sizes", "3", "--modes", "mixed-sizes", "data-loading")
    result = run(tmp_path, *flags)
    assert result.status == 0, result.err
    rows = json.loads((tmp_path / "speed.json").read_text())["rows"]
    sizes, loading = rows[:4], rows[4:]
    assert [(row["smallest"], row["peer"]) for row in sizes] == [
        (0.5, "padding all"),
        (0.5, "resizing all"),
        (0.9, "padding all"),
        (0.9, "resizing all"),
    ]
    assert [(row["purpose"], row["peer"]) for row in loading[:1]] == [("evaluation", "transformers")]
    for row in rows:
        table = mixed_sizes if row in sizes else data_loading
        assert table.table_row(row) in result.out


def test_other_programs_compete_with_the_steps_of_the_busy_mode(tmp_path):
    small = "import sys; sys.path.append('scripts'); import busy; busy.START, busy.SECONDS = 'fork', 0.01"
    result = run(tmp_path, "--batch-sizes", "2", "--modes", "busy", before=small)
    assert result.status == 0, result.err
    rows = json.loads((tmp_path / "speed.json").read_text())["rows"]
    sides = ["ours", "spinning", "one thread"]
    assert [(row["busy"], row["side"]) for row in rows] == [(busy, side) for busy in (False, True) for side in sides]
    assert rows[1]["ratio_range"] == [1, 1]
    for row in rows:
        assert row["processor_seconds"] > 0
        assert busy.table_row(row) in result.out


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ("--int8 --modes train-step", "--int8 is for --modes inference on the CPU"),
        ("--int8 --modes inference --bf16", "--int8 is for --modes inference on the CPU, by itself"),
        ("--modes time-to-accuracy", "--modes time-to-accuracy wants --data"),
        ("--modes mixed-sizes --bf16", "--bf16 is for the modes inference and train-step"),
        ("--modes data-loading inference --token-merging 3", "--token-merging is for the modes inference and train"),
        ("--modes inference --patch-dropout 0.5", "--patch-dropout is for --modes train-step"),
        ("--modes startup --output speed", "--output is for the modes inference"),
        ("--output /no/such/folder/speed", "there is no folder /no/such/folder"),
        ("--rounds 0", "--rounds: must be a whole number from 1 on, got '0'"),
        ("--token-merging -1", "expected one argument|must be a whole number from 0 on"),
        ("--patch-dropout 1", "--patch-dropout: must be at least 0 and below 1, got '1'"),
        ("--models vit-huge", "invalid choice: 'vit-huge'"),
        pytest.param(
            "--device cuda",
            "torch finds no GPU",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="is about machines without a GPU"),
        ),
    ],
)
def test_flags_that_cannot_be_followed_are_refused_at_once(flags, sentence, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["benchmark.py", *flags.split()])
    with pytest.raises(SystemExit) as stop:
        benchmark.main()
    assert stop.value.code == 2
    assert re.search(sentence, capsys.readouterr().err)


@pytest.mark.parametrize("peer", ["transformers", "torch"])
def test_a_pair_has_the_same_outputs_and_gradients(peer):
    ours, theirs = peers.build_pair(peer, "vit-micro-patch4-32")
    images, labels = torch.randn(3, 3, 32, 32), torch.tensor([0, 1, 2])
    for step in benchmark.STEPS.values():
        results = [step(model.eval(), images, labels) for model in (peers.Logits(ours), theirs)]
        torch.testing.assert_close(*results, rtol=1e-4, atol=1e-5)
        assert results[0].abs().max() > 1e-3


def test_the_peak_is_the_most_that_lives_at_once():
    def step():
        for _ in range(3):
            torch.ones(1000, 100)  # 400 kB each, one after the other
        return torch.ones(1000, 100), torch.ones(1000, 50)

    assert timing.peak_memory(step, "cpu") == 600_000
