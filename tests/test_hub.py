# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""What is published on the Hub, by all ways the same, and that it comes back; over real HTTP, to a Hub of the tests."""

import hashlib
import json
import math
import os
import re
import shutil
import signal
from pathlib import Path

import pytest
import torch
from forks import python
from huggingface_hub import HfApi, ModelCard
from pictures import noise
from runs import CODE, SMALL, TERMS, Run, classes_of_pictures, licensed, refused, vit_scratch
from safetensors.torch import save
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModelForImageClassification,
    AutoModelForMaskedImageModeling,
    Trainer,
    TrainingArguments,
)

from modeling_vit_scratch import ViTScratchConfig
from modeling_vit_scratch.hub import fetching as hub_of_the_package
from modeling_vit_scratch.hub.checkpoint import load_checkpoint
from modeling_vit_scratch.model.publishing_vit_scratch import card_for_the_hub
from modeling_vit_scratch.presets import preset_path

# The client hands files to its HTTP library in a way that this one calls old.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

PUBLISHED = {
    *("config.json", "model.safetensors", "preprocessor_config.json", *CODE),
    *("README.md", "all_results.json", "recipe.yaml"),
}
PICTURES = {"sample.png", "training.png"}
AUTO_CLASSES = {
    "AutoBackbone",
    "AutoConfig",
    "AutoModel",
    "AutoModelForImageClassification",
    "AutoModelForMaskedImageModeling",
}


@pytest.fixture
def hub(open_hub):
    return open_hub(large=10_000_000)


@pytest.fixture
def ada(hub, monkeypatch) -> str:
    """A user who is logged in."""
    token = hub.token("ada")
    monkeypatch.setenv("HF_TOKEN", token)
    return token


@pytest.fixture(scope="module")
def run_with_a_place(tmp_path_factory) -> Path:
    """A run on images in a folder of this machine, with checkpoints, logs and all."""
    place = tmp_path_factory.mktemp("secret")
    data = classes_of_pictures(place / "pets")
    flags = ["--train_val_split=0.25", "--num_train_epochs=2", "--report_to=tensorboard", f"--data={data}"]
    result = vit_scratch("train", "digits", *SMALL, *flags, f"--output_dir={place / 'pet classifier'}")
    assert result.status == 0, result.err
    return place / "pet classifier"


@pytest.fixture
def copy(digits_run, tmp_path) -> Path:
    """A finished run that a test may change."""
    return shutil.copytree(digits_run[0], tmp_path / "copy", ignore=shutil.ignore_patterns("checkpoint-*"))


def published(hub, name: str, revision: str = "main") -> dict[str, bytes]:
    files = hub.files(name, revision)
    del files[".gitattributes"]  # the Hub's own
    return files


# What is published


def test_a_repository_is_complete_and_tells_nothing_of_the_machine(hub, ada, run_with_a_place):
    there = {path.name for path in run_with_a_place.iterdir()}
    assert {"checkpoint-2", "runs", "trainer_state.json"} <= there  # or this would prove nothing
    result = vit_scratch("push", run_with_a_place, "pets")
    assert result.status == 0, result.err
    files = published(hub, "ada/pets")
    assert files.keys() == PUBLISHED
    for name in PUBLISHED - {"README.md", "recipe.yaml"}:
        assert files[name] == (run_with_a_place / name).read_bytes()
    config = json.loads(files["config.json"])
    assert config["auto_map"].keys() == AUTO_CLASSES
    assert config["id2label"] == {"0": "cat", "1": "dog", "2": "hot dog"}
    for name, content in files.items():
        assert ada.encode() not in content, name
        assert str(run_with_a_place.parent).encode() not in content, name
        assert str(Path.home()).encode() not in content or Path.home() == Path("/"), name
    assert b"data: pets\n" in files["recipe.yaml"]
    assert str(run_with_a_place.parent) in (run_with_a_place / "recipe.yaml").read_text()  # where it is of use


def test_what_is_printed_names_the_place_and_the_use(hub, ada, digits_run):
    result = vit_scratch("push", digits_run[0], "pets")
    published, use = result.lines
    assert re.fullmatch(rf"published  {hub.url}/ada/pets, commit \w{{7}}: 16 files, \d+\.\d MB", published)
    assert use == "use        vit-scratch predict ada/pets IMAGES"


def test_from_python_the_same_is_published(hub, ada, digits_run):
    assert vit_scratch("push", digits_run[0], "ada/by-command").status == 0
    model = AutoModelForImageClassification.from_pretrained(digits_run[0])
    commit = model.push_to_hub("by-python", commit_message="My words", private=True)
    assert commit.oid == HfApi(token=ada).model_info("ada/by-python").sha
    assert hub.titles("ada/by-python")[0] == "My words"
    assert hub.repositories["model", "ada/by-python"].private
    mine, theirs = published(hub, "ada/by-python"), published(hub, "ada/by-command")
    theirs["README.md"] = theirs["README.md"].replace(b"ada/by-command", b"ada/by-python")
    assert mine == theirs


def test_at_the_end_of_training_the_same_is_published(hub, ada, tmp_path):
    flags = ("--max_steps=2", "--push_to_hub=true", "--hub_model_id=ada/digits", "--hub_private_repo=true")
    result = vit_scratch("train", "digits", *SMALL, *flags, f"--output_dir={tmp_path / 'run'}")
    assert result.status == 0, result.err
    assert "vit-scratch train: left out sample.png and training.png, which show your images; " in result.err
    assert result.lines[-2].startswith(f"published  {hub.url}/ada/digits, commit ")
    first = published(hub, "ada/digits")
    assert first.keys() == PUBLISHED
    assert b"ada/digits" not in first["recipe.yaml"]  # who repeats the run has another account
    assert hub.repositories["model", "ada/digits"].private
    assert vit_scratch("push", tmp_path / "run", "ada/digits").lines[0].startswith("unchanged  ")
    assert published(hub, "ada/digits") == first
    assert len(hub.titles("ada/digits")) == 2


def test_who_may_not_publish_learns_so_before_training(hub, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", hub.token("bob", role="read"))
    flags = ("--max_steps=1", "--push_to_hub=true", "--hub_model_id=ada/digits", f"--output_dir={tmp_path / 'run'}")
    line = refused("train", "digits", *SMALL, *flags)
    assert "ada/digits cannot be published to: the token may not write to ada/digits" in line
    assert not (tmp_path / "run").exists()


def test_a_run_whose_push_fails_is_whole_and_says_how_it_is_pushed_later(hub, ada, tmp_path):
    hub.fail("POST", "/commit/", status=503, times=math.inf)
    flags = ("--max_steps=1", "--push_to_hub=true", "--hub_model_id=digits", f"--output_dir={tmp_path / 'my run'}")
    result = vit_scratch("train", "digits", *SMALL, *flags)
    assert result.status == 2
    command = f"vit-scratch push '{tmp_path / 'my run'}' ada/digits"
    assert result.err.endswith(f"The checkpoint is whole; `{command}` publishes it.\n")
    hub.faults.clear()
    assert vit_scratch("push", tmp_path / "my run", "ada/digits").status == 0


def test_a_trainer_of_transformers_publishes_what_loads(hub, ada, digits_run, tmp_path):
    model = AutoModelForImageClassification.from_pretrained(digits_run[0])
    data = [{"pixel_values": torch.randn(3, 8, 8), "labels": index} for index in range(4)]
    arguments = TrainingArguments(
        str(tmp_path / "theirs"), push_to_hub=True, hub_strategy="end", max_steps=1, report_to="none", use_cpu=True
    )
    processor = AutoImageProcessor.from_pretrained(digits_run[0])
    trainer = Trainer(model, arguments, train_dataset=data, processing_class=processor)
    trainer.train()
    trainer.push_to_hub()
    files = published(hub, "ada/theirs")
    assert {"config.json", "model.safetensors", "preprocessor_config.json", *CODE} <= files.keys()
    assert json.loads(files["config.json"])["auto_map"].keys() == AUTO_CLASSES


def test_other_weights_than_those_that_were_measured_get_a_card_that_claims_nothing(hub, ada, copy):
    model = AutoModelForImageClassification.from_pretrained(licensed(copy))
    with torch.no_grad():
        next(model.classification_head.parameters()).add_(1)
    model.push_to_hub("changed", tags=["mine"])
    files = published(hub, "ada/changed")
    assert files.keys() == PUBLISHED - {"all_results.json", "recipe.yaml"} | {"LICENSE"}
    card = ModelCard(files["README.md"].decode())
    assert card.data.eval_results is None
    assert card.data.license_name == TERMS["license_name"]  # which holds for them, too
    assert card.data.tags == ["vit-scratch", "vision-transformer", "mine"]
    assert "How well it does is not known: its weights are not those of the checkpoint any more" in card.text
    assert "0, 1, 2, 3, 4, 5, 6, 7, 8, 9" in card.text


def test_a_model_made_in_python_is_published_with_what_is_known(hub, ada):
    preset = AutoConfig.from_pretrained(preset_path("digits"))
    alone = ViTScratchConfig(image_size=4, patch_size=2, hidden_size=6, num_heads=2, ff_dim=5, depth=1)
    for config, more in ((preset, {"preprocessor_config.json"}), (alone, set())):
        AutoModelForMaskedImageModeling.from_config(config).push_to_hub("new")
        files = published(hub, "ada/new")
        assert files.keys() == {"README.md", "config.json", "model.safetensors", *CODE, *more}
        assert "nothing says on what it was trained" in files["README.md"].decode()
        assert ("processor = " in files["README.md"].decode()) == bool(more)


def test_a_model_whose_folder_is_gone_is_published_all_the_same(hub, ada, copy):
    model = AutoModelForImageClassification.from_pretrained(copy)
    shutil.rmtree(copy)
    model.push_to_hub("left")
    assert "preprocessor_config.json" not in published(hub, "ada/left")


def test_a_checkpoint_without_a_card_gets_a_plain_one(hub, ada, copy):
    (copy / "README.md").unlink()
    assert vit_scratch("push", copy, "plain").status == 0
    card = ModelCard(published(hub, "ada/plain")["README.md"].decode())
    assert "# plain\n" in card.text
    model = AutoModelForImageClassification.from_pretrained(copy)
    assert f"{model.num_parameters():,} parameters" in card.text
    assert 'from_pretrained("ada/plain", trust_remote_code=True)' in card.text
    assert not (copy / "README.md").exists()


def test_a_checkpoint_in_the_middle_of_training_says_so(hub, ada, digits_run):
    checkpoint = max(digits_run[0].glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    assert vit_scratch("push", checkpoint, "middle").status == 0
    files = published(hub, "ada/middle")
    step = checkpoint.name.split("-")[1]
    assert f"it was saved in the middle of its training, after step {step}" in " ".join(
        files["README.md"].decode().split()
    )
    assert not {"trainer_state.json", "optimizer.pt", "training_args.bin"} & files.keys()


def test_an_adapter_names_no_place_of_this_machine(hub, ada, digits_run, tmp_path):
    data = classes_of_pictures(tmp_path / "pets")
    flags = ("--finetuning=lora", f"--model={digits_run[0]}", f"--data={data}", "--max_steps=1")
    assert vit_scratch("train", "finetune", *flags, f"--output_dir={tmp_path / 'run'}").status == 0
    assert vit_scratch("push", tmp_path / "run", "adapted").status == 0
    files = published(hub, "ada/adapted")
    assert json.loads(files["adapter/adapter_config.json"])["base_model_name_or_path"] is None
    assert "adapter/adapter_model.safetensors" in files
    assert not any(str(digits_run[0].parent).encode() in content for content in files.values())


# Again, and elsewhere


def test_a_second_push_of_the_same_makes_no_commit(hub, ada, digits_run):
    first, second = (vit_scratch("push", digits_run[0], "pets").lines[0] for _ in range(2))
    assert second == first.replace("published", "unchanged")
    assert len(hub.titles("ada/pets")) == 2  # that which the Hub makes itself, and ours
    assert len(hub.asked("PUT", "/lfs/")) == 1  # the weights, once


def test_what_a_checkpoint_does_not_have_any_more_goes_and_what_others_wrote_stays(hub, ada, copy):
    hub.add("ada/pets", {"notes.txt": b"mine", "model-00001-of-00002.safetensors": b"old", "adapter/x.json": b"{}"})
    assert vit_scratch("push", copy, "ada/pets", "--images").status == 0
    files = hub.files("ada/pets")
    assert files["notes.txt"] == b"mine"
    assert not {"model-00001-of-00002.safetensors", "adapter/x.json"} & files.keys()
    (copy / "training.png").unlink()
    assert vit_scratch("push", copy, "ada/pets", "--images").lines[0].startswith("published")
    files = hub.files("ada/pets")
    assert ("training.png" in files, "sample.png" in files) == (False, True)
    assert "training.png" not in files["README.md"].decode()
    assert '"sample.png"' in files["README.md"].decode()


def test_pictures_of_the_data_are_published_only_when_asked_for(hub, ada, digits_run):
    hub.fail("POST", "/repos/create", status=403)
    line, failed, _ = vit_scratch("push", digits_run[0], "pets").err.split("\n")
    assert "is not published" in failed
    assert line == (  # before anything was asked of the Hub
        "vit-scratch push: left out sample.png and training.png, which show your images; "
        f"`vit-scratch push {digits_run[0]} pets --images` publishes them."
    )
    assert vit_scratch("push", digits_run[0], "pets").err.strip() == line
    files = published(hub, "ada/pets")
    assert files.keys() == PUBLISHED
    assert ".png" not in files["README.md"].decode()
    assert 'Image.open("photo.jpg")' in files["README.md"].decode()
    asked = vit_scratch("push", digits_run[0], "pets", "--images")
    assert (asked.status, asked.err) == (0, "")
    files = published(hub, "ada/pets")
    assert files.keys() == PUBLISHED | PICTURES
    assert "(training.png)" in files["README.md"].decode()
    assert 'hf_hub_download("ada/pets", "sample.png")' in files["README.md"].decode()
    assert vit_scratch("push", digits_run[0], "pets").status == 0
    assert published(hub, "ada/pets").keys() == PUBLISHED  # and what was shown goes


def test_a_model_in_python_publishes_pictures_only_when_asked_for(hub, ada, digits_run):
    model = AutoModelForImageClassification.from_pretrained(digits_run[0])
    model.push_to_hub("pets", images=True)
    assert published(hub, "ada/pets").keys() == PUBLISHED | PICTURES
    model.push_to_hub("pets")
    assert published(hub, "ada/pets").keys() == PUBLISHED


def test_a_repository_can_be_private_and_a_branch_or_a_pull_request(hub, ada, digits_run):
    assert vit_scratch("push", digits_run[0], "pets", "--private").status == 0
    assert hub.repositories["model", "ada/pets"].private
    assert len(vit_scratch("push", digits_run[0], "pets", "--revision=v2", "--images").lines) == 1  # no use for it
    assert published(hub, "ada/pets").keys() == PUBLISHED
    assert "training.png" in published(hub, "ada/pets", "v2")
    proposed = vit_scratch("push", digits_run[0], "pets", "--create-pr", "--license=mit")
    assert proposed.lines[0].startswith(f"proposed   {hub.url}/ada/pets/discussions/1, commit ")
    assert b"license: mit" in published(hub, "ada/pets", "refs/pr/1")["README.md"]
    assert b"license: mit" not in published(hub, "ada/pets")["README.md"]


def test_what_is_public_is_not_taken_for_private(hub, ada, digits_run, tmp_path):
    hub.add("ada/pets", {"README.md": b"# Pets"})
    line = refused("push", digits_run[0], "ada/pets", "--private", "--images")
    assert line.endswith("ada/pets is there already, and public: make it private in its settings on the Hub first.")
    assert len(hub.titles("ada/pets")) == 1
    flags = ("--push_to_hub=true", "--hub_model_id=ada/pets", "--hub_private_repo=true", "--max_steps=1")
    assert "and public" in refused("train", "digits", *SMALL, *flags, f"--output_dir={tmp_path / 'run'}")


def test_what_was_pre_trained_is_to_be_fine_tuned(hub, ada, tmp_path):
    data = classes_of_pictures(tmp_path / "pets")
    flags = (f"--data={data}", "--max_steps=1", f"--output_dir={tmp_path / 'run'}", "--dataloader_num_workers=0")
    result = vit_scratch("pretrain", "pretrain-masked", "--model=vit-micro-patch4-32", *flags)
    assert result.status == 0, result.err
    last = vit_scratch("push", tmp_path / "run", "ada/body").lines[-1]
    assert last == "fine-tune  vit-scratch train finetune --model ada/body --data LABELLED"


def test_a_license_that_was_said_once_stays(hub, ada, digits_run):
    for flags in (["--license=apache-2.0"], []):
        assert vit_scratch("push", digits_run[0], "pets", *flags).status == 0
        assert ModelCard(published(hub, "ada/pets")["README.md"].decode()).data.license == "apache-2.0"
    assert len(hub.titles("ada/pets")) == 2


def test_the_file_of_a_license_is_published_and_nothing_else_by_its_name(hub, ada, copy):
    licensed(copy)
    assert vit_scratch("push", copy, "pets").status == 0
    assert published(hub, "ada/pets")["LICENSE"] == b"For cats only.\n"
    card = (copy / "README.md").read_text()
    for name in ("sample.png", "trainer_state.json"):
        (copy / "README.md").write_text(card.replace("license_link: LICENSE", f"license_link: {name}"))
        assert vit_scratch("push", copy, "pets").status == 0
        assert name not in published(hub, "ada/pets")


# Interrupted


def test_a_killed_push_changes_nothing_and_the_next_one_sends_only_what_is_missing(hub, ada, digits_run, tmp_path):
    environment = hub.environment(tmp_path / "home", ada)
    dying = f"import os; os.environ |= {environment!r}\n" + (
        "from huggingface_hub import constants\n"
        f"constants.ENDPOINT, constants.HF_HUB_OFFLINE, constants.HF_HUB_DISABLE_XET = {hub.url!r}, False, True\n"
        "import signal, huggingface_hub.hf_api as api\n"
        "api.HfApi.preupload_lfs_files = (lambda whole: lambda *a, **k: "
        "(whole(*a, **k), os.kill(os.getpid(), signal.SIGKILL)))(api.HfApi.preupload_lfs_files)\n"
    )
    killed = Run(["push", digits_run[0], "pets"], tmp_path, before=dying).end()
    assert killed.status == -signal.SIGKILL, killed.err
    assert len(hub.asked("PUT", "/lfs/")) == 1
    assert hub.files("ada/pets").keys() == {".gitattributes"}
    assert vit_scratch("push", digits_run[0], "pets").status == 0
    assert len(hub.asked("PUT", "/lfs/")) == 1
    assert published(hub, "ada/pets").keys() == PUBLISHED


@pytest.mark.parametrize(
    ("method", "path", "fault"),
    [
        ("POST", "/repos/create", {"status": 503}),
        ("POST", "/validate-yaml", {"status": 502}),
        ("POST", "/commit/", {"status": 500}),
        ("POST", "/commit/", {"status": 409}),
        ("POST", "/commit/", {"status": 412}),
        ("POST", "/commit/", {"status": 429}),
        ("POST", "/commit/", {"lost": "request", "after": 100}),
        ("POST", "/commit/", {"lost": "answer"}),
        ("PUT", "/lfs/.*WEIGHTS", {"lost": "request", "after": 1000, "times": 7}),  # the client itself tries six times
        ("PUT", "/lfs/.*WEIGHTS", {"status": 503, "times": 7}),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(map(str, value.values())),
)
def test_a_push_tries_again_where_that_can_help(hub, ada, naps, digits_run, method, path, fault):
    weights = hashlib.sha256((digits_run[0] / "model.safetensors").read_bytes()).hexdigest()
    hub.fail(method, path.replace("WEIGHTS", weights), **fault)
    result = vit_scratch("push", digits_run[0], "pets")
    assert result.status == 0, result.err
    assert result.err.endswith("; another attempt in 1 s.\n")
    assert naps
    assert published(hub, "ada/pets").keys() == PUBLISHED
    assert len(hub.titles("ada/pets")) == 2


def test_an_overloaded_hub_says_itself_how_long_to_wait(hub, ada, naps, digits_run):
    hub.fail("POST", "/commit/", status=429, retry_after=7)
    result = vit_scratch("push", digits_run[0], "pets", "--images")
    assert result.status == 0
    assert result.err == "vit-scratch push: the Hub had too many requests of yours for now; another attempt in 7 s.\n"
    assert 7 in naps


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ({"status": 503}, "the Hub has a problem of its own (status 503)"),
        ({"status": 409}, "ada/pets was changed by somebody else meanwhile"),
        ({"lost": "request"}, "the connection to the Hub failed"),
    ],
    ids=["503", "409", "lost"],
)
def test_a_push_gives_up_after_a_while_with_a_sentence(hub, ada, naps, digits_run, fault, said):
    hub.fail("POST", "/commit/", times=math.inf, **fault)
    result = vit_scratch("push", digits_run[0], "pets", "--images")
    assert (result.status, result.out) == (2, "")
    *attempts, last = result.err.splitlines()
    assert [line.partition(";")[0] for line in attempts] == [f"vit-scratch push: {said.replace('ada/', '')}"] * 3
    assert last == f"vit-scratch push: {digits_run[0]} is not published: {said.replace('ada/', '')}."
    assert naps[-3:] == [1, 5, 20]
    assert hub.files("ada/pets").keys() == {".gitattributes"}


# Refused


@pytest.mark.parametrize(
    ("role", "repository", "said"),
    [
        (None, "ada/pets", "the Hub needs to know who you are: log in with `hf auth login`, or set HF_TOKEN"),
        ("unknown", "ada/pets", "the Hub does not know the token: log in with `hf auth login`, or set HF_TOKEN"),
        ("read", "ada/pets", "the token may not write to ada/pets: name a repository of your own, or make a token"),
        ("write", "bob/pets", "the token may not write to bob/pets: name a repository of your own, or make a token"),
    ],
)
def test_who_may_not_write_is_told_what_to_do(hub, digits_run, monkeypatch, role, repository, said):
    if role is not None:
        monkeypatch.setenv("HF_TOKEN", "hf_unknown" if role == "unknown" else hub.token("ada", role))
    hub.add("bob/pets", {"README.md": b""})
    line = refused("push", digits_run[0], repository, "--images")
    assert line.startswith(f"vit-scratch push: {digits_run[0]} is not published: {said}")
    assert len(hub.titles("bob/pets")) == 1


def test_a_hub_that_is_not_there_is_said_to_be(digits_run, monkeypatch, naps):
    from huggingface_hub import constants

    assert "the Hub is not to be asked (HF_HUB_OFFLINE is set)" in refused("push", digits_run[0], "pets", "--images")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    result = vit_scratch("push", digits_run[0], "pets")
    assert result.err.endswith("is not published: the connection to the Hub failed.\n")
    assert naps == [1, 5, 20]


def test_a_card_that_the_hub_does_not_take_is_refused_with_its_reason(hub, ada, copy):
    text = (copy / "README.md").read_text()
    (copy / "README.md").write_text(text.replace("pipeline_tag: image-classification", "pipeline_tag: [1, 2]"))
    line = refused("push", copy, "pets", "--images")
    assert "Invalid metadata in README.md. - " in line
    assert "pipeline_tag" in line
    assert hub.files("ada/pets").keys() == {".gitattributes"}


def without(name):
    return lambda folder: (folder / name).unlink()


def edited(name, old, new):
    return lambda folder: (folder / name).write_text((folder / name).read_text().replace(old, new))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (without("config.json"), "is no checkpoint: its config.json is missing or broken."),
        (edited("config.json", "{", ""), "is no checkpoint: its config.json is missing or broken."),
        (edited("config.json", '"vit_scratch"', '"vit"'), "is a checkpoint of type vit, not vit_scratch: make it one"),
        (edited("config.json", "auto_map", "map"), "lacks the auto_map in its config.json, without which others"),
        (without("preprocessor_config.json"), "lacks preprocessor_config.json, without which others cannot use it"),
        (without("layers_vit_scratch.py"), "lacks layers_vit_scratch.py, without which others cannot use it"),
        (without("modeling_vit_scratch.py"), "lacks modeling_vit_scratch.py, without which others cannot use it"),
        (without("model.safetensors"), "has no whole weights in safetensors: No such file"),
        (lambda folder: os.truncate(folder / "model.safetensors", 5000), "/model.safetensors is cut short"),
    ],
    ids=["config", "json", "type", "auto_map", "processor", "layers", "code", "weights", "cut"],
)
def test_what_others_could_not_use_is_not_published(hub, ada, copy, damage, said):
    damage(copy)
    line = refused("push", copy, "pets")
    assert f"{copy} {said}" in line or f"{copy}{said}" in line
    assert hub.requests == []


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ("license: {a: b", ", line 2: expected ',' or '}'"),
        ("- license", ": repo card metadata block should be a dict."),
        ("license: gr\udcfcn", "'utf-8' codec can't decode byte 0xfc in position 15: invalid start byte"),
    ],
)
def test_a_broken_card_is_refused_before_a_repository_is_made(hub, ada, copy, header, said):
    (copy / "README.md").write_text(f"---\n{header}\n---\n", encoding="utf-8", errors="surrogateescape")
    line = refused("push", copy, "pets")
    assert line.startswith(f"vit-scratch push: the header of {copy / 'README.md'} cannot be read")
    assert said in line
    assert hub.requests == []


@pytest.mark.parametrize("license", ["not a license!", "MIT", "", "mit\n", "-"])
def test_a_license_is_a_name_of_the_hubs(hub, ada, digits_run, license):
    line = refused("push", digits_run[0], "pets", f"--license={license}")
    assert f"push: a license is named as the Hub names it, such as apache-2.0, got {license!r}." in line
    assert hub.requests == []


def test_a_name_that_is_none_is_refused_before_anything_is_asked(hub, ada, digits_run, tmp_path):
    assert "got 'a b'" in refused("push", digits_run[0], "a b")
    assert f"there is no checkpoint folder {tmp_path / 'none'}." in refused("push", tmp_path / "none", "pets")
    assert hub.requests == []


# The card


def test_the_card_names_its_origin_on_the_hub(hub, ada, digits_run, tmp_path):
    assert vit_scratch("push", digits_run[0], "ada/base", "--license=mit").status == 0
    assert vit_scratch("import", "ada/base", tmp_path / "imported").status == 0
    card = ModelCard.load(tmp_path / "imported" / "README.md")
    assert (card.data.base_model, card.data.license) == ("ada/base", "mit")
    data = classes_of_pictures(tmp_path / "pets")
    for name, model in (("from the Hub", "ada/base"), ("from an import", tmp_path / "imported")):
        flags = (f"--model={model}", f"--data={data}", "--max_steps=1", f"--output_dir={tmp_path / name}")
        assert vit_scratch("train", "finetune", *flags).status == 0
        card = ModelCard.load(tmp_path / name / "README.md")
        assert (card.data.base_model, card.data.license) == ("ada/base", "mit")
        assert card.data.datasets is None
        card.validate()  # by the Hub


def test_a_card_names_the_repository_once_whatever_it_named_before():
    card = 'Text.\n\n```python\nfrom PIL import Image\n\nmodel = pipeline(model=".")\nImage.open("sample.png")\n```\n'
    first = card_for_the_hub(card, "ada/one", ["sample.png"])
    assert 'pipeline(model="ada/one")' in first
    assert 'Image.open(hf_hub_download("ada/one", "sample.png"))' in first
    assert card_for_the_hub(first, "ada/two", ["sample.png"]) == first.replace("ada/one", "ada/two")


# The round trip

ROUND_TRIP = """
import sys
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModel, AutoModelForImageClassification, pipeline

name, picture = sys.argv[1:]
processor = AutoImageProcessor.from_pretrained(name)
body = AutoModel.from_pretrained(name, trust_remote_code=True)
model = AutoModelForImageClassification.from_pretrained(name, trust_remote_code=True)
classify = pipeline("image-classification", model=name, trust_remote_code=True)
with torch.no_grad():
    inputs = processor(Image.open(picture).convert("RGB"), return_tensors="pt")
    logits = model(**inputs).logits
    assert body(**inputs).pooler_output.shape == (1, model.config.hidden_size)
best = classify(picture)[0]
assert best["label"] == model.config.id2label[logits.argmax().item()]
print(type(model).__module__.split(".")[0], best["label"], f"{best['score']:.2%}")
"""
PREDICT = "from modeling_vit_scratch.cli import main\nmain(['predict', name, picture])\n"
WITHOUT_PACKAGE = "import sys; sys.modules['modeling_vit_scratch'] = None\n"


def printed_by(code: str, *arguments: object, environment: dict[str, str]) -> str:
    done = python(code, *arguments, environment=environment)
    assert done.status == 0, done.err
    return done.out


def test_a_branch_is_used_by_its_name_and_another_one_is_missed(hub, ada, digits_run, tmp_path):
    assert vit_scratch("push", digits_run[0], "pets", "--revision=draft").status == 0
    picture = digits_run[0] / "sample.png"
    result = vit_scratch("predict", "ada/pets", picture, "--revision=draft")
    assert (result.status, result.out) == (0, vit_scratch("predict", digits_run[0], picture).out)
    assert vit_scratch("evaluate", "ada/pets", "digits", "--revision=draft").status == 0
    exported = vit_scratch("export", "hf-hub:ada/pets", tmp_path / "file", "--format=torch-export", "--revision=draft")
    assert exported.status == 0
    assert exported.err.startswith("vit-scratch export: using the Hub's ada/pets at commit ")
    assert ModelCard.load(tmp_path / "file" / "README.md").data.base_model == "ada/pets"
    assert "final" in refused("predict", "ada/pets", picture, "--revision=final")
    line = refused("predict", digits_run[0], picture, "--revision=draft")
    assert line.endswith(f"revision draft is of a model on the Hub, and {digits_run[0]} is on this machine.")


def test_what_was_published_is_used_from_the_hub_with_the_package_and_without(hub, ada, digits_run, tmp_path):
    assert vit_scratch("push", digits_run[0], "pets", "--private", "--images").status == 0
    picture = tmp_path / "picture.png"
    noise((9, 11)).save(picture)
    printed = vit_scratch("predict", digits_run[0], picture).lines[0].split("\t")[1]
    code = "import modeling_vit_scratch\n" + ROUND_TRIP + PREDICT
    said = printed_by(code, "ada/pets", picture, environment=hub.environment(tmp_path / "with", ada))
    assert said == f"modeling_vit_scratch {printed}\n{picture}\t{printed}\n"
    snippet = re.search(r"```python\n(.*?)```", hub.files("ada/pets")["README.md"].decode(), re.DOTALL)[1]
    code = WITHOUT_PACKAGE + ROUND_TRIP + snippet
    said = printed_by(code, "ada/pets", picture, environment=hub.environment(tmp_path / "without", ada)).splitlines()
    assert said[0] == f"transformers_modules {printed}"
    expected = vit_scratch("predict", digits_run[0], digits_run[0] / "sample.png").lines[0].split("\t")[1]
    assert said[1].startswith(f"[{{'label': '{expected.split()[0]}', ")


def test_what_is_on_the_hub_is_looked_into_by_its_name(hub, ada, digits_run, tmp_path):
    assert vit_scratch("push", digits_run[0], "pets", "--revision=draft").status == 0
    seen = vit_scratch("dry-run", "ada/pets", "--revision=draft")
    assert seen.status == 0, seen.err
    assert seen.lines[0].startswith("ada/pets on 1 image of 8x8 pixels")
    flags = ("--revision=draft", "--out", tmp_path / "out")
    explained = vit_scratch("explain", "ada/pets", digits_run[0] / "sample.png", *flags)
    assert explained.status == 0, explained.err
    assert (tmp_path / "out" / "index.html").is_file()
    assert "there is no folder ada/none, and the Hub's ada/none" in refused("dry-run", "ada/none")


# Which checkpoint is meant


@pytest.fixture
def strangers(hub, digits_run, tmp_path, monkeypatch) -> str:
    """The commit of a stranger's repository whose name is that of a folder that is not here."""
    monkeypatch.chdir(tmp_path)
    classes_of_pictures(tmp_path / "pets", images=1)
    return hub.add("outputs/digits", digits_run[0])


USES = {
    "predict": ("predict", "CHECKPOINT", "pets"),
    "table": ("predict", "CHECKPOINT", "pets", "--output=table.csv"),
    "evaluate": ("evaluate", "CHECKPOINT", "digits", "--batch_size=512"),
    "explain": ("explain", "CHECKPOINT", "pets/cat/000.png", "--output=explained"),
    "dry-run": ("dry-run", "CHECKPOINT"),
    "import": ("import", "CHECKPOINT", "imported"),
    "export": ("export", "CHECKPOINT", "exported", "--format=timm", "--config_overrides=norm_first=true"),
    "train": ("train", "finetune", "--model=CHECKPOINT", "--data=pets", "--max_steps=1", "--train_val_split=0"),
}


@pytest.mark.parametrize(("use", "scheme"), [*((use, "hf-hub:") for use in USES), ("predict", ""), ("train", "")])
def test_what_comes_from_the_hub_says_so_once_with_its_commit(strangers, use, scheme):
    result = vit_scratch(*(part.replace("CHECKPOINT", f"{scheme}outputs/digits") for part in USES[use]))
    assert result.status == 0, result.err
    why = "" if scheme else "outputs/digits is no folder here: "
    said = f"vit-scratch {USES[use][0]}: {why}using the Hub's outputs/digits at commit {strangers[:7]}"
    assert [line for line in result.err.splitlines() if "Hub" in line] == [said]


def test_a_folder_here_is_used_without_a_word_and_a_scheme_means_the_hub_all_the_same(strangers, digits_run, tmp_path):
    shutil.copytree(digits_run[0], tmp_path / "outputs" / "digits")
    assert vit_scratch("predict", "outputs/digits", "pets").err == ""
    assert f"using the Hub's outputs/digits at commit {strangers[:7]}" in (
        vit_scratch("predict", "hf-hub:outputs/digits", "pets").err
    )


def test_a_branch_that_moves_meanwhile_mixes_no_two_commits(hub, strangers, digits_run, copy, monkeypatch):
    expected = vit_scratch("predict", digits_run[0], "pets").out
    config = json.loads((copy / "config.json").read_text())
    config["id2label"] = {key: f"other {label}" for key, label in config["id2label"].items()}
    (copy / "config.json").write_text(json.dumps(config))
    real = hub_of_the_package._snapshot

    def snapshot(*arguments):
        folder = real(*arguments)
        hub.add("outputs/digits", copy)
        return folder

    monkeypatch.setattr(hub_of_the_package, "_snapshot", snapshot)
    assert vit_scratch("predict", "outputs/digits", "pets").out == expected
    assert "other" in vit_scratch("predict", "outputs/digits", "pets").out


def test_processes_that_work_together_take_the_commit_that_the_first_one_is_told(hub, strangers, copy, monkeypatch):
    hub.add("outputs/digits", copy)
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 1)
    monkeypatch.setattr(hub_of_the_package, "broadcast_object_list", lambda own: [(strangers, "")])
    assert hub_of_the_package.fetched("outputs/digits").commit == strangers
    monkeypatch.setattr(hub_of_the_package, "broadcast_object_list", lambda own: [("", "the Hub has a problem")])
    with pytest.raises(ValueError, match="there is no folder outputs/digits, and the Hub has a problem"):
        hub_of_the_package.fetched("outputs/digits")


def test_what_was_used_once_is_used_without_the_hub(strangers, digits_run, monkeypatch):
    from huggingface_hub import constants

    first = vit_scratch("predict", "outputs/digits", "pets")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert vit_scratch("predict", "outputs/digits", "pets") == first
    assert vit_scratch("predict", "outputs/digits", "pets", f"--revision={strangers}") == first


def test_what_is_made_of_it_names_the_hub_and_the_commit_and_no_cache(strangers, ada, hub, tmp_path, caplog):
    flags = ("--finetuning=lora", "--max_steps=1", "--train_val_split=0", "--output_dir=run", "--data=pets")
    assert vit_scratch("train", "finetune", "--model=hf-hub:outputs/digits", *flags).status == 0
    card = ModelCard.load(tmp_path / "run" / "README.md")
    assert card.data.base_model == "outputs/digits"
    assert f"from outputs/digits (commit {strangers[:7]}):" in " ".join(card.text.split())
    adapter = json.loads((tmp_path / "run" / "adapter" / "adapter_config.json").read_text())
    assert adapter["base_model_name_or_path"] == "outputs/digits"
    assert not [path for path in tmp_path.glob("run/*.*") if b"/snapshots/" in path.read_bytes()]
    loaded, _, _ = load_checkpoint("outputs/digits")
    assert (
        caplog.messages[-1]
        == f"outputs/digits is no folder here: using the Hub's outputs/digits at commit {strangers[:7]}"
    )
    loaded.push_to_hub("ada/again")
    assert published(hub, "ada/again").keys() == PUBLISHED


CUSTOM = """
import torch
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import ImageClassifierOutput

class BrightnessConfig(PreTrainedConfig):
    model_type = "brightness"

class Brightness(PreTrainedModel):
    config_class = BrightnessConfig
    main_input_name = "pixel_values"

    def __init__(self, config):
        super().__init__(config)
        self.head = torch.nn.Linear(1, config.num_labels)
        self.post_init()

    def forward(self, pixel_values):
        return ImageClassifierOutput(logits=self.head(pixel_values.mean((1, 2, 3), keepdim=True)[:, :, 0, 0]))
"""


def test_code_of_a_repository_is_fetched_and_run_only_where_it_is_trusted(hub, strangers):
    auto_map = {"AutoConfig": "code.BrightnessConfig", "AutoModelForImageClassification": "code.Brightness"}
    config = {"model_type": "brightness", "architectures": ["Brightness"], "auto_map": auto_map}
    config["id2label"] = {"0": "dark", "1": "light"}
    processor = {"image_processor_type": "ViTImageProcessor", "size": {"height": 4, "width": 4}}
    weights = {"head.weight": torch.tensor([[-9.0], [9.0]]), "head.bias": torch.zeros(2)}
    files = {"config.json": config, "preprocessor_config.json": processor}
    hub.add(
        "ada/custom",
        {name: json.dumps(content).encode() for name, content in files.items()}
        | {"code.py": CUSTOM.encode(), "model.safetensors": save(weights, {"format": "pt"})},
    )
    line = vit_scratch("predict", "ada/custom", "pets").err.splitlines()[-1]
    assert "trust_remote_code=True" in line
    assert "/snapshots/" not in line
    assert not hub.asked("GET", "code.py")
    trusted = vit_scratch("predict", "ada/custom", "pets", "--trust_remote_code")
    assert trusted.status == 0, trusted.err
    assert [line.split()[-2] for line in trusted.lines][::2] == ["dark", "light"]


def test_weights_that_are_no_safetensors_are_not_used_but_imported(hub, strangers, digits_run):
    hub.add("ada/old", {"config.json": (digits_run[0] / "config.json").read_bytes(), "pytorch_model.bin": b"pickle"})
    line = vit_scratch("predict", "ada/old", "pets").err.splitlines()[-1]
    assert "the Hub's ada/old holds no weights: model.safetensors, model-*-of-*.safetensors." in line
    assert not hub.asked("HEAD", "pytorch_model.bin")


@pytest.mark.parametrize("verb", ["predict", "evaluate", "explain"])
def test_a_preset_is_no_checkpoint_where_weights_are_needed(verb, strangers):
    flags = ("--output=out",) if verb == "explain" else ()
    line = refused(verb, "digits", "pets/cat/000.png" if verb == "explain" else "pets", *flags)
    assert line.endswith("digits is a preset, which has no weights: name a folder or a Hub id.")
