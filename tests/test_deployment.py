"""Checkpoints as files that run without this package: `vit-scratch export --format onnx|onnx-int8|torch-export`.

The loader in each card is run as a reader would paste it, in an environment that has nothing but what it names.
"""

import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import transformers
from forks import python
from huggingface_hub import ModelCard
from packaging.requirements import Requirement
from pictures import noise, oriented
from PIL import Image, ImageOps
from runs import TERMS, classes_of_pictures, contents, licensed, refused, terms, vit_scratch
from transformers.models.convnext.image_processing_pil_convnext import ConvNextImageProcessorPil
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from modeling_vit_scratch import ViTScratchConfig, ViTScratchForImageClassification, ViTScratchModel
from modeling_vit_scratch.data.images import read_image
from modeling_vit_scratch.data.model_input import pixel_values
from modeling_vit_scratch.deployment import file_export as exporting
from modeling_vit_scratch.deployment.calibration import Calibration, measure
from modeling_vit_scratch.deployment.file_card import TEMPLATE
from modeling_vit_scratch.hub.checkpoint import load_checkpoint
from modeling_vit_scratch.prediction.classifier import predict
from modeling_vit_scratch.tracing import onnx_file
from modeling_vit_scratch.tracing.preparing import loader_settings

DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "deployment.md"
LABELS = {0: "cat", 1: "dog", 2: "hot *dog*"}
# 4 x 5 patches of 6 x 7 pixels, width 24, 3 heads of 8, 1 block: no two axes alike.
TINY = {
    "image_size": [24, 35],
    "patch_size": [6, 7],
    "hidden_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 3,
    "intermediate_size": 40,
    "id2label": LABELS,
    "norm_first": True,
    "use_final_layer_norm": True,
}
EVERYTHING = {
    "num_register_tokens": 2,
    "use_swiglu_ffn": True,
    "use_dual_patch_norm": True,
    "layerscale_value": 0.3,
    "pooling": "attention",
    "use_cls_position": True,
    "position_interpolation": "bicubic_align_corners",
}
CROPPING = {"size": {"shortest_edge": 37}, "do_center_crop": True, "crop_size": {"height": 24, "width": 35}}


def tiny(folder: Path, processor=None, task=ViTScratchForImageClassification, **fields):
    """A checkpoint of which every parameter is random."""
    torch.manual_seed(0)
    model = task(ViTScratchConfig(**{**TINY, **fields})).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    model.save_pretrained(folder)
    (processor or ViTImageProcessorPil(size={"height": 24, "width": 35})).save_pretrained(folder)
    return model


def python_of(text: str) -> str:
    """The first block of Python in a document."""
    return re.search(r"```python\n(.*?)```", text, re.DOTALL)[1]


def loader_of(folder: Path) -> str:
    return python_of((folder / "README.md").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """Files whose pixels are not simply theirs: grey, rotated by EXIF, CMYK, palette."""
    folder = tmp_path_factory.mktemp("photos")
    noise((31, 23), "L", seed=1).save(folder / "grey.png")
    noise((29, 17), seed=2).save(folder / "rotated.jpg", exif=oriented(6))
    noise((13, 19), "CMYK", seed=3).save(folder / "cmyk.jpg")
    noise((23, 23), "P", seed=4).save(folder / "palette.png")
    return folder


@pytest.fixture(scope="module")
def onnx_folder(digits_exports) -> Path:
    return digits_exports[0]["onnx"]


@pytest.fixture(scope="module")
def session(onnx_folder) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(onnx_folder / "model.onnx")


def assert_as_predicted(printed: str, checkpoint: Path, files: list[Path]) -> None:
    """Whether lines of three labels and their shares for each file are what `predict` says of it."""
    lines = [line.rsplit(" ", 1) for line in printed.splitlines()]
    assert len(lines) == 3 * len(files)
    for index, expected in enumerate(predict(str(checkpoint), [str(file) for file in files], top_k=3)):
        shown = lines[3 * index : 3 * index + 3]
        assert [label for label, _ in shown] == expected.labels
        scores = [float(share.rstrip("%")) / 100 for _, share in shown]
        np.testing.assert_allclose(scores, expected.scores, atol=1e-4)


# --- The loader ------------------------------------------------------------------------------------------------------


def distributions(*names: str) -> dict[str, importlib.metadata.Distribution]:
    """Installed distributions and all that they require."""
    found: dict[str, importlib.metadata.Distribution] = {}
    left = list(names)
    while left:
        distribution = importlib.metadata.distribution(left.pop())
        if distribution.name in found:
            continue
        found[distribution.name] = distribution
        requirements = [Requirement(text) for text in distribution.requires or []]
        left += [item.name for item in requirements if not item.marker or item.marker.evaluate({"extra": ""})]
    return found


@pytest.fixture(scope="module")
def bare_python(tmp_path_factory) -> Path:
    """The Python of an environment with ONNX Runtime, Pillow, NumPy and what these require, and nothing else."""
    root = tmp_path_factory.mktemp("bare") / "environment"
    venv.create(root, with_pip=False, symlinks=True)
    packages = root / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    for distribution in distributions("onnxruntime", "pillow", "numpy").values():
        for file in distribution.files:
            if ".." not in file.parts and "__pycache__" not in file.parts:
                link = packages / file
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(file.locate())
    return root / "bin" / "python"


def run_alone(python: Path | str, program: str, folder: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    command = [str(python), "-W", "error", "-c", program]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_loader_gives_the_scores_of_predict_where_there_is_neither_torch_nor_transformers(
    digits_run, onnx_folder, photos, bare_python
):
    files = [digits_run[0] / "sample.png", *sorted(photos.iterdir())]
    program = f"""
import importlib.util
assert not any(map(importlib.util.find_spec, ("torch", "transformers", "modeling_vit_scratch", "onnx")))
for file in {list(map(str, files))}:
    exec({loader_of(onnx_folder)!r}.replace("photo.jpg", file))
"""
    assert_as_predicted(run_alone(bare_python, program, onnx_folder), digits_run[0], files)


def test_that_of_a_program_of_torch_does_so_without_transformers(digits_run, digits_exports, photos):
    folder = digits_exports[0]["torch-export"]
    files = sorted(photos.iterdir())
    # None in sys.modules makes an import fail.
    program = f"""
import sys
sys.modules |= dict.fromkeys(("transformers", "modeling_vit_scratch", "onnx", "onnxruntime"))
for file in {list(map(str, files))}:
    exec({loader_of(folder)!r}.replace("photo.jpg", file))
"""
    done = python(f"import warnings; warnings.simplefilter('error')\n{program}", cwd=folder)
    assert done.status == 0, done.err
    assert_as_predicted(done.out, digits_run[0], files)


@pytest.mark.parametrize("format", ["onnx", "torch-export"])
def test_where_an_image_may_have_several_labels_each_has_its_own_score(
    digits_run, tmp_path, format, monkeypatch, capsys
):
    several = tmp_path / "several"
    shutil.copytree(digits_run[0], several, ignore=shutil.ignore_patterns("checkpoint-*"))
    config = ViTScratchConfig.from_pretrained(several)
    config.problem_type = "multi_label_classification"
    config.save_pretrained(several)
    assert vit_scratch("export", several, tmp_path / "out", f"--format={format}").status == 0
    monkeypatch.chdir(tmp_path / "out")
    image = several / "sample.png"
    exec(loader_of(tmp_path / "out").replace("photo.jpg", str(image)), {})
    assert_as_predicted(capsys.readouterr().out, several, [image])


def test_it_is_a_few_lines(onnx_folder):
    assert len([line for line in loader_of(onnx_folder).splitlines() if line]) <= 26


@pytest.mark.parametrize(
    "settings",
    [
        {"size": {"height": 24, "width": 35}},
        {"size": 24, "resample": 0},
        CROPPING,
        {"size": {"shortest_edge": 11}, "do_center_crop": True, "crop_size": {"height": 24, "width": 9}},
        {"size": {"height": 24, "width": 35}, "do_normalize": False},
        {"size": {"height": 24, "width": 35}, "do_normalize": False, "do_rescale": False},
        {"size": {"height": 24, "width": 35}, "image_mean": [0.1, 0.2, 0.3], "image_std": [1.0, 2.0, 0.5]},
        {"size": {"height": 24, "width": 35}, "rescale_factor": 0.01, "image_mean": 0.5, "image_std": 0.2},
        {"do_resize": False, "do_center_crop": True, "crop_size": {"height": 40, "width": 9}},
    ],
    ids=str,
)
def test_it_prepares_images_as_the_image_processor_does(settings, photos):
    processor = ViTImageProcessorPil(**settings)
    namespace: dict = {}
    function = re.search(r"def prepare.*?\n\n", TEMPLATE.read_text("utf-8"), re.DOTALL)[0]
    exec(function, {"np": np, "ImageOps": ImageOps}, namespace)
    told = json.loads(json.dumps(loader_settings(processor)))
    for file in photos.iterdir():
        expected = pixel_values(processor, [read_image(str(file))]).float().numpy()
        np.testing.assert_allclose(namespace["prepare"](Image.open(file), told), expected, atol=1e-5)


@pytest.mark.parametrize("name", ["onnx", "torch-export"])
def test_the_documentation_shows_the_loader_of_the_card(digits_exports, name):
    folder = digits_exports[0][name]
    file = exporting.FORMATS[name]
    there = loader_of(folder).replace(f'"{file}"', f'"outputs/{folder.name}/{file}"')
    assert f"```python\n{there.replace('photo.jpg', 'outputs/digits/sample.png')}```" in DOCUMENT.read_text("utf-8")


# --- What the file takes ---------------------------------------------------------------------------------------------


def test_batches_and_images_may_be_of_any_size(session, digits_run):
    model, _, _ = load_checkpoint(str(digits_run[0]))
    assert session.get_inputs()[0].shape == ["batch", 3, "2*rows", "2*columns"]
    for shape in ((1, 3, 8, 8), (5, 3, 8, 8), (2, 3, 22, 10), (3, 3, 4, 6)):
        images = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        logits = session.run(["logits"], {"pixel_values": images.numpy()})[0]
        expected = model(images, interpolate_pos_encoding=True).logits.detach().numpy()
        np.testing.assert_allclose(logits, expected, atol=1e-4)


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """A model with a program of torch that was made of it where there is no ONNX, its folder, and what was printed."""
    folder = tmp_path_factory.mktemp("program")
    model = tiny(folder / "ours", ViTImageProcessorPil(**CROPPING), position_embedding_type="sincos2d")
    (folder / "ours" / "README.md").write_text("---\nbase_model: someone/vit\n---\n", encoding="utf-8")
    licensed(folder / "ours")
    with pytest.MonkeyPatch.context() as patch:
        for name in onnx_file.NEEDED:
            patch.setitem(sys.modules, name, None)  # importing it fails
        result = vit_scratch("export", folder / "ours", folder / "out", "--format=torch-export")
    assert (result.status, result.err) == (0, "")
    return model, folder / "out", result


def test_also_in_a_program_of_torch_which_needs_no_onnx(program):
    model, folder, result = program
    assert result.lines[1] == (
        "images     any height that is a multiple of 6 and any width that is a multiple of 7, from 12x14 pixels "
        "(height x width) on; images are prepared at 24x35"
    )
    module = torch.export.load(folder / "model.pt2").module()
    for shape in ((1, 3, 24, 35), (3, 3, 12, 70)):
        images = torch.randn(shape)
        torch.testing.assert_close(module(images), model(images, interpolate_pos_encoding=True).logits)


def test_models_whose_positions_are_for_another_size_than_their_images(tmp_path):
    processor = ViTImageProcessorPil(size={"height": 30, "width": 28})
    tiny(tmp_path / "ours", processor, interpolate_pos_encoding=True)
    result = vit_scratch("export", tmp_path / "ours", tmp_path / "out", "--format=torch-export")
    assert result.lines[1].endswith("images are prepared at 30x28")
    tiny(tmp_path / "strict", processor)
    line = refused("export", tmp_path / "strict", tmp_path / "other", "--format=torch-export")
    assert "the images are 30x28 pixels (height x width) and the model is for 24x35" in line


def test_where_patches_are_merged_the_size_is_fixed_and_that_is_said(tmp_path):
    model = tiny(tmp_path / "ours", num_hidden_layers=2)
    result = vit_scratch("export", tmp_path / "ours", tmp_path / "out", "--format=torch-export", "--token-merging=3")
    only = "only 24x35 pixels (height x width), no other size"
    assert result.lines[1] == f"images     {only}: how many patches token merging leaves is counted at the export"
    program = torch.export.load(tmp_path / "out" / "model.pt2").module()
    images = torch.randn(5, 3, 24, 35)
    merging, _, _ = load_checkpoint(str(tmp_path / "ours"), token_merging=3)
    torch.testing.assert_close(program(images), merging(images).logits)
    assert (program(images) - model(images).logits).abs().max() > 1e-3


def test_models_of_transformers_go_out_at_their_own_size(tmp_path):
    config = transformers.ViTConfig(
        hidden_size=24, num_hidden_layers=1, num_attention_heads=3, intermediate_size=40, image_size=12, patch_size=4,
        id2label=LABELS, label2id={},
    )  # fmt: skip
    torch.manual_seed(0)
    theirs = transformers.ViTForImageClassification(config).eval()
    theirs.save_pretrained(tmp_path / "theirs")
    ViTImageProcessorPil(size={"height": 12, "width": 12}).save_pretrained(tmp_path / "theirs")
    result = vit_scratch("export", tmp_path / "theirs", tmp_path / "out", "--format=onnx")
    assert (result.status, result.err) == (0, "")
    assert result.lines[1] == (
        "images     only 12x12 pixels (height x width), no other size: models of type vit are exported as they are; "
        "those of vit-scratch take any size"
    )
    images = torch.randn(5, 3, 12, 12)
    logits = onnxruntime.InferenceSession(tmp_path / "out" / "model.onnx").run(None, {"pixel_values": images.numpy()})
    np.testing.assert_allclose(logits[0], theirs(images).logits.detach().numpy(), atol=1e-4)


# --- What travels in it ----------------------------------------------------------------------------------------------


def test_labels_and_preprocessing_are_inside(session, digits_run):
    about = session.get_modelmeta().custom_metadata_map
    assert json.loads(about["id2label"]) == {str(digit): str(digit) for digit in range(10)}
    told, own = json.loads(about["preprocessor_config"]), digits_run[0] / "preprocessor_config.json"
    saved = json.loads(own.read_text("utf-8"))
    shared = ("do_resize", "do_rescale", "do_normalize", "image_mean", "image_std", "resample", "rescale_factor")
    assert {name: told[name] for name in shared} == {name: saved[name] for name in shared}
    assert about["source"] == digits_run[0].name


@pytest.mark.parametrize("name", ["onnx", "torch-export"])
def test_no_path_of_this_machine_is(digits_exports, digits_run, name):
    for file in digits_exports[0][name].iterdir():
        content = file.read_bytes()
        for path in (str(digits_run[0].parent), str(Path(torch.__file__).parent), "modeling_vit_scratch.py"):
            assert path.encode() not in content, (file.name, path)


def test_the_file_is_valid_onnx(onnx_folder):
    onnx.checker.check_model(onnx.load(onnx_folder / "model.onnx"), full_check=True)


def test_the_folder_has_the_file_and_a_card(digits_exports):
    for name, folder in digits_exports[0].items():
        assert {path.name for path in folder.iterdir()} == {exporting.FORMATS[name], "README.md"}


def test_what_was_done_is_said_a_line_each(digits_exports, digits_run):
    lines = digits_exports[1]["onnx"].lines
    assert [line[:11].strip() for line in lines] == ["read", "images", "prepared", "checked", "written"]
    assert lines[0].startswith(f"read       {digits_run[0]}, an image classifier of type vit_scratch with ")
    assert re.search(
        r"are within \d\.\de-0[678] of those of the checkpoint in torch, on random images of 8x8, ", lines[3]
    )
    assert re.search(r"model\.onnx \(\d+ kB\) and README\.md", lines[4])


def test_the_card_says_what_the_command_said(digits_exports, digits_run):
    for name, folder in digits_exports[0].items():
        card = ModelCard.load(folder / "README.md")
        assert card.data.library_name == ("onnx" if name == "onnx" else "pytorch")
        assert card.data.pipeline_tag == "image-classification"
        assert card.data.base_model is None  # the checkpoint is a folder of this machine
        text = " ".join(card.text.split()).lower()
        for line in digits_exports[1][name].lines[1:4]:
            assert line[11:].lower() in text, line
        assert "| 7 | 7 |" in card.text
        assert str(digits_run[0].parent) not in card.text


def test_it_keeps_the_license_and_the_base_model_that_the_checkpoint_has(program):
    card = ModelCard.load(program[1] / "README.md")
    assert terms(program[1]) == TERMS
    assert card.data.base_model == "someone/vit"
    assert r"| 2 | hot \*dog\* |" in card.text


# --- 8-bit integers --------------------------------------------------------------------------------------------------


def test_what_integers_cost_is_measured_on_images_and_written_down(digits_run, tmp_path):
    result = vit_scratch(
        "export", digits_run[0], tmp_path / "out", "--format=onnx-int8", "--calibrate=digits", "--calibrate-images=50"
    )
    assert (result.status, result.err) == (0, "")
    line = next(line for line in result.lines if line.startswith("int8 "))
    found = re.fullmatch(
        r"int8       the same label as fp32 for (\S+)% of 50 of the 360 images of the test split of digits; "
        r"accuracy (\S+)% in fp32, (\S+)% in int8 \((\S+) points\)",
        line,
    )
    agreement, exact, rounded, change = map(float, found.groups())
    assert agreement > 90
    assert 0 < exact < 100
    assert rounded - exact == pytest.approx(change, abs=0.02)
    assert line[11:] in (tmp_path / "out" / "README.md").read_text("utf-8")
    model = onnx.load(tmp_path / "out" / "model.onnx")
    products = [node for node in model.graph.node if node.op_type == "MatMulInteger"]
    assert len(products) == 5  # four in the block, and the head
    weights = [onnx.numpy_helper.to_array(item) for item in model.graph.initializer if item.data_type == 3]
    assert max(np.abs(weight).max() for weight in weights if weight.ndim == 2) <= 64  # 7 bits
    session = onnxruntime.InferenceSession(tmp_path / "out" / "model.onnx")
    assert session.get_inputs()[0].shape == ["batch", 3, "2*rows", "2*columns"]
    assert "id2label" in session.get_modelmeta().custom_metadata_map


def test_weights_that_no_one_file_can_hold_lie_beside_it(tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_file, "MOST_INSIDE", 1000)
    model = tiny(tmp_path / "ours", **EVERYTHING)
    result = vit_scratch("export", tmp_path / "ours", tmp_path / "out", "--format=onnx-int8")
    assert (result.status, result.err) == (0, "")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"model.onnx", "model.onnx.data", "README.md"}
    assert "note       what the integers cost on images was not measured: --calibrate DATA does that" in result.lines
    assert "beside which `model.onnx.data` must lie" in (tmp_path / "out" / "README.md").read_text("utf-8")
    images = torch.randn(2, 3, 36, 28)
    logits = onnxruntime.InferenceSession(tmp_path / "out" / "model.onnx").run(None, {"pixel_values": images.numpy()})
    expected = model(images, interpolate_pos_encoding=True).logits.detach()
    assert 0 < (torch.from_numpy(logits[0]) - expected).abs().mean() / expected.std() < 0.2


@pytest.fixture
def rounding(tmp_path):
    """A classifier with an export of it that is wrong on every image brighter than grey, and its labels."""
    tiny(tmp_path / "ours")
    model, processor, label_names = load_checkpoint(str(tmp_path / "ours"))

    def run(images):
        logits = model(images).logits
        return -logits if images.mean() > 0 else logits

    return model, run, processor, label_names


def test_images_without_labels_tell_the_agreement_alone(rounding, tmp_path):
    *export, label_names = rounding
    (tmp_path / "images").mkdir()
    for index, grey in enumerate((0, 10, 20, 250)):
        Image.new("RGB", (9, 9), (grey,) * 3).save(tmp_path / "images" / f"{index}.png")
    dataset, where = Calibration(str(tmp_path / "images")).load(label_names)
    assert str(measure(*export, dataset, where)) == (
        "the same label as fp32 for 75.00% of 4 images of images; they have no labels, so the accuracy is unknown"
    )


def test_with_labels_the_change_of_the_accuracy_is_told_too(rounding, tmp_path):
    *export, label_names = rounding
    data = classes_of_pictures(tmp_path / "pets", images=4)
    (data / "hot dog").rename(data / LABELS[2])
    (data / "cat" / "000.png").write_bytes(b"no image")
    dataset, where = Calibration(str(data), images=6).load(label_names)
    assert where == "6 of the 12 images of pets"
    measured = measure(*export, dataset, where)
    assert measured.images == 5
    assert measured.left_out == [f"{data}/cat/000.png is empty, or of no known image format."]
    exact, rounded = measured.accuracies
    assert f"(5 of them could be read); accuracy {exact:.2%} in fp32, {rounded:.2%} in int8 (" in str(measured)
    with pytest.raises(ValueError, match="has labels that are not among the 3 classes"):
        Calibration(str(data)).load(["cat", "dog", "mouse"])


# --- Refused ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--format=onnx", "--calibrate=digits"], "--calibrate is for the format onnx-int8: onnx does not round."),
        (["--format=timm", "--calibrate=digits"], "--calibrate is for the format onnx-int8: timm does not round."),
        (["--format=onnx", "--config-overrides=a=1"], "--config_overrides is for the formats transformers and timm."),
        (["--format=timm", "--token-merging=2"], "--token_merging is for the formats onnx, onnx-int8, torch-export."),
        (["--format=onnx-int8", "--split=test"], "--split is about the images of --calibrate DATA, which is missing."),
        (
            ["--format=onnx-int8", "--data_config_name=x"],
            "--data_config_name is about the images of --calibrate DATA, which is missing.",
        ),
        (["--format=onnx-int8", "--calibrate=nowhere"], "there is no folder or file nowhere"),
        (["--format=onnx-int8", "--calibrate=digits"], "the test split of digits has labels that are not among"),
        (["--format=torch-export", "--token-merging=-1"], "must be a whole number from 0 on, got '-1'"),
    ],
)
def test_what_does_not_go_together_is_refused_in_one_line(flags, said, tmp_path, monkeypatch):
    tiny(tmp_path / "ours")
    monkeypatch.chdir(tmp_path)
    before = contents(tmp_path)
    assert said in refused("export", "ours", "out", *flags)
    assert contents(tmp_path) == before


def test_without_its_packages_onnx_is_refused_with_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_file, "NEEDED", ("onnx_that_nobody_has",))
    line = refused("export", "ours", tmp_path / "out", "--format=onnx")
    assert line == "vit-scratch export: --format onnx needs onnx_that_nobody_has: pip install 'vit-scratch[onnx]'."


def test_what_is_no_classifier_of_images_in_colour_is_refused(tmp_path):
    tiny(tmp_path / "body", task=ViTScratchModel)
    assert "is no image classifier" in refused("export", tmp_path / "body", tmp_path / "out", "--format=onnx")
    tiny(tmp_path / "grey", num_channels=1)
    line = refused("export", tmp_path / "grey", tmp_path / "out", "--format=onnx")
    assert line.endswith("grey is for images of 1 channels; only those in colour are exported.")


@pytest.mark.parametrize(
    "processor",
    [
        ConvNextImageProcessorPil(size={"shortest_edge": 24}, crop_pct=0.9),
        ViTImageProcessorPil(size={"shortest_edge": 24, "longest_edge": 35}),
        ViTImageProcessorPil(size={"height": 24, "width": 35}, do_pad=True, pad_size={"height": 24, "width": 35}),
    ],
    ids=["crop_pct", "longest_edge", "pad"],
)
def test_images_that_are_prepared_otherwise_are_refused(tmp_path, processor):
    tiny(tmp_path / "ours", processor)
    line = refused("export", tmp_path / "ours", tmp_path / "out", "--format=torch-export")
    assert "does more than resize to a size, crop, rescale and normalise" in line


def test_a_file_that_computes_something_else_is_not_written(tmp_path, monkeypatch):
    tiny(tmp_path / "ours")
    before = contents(tmp_path)
    monkeypatch.setattr(exporting, "runner", lambda file: lambda images: torch.full((len(images), 3), torch.nan))
    line = refused("export", tmp_path / "ours", tmp_path / "new" / "out", "--format=torch-export")
    assert "what was exported does not compute what the checkpoint does, and was not written" in line
    assert contents(tmp_path) == before
