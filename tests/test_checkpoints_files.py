# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""Files of weights: known by what they contain, read without running anything, and refused in one sentence.

Each file is a real one, written by the library that writes such files, and then cut, mixed up or misnamed.
"""

import argparse
import io
import json
import os
import pickle
import random
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from runs import refused
from safetensors.torch import save, save_file

from modeling_vit_scratch.checkpoints.files import open_source

STATE = {
    "blocks.0.weight": torch.randn(7, 5, generator=torch.Generator().manual_seed(0)),
    "blocks.0.bias": torch.arange(7.0),
    "scale": torch.tensor(3.0),
}


def torch_bytes(value: object, **options) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, **options)
    return buffer.getvalue()


def npz_bytes(arrays: dict[str, np.ndarray], write=np.savez) -> bytes:
    buffer = io.BytesIO()
    write(buffer, **arrays)
    return buffer.getvalue()


ARRAYS = {name: tensor.numpy() for name, tensor in STATE.items()}
WHOLE = {
    "safetensors": save(STATE),
    "torch": torch_bytes(STATE),
    "torch before 1.6": torch_bytes(STATE, _use_new_zipfile_serialization=False),
    "npz": npz_bytes(ARRAYS),
    "compressed npz": npz_bytes(ARRAYS, np.savez_compressed),
}


def read(path: Path) -> dict[str, torch.Tensor]:
    """All tensors of a source, each of the shape that was told before it was read."""
    source = open_source(path)
    tensors = {name: source.tensors[name] for name in source.tensors}
    assert source.shapes == {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    return tensors


def assert_same(tensors: dict[str, torch.Tensor], expected: dict[str, torch.Tensor] = STATE) -> None:
    assert tensors.keys() == expected.keys()
    for name, tensor in tensors.items():
        assert tensor.dtype == expected[name].dtype
        torch.testing.assert_close(tensor, expected[name], rtol=0, atol=0, equal_nan=True)


def reason(path: Path) -> str:
    """Why a source is refused: one sentence that names it."""
    with pytest.raises(ValueError, match=r"\.$") as refusal:
        read(path)
    sentence = str(refusal.value)
    assert str(path) in sentence
    assert "\n" not in sentence
    assert ". " not in sentence.replace(str(path), "")
    assert len(sentence.replace(str(path), "")) < 200
    return sentence


# Every kind, whatever its name


@pytest.mark.parametrize("name", ["weights", "weights.safetensors", "weights.npz", "weights.pth", "weights.bin"])
@pytest.mark.parametrize("kind", WHOLE)
def test_a_file_is_known_by_what_it_contains_and_not_by_its_name(kind, name, tmp_path):
    (tmp_path / name).write_bytes(WHOLE[kind])
    assert_same(read(tmp_path / name))


def test_a_safetensors_file_is_known_whatever_the_length_of_its_header(tmp_path):
    # The file begins with that length, and a pickle with the byte 128.
    for filling in range(0, 400, 8):
        (tmp_path / "weights").write_bytes(save(STATE, metadata={"filling": "x" * filling}))
        assert_same(read(tmp_path / "weights"))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("kind", ["safetensors", "torch"])
def test_tensors_keep_their_type(kind, dtype, tmp_path):
    state = {name: tensor.to(dtype) for name, tensor in STATE.items()}
    (tmp_path / "weights").write_bytes(save(state) if kind == "safetensors" else torch_bytes(state))
    assert_same(read(tmp_path / "weights"), state)


def test_bfloat16_of_jax_is_read_though_numpy_has_no_name_for_it(tmp_path):
    state = {name: tensor.bfloat16() for name, tensor in STATE.items()}
    arrays = {name: tensor.view(torch.int16).numpy().view("V2") for name, tensor in state.items()}
    (tmp_path / "weights.npz").write_bytes(npz_bytes(arrays))
    assert_same(read(tmp_path / "weights.npz"), state)


def test_arrays_with_their_columns_first_are_read(tmp_path):
    array = np.asfortranarray(np.arange(12.0).reshape(3, 4))
    (tmp_path / "weights.npz").write_bytes(npz_bytes({"columns": array}))
    assert_same(read(tmp_path / "weights.npz"), {"columns": torch.arange(12.0, dtype=torch.float64).reshape(3, 4)})


@pytest.mark.parametrize("kind", ["safetensors", "torch", "npz"])
def test_what_is_no_number_is_passed_on(kind, tmp_path):
    state = {"diverged": torch.tensor([float("nan"), float("inf"), -0.0])}
    arrays = {name: tensor.numpy() for name, tensor in state.items()}
    content = {"safetensors": save(state), "torch": torch_bytes(state), "npz": npz_bytes(arrays)}
    (tmp_path / "weights").write_bytes(content[kind])
    assert_same(read(tmp_path / "weights"), state)


def test_arrays_that_nobody_asks_for_are_not_read(tmp_path):
    content = npz_bytes({**ARRAYS, "large": np.ones(100_000)})
    (tmp_path / "weights.npz").write_bytes(content.replace(np.ones(2).tobytes(), bytes(16)))  # not as its checksum says
    source = open_source(tmp_path / "weights.npz")
    assert source.shapes["large"] == (100_000,)
    assert_same({name: source.tensors[name] for name in STATE})
    assert "holds large, which cannot be read: Bad CRC-32" in reason(tmp_path / "weights.npz")
    with pytest.raises(KeyError):
        source.tensors["blocks.1.bias"]


# Files that are not whole


@pytest.mark.parametrize("kind", WHOLE)
def test_a_file_that_was_cut_is_refused_wherever_it_was(kind, tmp_path):
    whole, file = WHOLE[kind], tmp_path / "weights"
    for length in range(1, len(whole), max(1, len(whole) // 150)):
        file.write_bytes(whole[:length])
        assert "could run code" not in reason(file), length
    file.write_bytes(whole[:-1])
    reason(file)


@pytest.mark.parametrize("kind", [kind for kind in WHOLE if kind != "torch before 1.6"])  # which has no checksums
def test_a_file_that_lacks_a_piece_in_the_middle_is_refused(kind, tmp_path):
    whole, file = WHOLE[kind], tmp_path / "weights"
    for start in range(0, len(whole) - 20, max(1, len(whole) // 100)):
        file.write_bytes(whole[:start] + whole[start + 20 :])
        reason(file)


def test_an_array_that_is_shorter_than_it_says_is_refused(tmp_path):
    entry = io.BytesIO()
    np.save(entry, ARRAYS["blocks.0.weight"])
    with zipfile.ZipFile(tmp_path / "weights.npz", "w") as archive:
        archive.writestr("blocks.0.weight.npy", entry.getvalue()[:-4])
    assert "holds blocks.0.weight, which cannot be read: " in reason(tmp_path / "weights.npz")


@pytest.mark.parametrize("array", [np.array(["a text"]), np.zeros(3, "V4"), np.zeros(3, ">f4")])
def test_an_array_that_torch_has_no_type_for_is_named(array, tmp_path):
    (tmp_path / "weights.npz").write_bytes(npz_bytes({"strange": array}))
    assert "holds strange, which cannot be read: " in reason(tmp_path / "weights.npz")


# Files with code


class Canary:
    """Whoever unpickles it writes a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.write_text, (self.path, "code ran")


def pickles_with_code(canary: Canary) -> dict[str, bytes]:
    return {
        "torch": torch_bytes({**STATE, "canary": canary}),
        "torch before 1.6": torch_bytes({**STATE, "canary": canary}, _use_new_zipfile_serialization=False),
        "pickle 2": pickle.dumps({"canary": canary}, protocol=2),
        "pickle 5": pickle.dumps({"canary": canary}, protocol=5),
    }


@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors", "weights.npz"])
@pytest.mark.parametrize("kind", pickles_with_code(Canary(Path("canary"))))
def test_code_in_a_pickle_does_not_run(kind, name, tmp_path):
    canary = Canary(tmp_path / "canary")
    content = pickles_with_code(canary)[kind]
    (tmp_path / name).write_bytes(content)
    assert "holds Python objects other than tensors" in reason(tmp_path / name)
    assert not canary.path.exists()
    torch.load(io.BytesIO(content), weights_only=False) if "torch" in kind else pickle.loads(content)
    assert canary.path.exists()  # so the canary would have told


def test_what_could_run_code_is_named(tmp_path):
    torch.save(torch.nn.Linear(2, 2), tmp_path / "module.pth")
    assert "(torch.nn.modules.linear.Linear), which could run code" in reason(tmp_path / "module.pth")


def test_code_in_an_array_of_objects_does_not_run(tmp_path):
    canary = Canary(tmp_path / "canary")
    content = npz_bytes({**ARRAYS, "odd": np.array([canary, None], dtype=object)})
    (tmp_path / "weights.npz").write_bytes(content)
    assert reason(tmp_path / "weights.npz").endswith("holds an array of Python objects, odd, which could run code.")
    assert not canary.path.exists()
    np.load(io.BytesIO(content), allow_pickle=True)["odd"]
    assert canary.path.exists()


def test_an_object_inside_a_record_is_an_object_too(tmp_path):
    canary = Canary(tmp_path / "canary")
    records = np.array([(1.0, canary)], dtype=[("number", "f4"), ("thing", object)])
    (tmp_path / "weights.npz").write_bytes(npz_bytes({"records": records}))
    assert "holds an array of Python objects, records" in reason(tmp_path / "weights.npz")
    assert not canary.path.exists()


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # such files are still about
def test_a_torchscript_archive_holds_code(tmp_path):
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), tmp_path / "traced.pt")
    assert "which could run code" in reason(tmp_path / "traced.pt")


def test_on_the_command_line_a_file_with_code_is_one_line_and_leaves_nothing(tmp_path):
    canary = Canary(tmp_path / "canary")
    (tmp_path / "weights.pth").write_bytes(pickles_with_code(canary)["torch"])
    line = refused("import", tmp_path / "weights.pth", tmp_path / "out")
    assert line.startswith(f"vit-scratch import: {tmp_path}/weights.pth cannot be read: it holds Python objects")
    assert os.listdir(tmp_path) == ["weights.pth"]


# Files that are none


NO_WEIGHTS = {
    "is empty.": b"",
    "is no file of weights: it is neither safetensors, nor saved by torch, nor an .npz.": b"These are notes.\n" * 9,
    "is no file of weights: it is a web page.": b"\n<!DOCTYPE html><html><body>404</body></html>",
    "it is a Git LFS pointer, which stands for the real file: fetch that with git lfs pull.": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0f" * 32 + b"\nsize 346284714\n"
    ),
}


@pytest.mark.parametrize("said", NO_WEIGHTS)
def test_a_file_that_holds_no_weights_is_refused_with_what_it_is(said, tmp_path):
    (tmp_path / "vit.pth").write_bytes(NO_WEIGHTS[said])
    assert reason(tmp_path / "vit.pth").endswith(said)
    (tmp_path / "vit.pth").rename(tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"model\.safetensors "):  # whichever file of a folder it is
        open_source(tmp_path)


def test_other_archives_and_arrays_are_no_weights(tmp_path):
    np.save(tmp_path / "array.npy", ARRAYS["scale"])
    with zipfile.ZipFile(tmp_path / "text.docx", "w") as archive:
        archive.writestr("word/document.xml", "text")
    with zipfile.ZipFile(tmp_path / "nothing.npz", "w"):
        pass
    for name in ("array.npy", "text.docx", "nothing.npz"):
        assert "is no file of weights" in reason(tmp_path / name)
    with zipfile.ZipFile(tmp_path / "text.npz", "w") as archive:
        archive.writestr("array.npy", "text")
    assert "is not a whole .npz file" in reason(tmp_path / "text.npz")


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ([torch.zeros(2)], "must hold a state dict, got list."),
        (torch.zeros(2), "must hold a state dict, got Tensor."),
        ({}, "holds no tensors."),
        ({"epoch": 3, "model": {"depth": 2}}, "holds no tensors."),
        ({3: torch.zeros(2)}, "holds no tensors."),
    ],
)
def test_a_file_of_torch_must_hold_a_state_dict(value, said, tmp_path):
    torch.save(value, tmp_path / "weights.pth")
    assert reason(tmp_path / "weights.pth").endswith(said)


def test_a_safetensors_file_without_tensors_is_refused(tmp_path):
    save_file({}, tmp_path / "weights.safetensors")
    assert reason(tmp_path / "weights.safetensors").endswith("holds no tensors.")


def test_a_path_that_leads_nowhere_is_refused(tmp_path):
    assert reason(tmp_path / "weights.pth") == f"there is no checkpoint {tmp_path}/weights.pth."


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the file is one of Linux")
def test_a_file_that_the_system_does_not_read_is_refused():
    assert reason(Path("/proc/self/mem")) == "/proc/self/mem cannot be read: Input/output error."


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="this user may read everything")
def test_a_file_that_this_user_may_not_read_is_refused(tmp_path):
    (tmp_path / "weights.pth").write_bytes(WHOLE["torch"])
    (tmp_path / "weights.pth").chmod(0)
    assert reason(tmp_path / "weights.pth").endswith("weights.pth cannot be read: Permission denied.")


# What training code saves


@pytest.mark.parametrize("container", ["model", "state_dict", "teacher", "model_ema", "state_dict_ema"])
def test_the_state_dict_is_found_among_other_things(container, tmp_path):
    saved = {"epoch": 3, "optimizer": {"state": {0: torch.zeros(2)}}, "args": {"depth": 2}, container: STATE}
    torch.save(saved, tmp_path / "weights.pth")
    assert_same(read(tmp_path / "weights.pth"))


def test_averaged_weights_are_preferred(tmp_path):
    others = {name: tensor + 1 for name, tensor in STATE.items()}
    torch.save({"state_dict": others, "state_dict_ema": STATE}, tmp_path / "weights.pth")
    assert_same(read(tmp_path / "weights.pth"))


def test_something_of_another_kind_by_the_name_of_a_container_does_not_hide_the_weights(tmp_path):
    torch.save({"model": {"name": "vit"}, "teacher": "resnet", "state_dict": STATE}, tmp_path / "weights.pth")
    assert_same(read(tmp_path / "weights.pth"))


def test_entries_that_are_no_tensors_are_passed_over(tmp_path):
    odd = OrderedDict(STATE, version=3, name="vit", sizes=[1, 2], nothing=None)
    torch.save(odd, tmp_path / "weights.pth")
    assert_same(read(tmp_path / "weights.pth"))


def test_parameters_are_tensors(tmp_path):
    torch.save({name: torch.nn.Parameter(tensor) for name, tensor in STATE.items()}, tmp_path / "weights.pth")
    assert_same({name: tensor.detach() for name, tensor in read(tmp_path / "weights.pth").items()})


@pytest.mark.parametrize("wrapper", ["module.", "_orig_mod.", "model.", "_orig_mod.module.", "module.model.backbone."])
@pytest.mark.parametrize("kind", ["torch", "safetensors"])
def test_what_wrappers_put_in_front_of_names_is_taken_off(kind, wrapper, tmp_path):
    wrapped = {wrapper + name: tensor for name, tensor in STATE.items()}
    content = save(wrapped) if kind == "safetensors" else torch_bytes({"state_dict": wrapped})
    (tmp_path / "weights").write_bytes(content)
    assert_same(read(tmp_path / "weights"))


def test_a_head_beside_a_wrapped_backbone_keeps_its_name(tmp_path):
    head = {"head.weight": torch.ones(2)}
    torch.save({"teacher": {f"backbone.{name}": STATE[name] for name in STATE} | head}, tmp_path / "dino.pth")
    assert_same(read(tmp_path / "dino.pth"), {**STATE, **head})


def test_a_part_of_a_model_by_the_name_of_a_wrapper_keeps_it(tmp_path):
    state = {**STATE, "model.weight": torch.ones(2)}
    torch.save(state, tmp_path / "weights.pth")
    assert_same(read(tmp_path / "weights.pth"), state)


def test_two_tensors_of_one_name_are_not_told_apart_by_chance(tmp_path):
    torch.save({**{f"module.{name}": STATE[name] for name in STATE}, "scale": torch.zeros(2)}, tmp_path / "weights.pth")
    assert reason(tmp_path / "weights.pth").endswith("holds two tensors for one, scale and module.scale.")


# Folders


def test_a_folder_whose_name_looks_like_that_of_a_file_is_a_folder(tmp_path):
    folder = tmp_path / "vit.pth"
    folder.mkdir()
    assert "vit.pth holds no weights: looked for model.safetensors, " in reason(folder)
    (folder / "weights.pth").mkdir()
    (folder / "model.pt").write_bytes(WHOLE["torch"])
    assert_same(read(folder))


@pytest.mark.parametrize(
    ("taken", "passed_over"),
    [
        ("model.safetensors", "pytorch_model.bin"),
        ("model.safetensors", "open_clip_model.safetensors"),
        ("weights.safetensors", "weights.npz"),
        ("weights.npz", "pytorch_model.bin"),
        ("pytorch_model.bin", "training_args.bin"),
        ("vit.pth", "optimizer.bin"),
    ],
)
def test_of_a_folder_the_safest_file_is_read(taken, passed_over, tmp_path):
    (tmp_path / taken).write_bytes(WHOLE["npz" if taken.endswith("npz") else "torch"])
    (tmp_path / passed_over).write_bytes(b"")
    assert_same(read(tmp_path))


def test_of_several_files_that_could_be_meant_one_must_be_named(tmp_path):
    for name in ("b.pth", "a.pth", "c.pth"):
        (tmp_path / name).write_bytes(WHOLE["torch"])
    assert reason(tmp_path) == f"{tmp_path} holds 3 files of weights, a.pth and others: name one."
    assert_same(read(tmp_path / "a.pth"))


@pytest.mark.parametrize("given", ["folder", "file"])
def test_the_configuration_lies_beside_the_weights(given, tmp_path):
    (tmp_path / "model.safetensors").write_bytes(WHOLE["safetensors"])
    path = tmp_path if given == "folder" else tmp_path / "model.safetensors"
    assert open_source(path).config == {}
    (tmp_path / "config.json").write_text('{"depth": 3}')
    assert open_source(path).config == {"depth": 3}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{"depth": 3', "config.json is not a whole JSON file: "),
        (b"", "config.json is not a whole JSON file: "),
        (b"\xff\xfe{", "config.json is not a whole JSON file: "),
        (b'["depth", 3]', "config.json must hold a JSON object, got list."),
        (b"null", "config.json must hold a JSON object, got NoneType."),
    ],
)
def test_a_broken_configuration_is_refused(content, said, tmp_path):
    (tmp_path / "model.safetensors").write_bytes(WHOLE["safetensors"])
    (tmp_path / "config.json").write_bytes(content)
    assert said in reason(tmp_path)


# Weights in several files


def sharded(folder: Path, kind: str = "safetensors") -> Path:
    """A folder with one file per tensor, and the index that says which is where."""
    stem, suffix = ("model", "safetensors") if kind == "safetensors" else ("pytorch_model", "bin")
    names = {name: f"{stem}-{index:05}-of-00003.{suffix}" for index, name in enumerate(STATE, 1)}
    for name, file in names.items():
        part = {name: STATE[name]}
        (folder / file).write_bytes(save(part) if kind == "safetensors" else torch_bytes(part))
    (folder / f"{stem}.{suffix}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": names}))
    return folder


@pytest.mark.parametrize("kind", ["safetensors", "torch"])
def test_weights_in_several_files_are_read_by_their_index(kind, tmp_path):
    assert_same(read(sharded(tmp_path, kind)))


def test_a_missing_part_is_named(tmp_path):
    (sharded(tmp_path) / "model-00002-of-00003.safetensors").unlink()
    assert reason(tmp_path) == f"{tmp_path} is not whole: model-00002-of-00003.safetensors is missing."


def test_a_part_that_was_cut_is_named(tmp_path):
    part = sharded(tmp_path) / "model-00002-of-00003.safetensors"
    part.write_bytes(part.read_bytes()[:-4])
    assert f"{part} is not a whole safetensors file" in reason(tmp_path)


@pytest.mark.parametrize("where", ["../secret.safetensors", "{}/secret.safetensors", "inner/../../secret.safetensors"])
def test_an_index_leads_to_no_file_outside_of_its_folder(where, tmp_path):
    save_file({"secret": torch.ones(2)}, tmp_path / "secret.safetensors")
    folder = tmp_path / "folder"
    (folder / "inner").mkdir(parents=True)
    index = sharded(folder) / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    content["weight_map"]["secret"] = where.format(tmp_path)
    index.write_text(json.dumps(content))
    assert reason(folder).endswith(f"names {where.format(tmp_path)}, which is no file beside it.")


@pytest.mark.parametrize(
    "content", ["{}", '{"weight_map": {}}', '{"weight_map": ["model.safetensors"]}', '{"weight_map": null}']
)
def test_an_index_of_nothing_is_refused(content, tmp_path):
    index = sharded(tmp_path) / "model.safetensors.index.json"
    index.write_text(content)
    assert reason(tmp_path) == f"{index} names no files of weights."


def test_the_order_of_tensors_is_that_of_the_file(tmp_path):
    names = [f"blocks.{index}.weight" for index in range(30)]
    random.Random(0).shuffle(names)
    torch.save({name: torch.zeros(1) for name in names}, tmp_path / "weights.pth")
    assert list(open_source(tmp_path / "weights.pth").tensors) == names


def test_the_arguments_of_training_beside_the_weights_are_passed_over(tmp_path):
    # As the code of DeiT, MAE and DINO saves them; the class holds values and runs nothing.
    torch.save({"model": {"a": torch.ones(2)}, "args": argparse.Namespace(lr=0.1, name="run")}, tmp_path / "model.pth")
    assert list(open_source(tmp_path / "model.pth").tensors) == ["a"]


def test_which_of_several_state_dicts_was_taken_is_said(tmp_path):
    torch.save({"model": {"a": torch.zeros(2)}, "model_ema": {"a": torch.ones(2)}}, tmp_path / "model.pth")
    source = open_source(tmp_path / "model.pth")
    assert torch.equal(source.tensors["a"], torch.ones(2))
    assert source.notes == ["took 'model_ema' of the 'model_ema' and 'model' in the file"]
