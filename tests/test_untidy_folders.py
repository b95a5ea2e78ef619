# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""Folders as people have them: what lies there is read, whatever its name, or it is said that it is not, and why."""

import io
import json
import os
import shutil
import unicodedata

import pillow_heif
import pytest
from datasets import Dataset, Features, Value
from datasets import Image as ImageFeature
from pictures import noise
from PIL import Image
from runs import SMALL, refused, vit_scratch

from modeling_vit_scratch.data import images
from modeling_vit_scratch.data.dataset_loading import load_images
from modeling_vit_scratch.data.image_files import images_in, not_read
from modeling_vit_scratch.data.images import read_image
from modeling_vit_scratch.data.streaming import stream_images
from modeling_vit_scratch.inspection.explaining import _index_of
from modeling_vit_scratch.training.starting import build_model
from modeling_vit_scratch.training.training_arguments import ModelArguments

HEIC = 'HEIC, which is read after pip install "vit-scratch[heif]"'


def pets(root, number: int = 10, classes: tuple[str, ...] = ("cat", "dog")):
    for label, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for index in range(number):
            noise(seed=100 * label + index).save(root / name / f"{index}.png")
    return root


def heic(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    pillow_heif.from_pillow(noise(seed=7)).save(path)
    return path


def train(data, output, *flags):
    return vit_scratch(
        "train", "digits", *SMALL, f"--data={data}", f"--output_dir={output}", "--num_train_epochs=1", *flags
    )


@pytest.fixture
def without_heif(monkeypatch):
    """Pillow as it is without the plugin."""
    images.formats_read.cache_clear()
    for table in (Image.OPEN, Image.EXTENSION, Image.MIME):
        monkeypatch.delitem(table, "HEIF", raising=False)
    monkeypatch.setattr(Image, "ID", [name for name in Image.ID if name != "HEIF"])
    monkeypatch.setattr(images.importlib.util, "find_spec", lambda name: None)
    yield
    images.formats_read.cache_clear()


# --- Which files are images ------------------------------------------------------------------------------------------


def test_what_pillow_opens_is_read_whatever_its_name(tmp_path):
    root = pets(tmp_path / "pets", 2)
    heic(root / "cat" / "IMG_1.HEIC")
    noise(seed=1).save(root / "cat" / "scan", "PNG")
    noise(seed=2).save(root / "dog" / "holiday.picture", "JPEG")
    found = [path.name for path in images_in(root)]
    assert found == ["0.png", "1.png", "IMG_1.HEIC", "scan", "0.png", "1.png", "holiday.picture"]
    assert all(read_image(path).size for path in images_in(root))
    assert load_images(str(root))["train"].num_rows == 7


def test_training_evaluation_and_prediction_account_for_every_file(tmp_path, without_heif):
    root = pets(tmp_path / "pets")
    heic(root / "cat" / "IMG_1.HEIC")
    (root / "dog" / "drawing.eps").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\nshowpage\n")
    (root / "dog" / "noise").write_bytes(bytes(range(64)))
    (root / "dog" / "notes.txt").write_text("which dogs these are", encoding="utf-8")
    noise(seed=3).save(root / "cat" / "scan", "PNG")
    said = [f"cat/IMG_1.HEIC ({HEIC})", "dog/drawing.eps (EPS, a program, which is not run)"]
    said += ["dog/noise (of no known image format)", f"3 files in {root} not read"]
    trained = train(root, tmp_path / "run")
    evaluated = vit_scratch("evaluate", tmp_path / "run", root)
    predicted = vit_scratch("predict", tmp_path / "run", root)
    for result, status in ((trained, 0), (evaluated, 1), (predicted, 1)):
        assert result.status == status, result.err
        assert all(text in result.err for text in said), result.err
        assert "notes.txt" not in result.err
        assert result.err.count("not read") == 1
    assert len(predicted.lines) == 21
    assert "21 images" in evaluated.out


def test_a_folder_of_heic_alone_says_what_is_missing(tmp_path, without_heif):
    for label in ("cat", "dog"):
        heic(tmp_path / label / "IMG_1.HEIC")
    assert f"cat/IMG_1.HEIC, dog/IMG_1.HEIC ({HEIC})" in refused(
        "train", "digits", f"--data={tmp_path}", f"--output_dir={tmp_path}-out"
    )


def test_nobody_waits_for_a_pipe_or_misses_what_systems_leave(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name in ("Thumbs.db", ".DS_Store", "metadata.csv"):
        (tmp_path / name).write_bytes(bytes(100))
    others: list = []
    assert list(images_in(tmp_path, others)) == []
    assert not_read(others, tmp_path) == f"1 file in {tmp_path} not read: pipe (of no known image format)"


def test_when_no_image_can_be_read_one_is_named_with_its_reason(tmp_path):
    root = pets(tmp_path / "pets", 1)
    for path in images_in(root):
        path.write_bytes(path.read_bytes()[:50])
    line = refused("train", "digits", f"--data={root}", f"--output_dir={tmp_path / 'out'}")
    assert "none of the 2 images of the train split can be read: " in line
    assert f"{root / 'cat' / '0.png'} cannot be read: it is corrupt or truncated" in line


def test_a_folder_without_images_is_skipped_by_name(digits_run, tmp_path):
    for name in ("a.png", "b.png"):
        noise(seed=1).save(tmp_path / name)
    (tmp_path / "empty").mkdir()
    result = vit_scratch("predict", digits_run[0], tmp_path / "a.png", tmp_path / "empty", tmp_path / "b.png")
    assert result.status == 1
    assert [line.split("\t")[0] for line in result.lines] == [str(tmp_path / "a.png"), str(tmp_path / "b.png")]
    assert f"skipped: the folder {tmp_path / 'empty'} holds no images." in result.err
    table = tmp_path / "table.csv"
    result = vit_scratch("predict", digits_run[0], tmp_path / "a.png", tmp_path / "empty", "--output", table)
    assert (result.status, table.exists()) == (1, True)
    assert "holds no images" in result.err
    assert "holds no images" in refused("predict", digits_run[0], tmp_path / "empty")
    assert "there is no image or folder" in refused("predict", digits_run[0], tmp_path / "a.png", tmp_path / "none")


def test_a_damaged_parquet_file_is_skipped_by_name(digits_run, tmp_path):
    noise(seed=1).save(tmp_path / "a.png")
    (tmp_path / "cut.parquet").write_bytes(b"PAR1 and no more")
    result = vit_scratch("predict", digits_run[0], tmp_path / "cut.parquet", tmp_path / "a.png")
    assert (result.status, len(result.lines)) == (1, 1)
    assert f"skipped: {tmp_path / 'cut.parquet'} is no parquet file that can be read: " in result.err
    assert "cut.parquet is no parquet file" in refused("predict", digits_run[0], tmp_path / "cut.parquet")


def test_every_file_that_is_not_read_has_a_row_beside_the_table(digits_run, tmp_path):
    root = pets(tmp_path / "pets", 1)
    for number in range(7):
        (root / "cat" / f"{number}.svg").write_text("<svg/>", encoding="utf-8")
    (tmp_path / "empty").mkdir()
    Dataset.from_dict({"text": ["a"]}).to_parquet(tmp_path / "texts.parquet")
    names = [root, tmp_path / "empty", tmp_path / "texts.parquet"]
    result = vit_scratch("predict", digits_run[0], *names, "--output", tmp_path / "table.csv")
    assert (result.status, "2 images written" in result.out, "9 skipped" in result.out) == (1, True, True)
    rows = (tmp_path / "table.csv.skipped.csv").read_text(encoding="utf-8").splitlines()[1:]
    assert len(rows) == 9
    assert f"{root}/cat/6.svg,{root}/cat/6.svg is " in rows[6].replace('"', "")


def test_evaluation_ends_with_a_status_of_its_own_where_files_were_not_read(digits_run, tmp_path):
    root = pets(tmp_path / "pets", 2, ("0", "1"))
    assert vit_scratch("evaluate", digits_run[0], root).status == 0
    (root / "0" / "a.svg").write_text("<svg/>", encoding="utf-8")
    assert vit_scratch("evaluate", digits_run[0], root).status == 1


def test_a_plugin_that_cannot_be_imported_is_said_and_leaves_other_images_alone(monkeypatch, tmp_path, caplog):
    monkeypatch.setattr(pillow_heif, "register_heif_opener", None)
    images.formats_read.cache_clear()
    try:
        noise(seed=1).save(tmp_path / "a.png")
        assert read_image(str(tmp_path / "a.png")).size == noise(seed=1).size
        assert "pillow-heif is installed and cannot be used (" in caplog.text
    finally:
        images.formats_read.cache_clear()


def test_an_empty_name_is_not_the_current_folder(digits_run):
    assert "there is no image or folder ''." in refused("predict", digits_run[0], "")


def test_two_class_folders_of_one_name_in_two_forms_are_refused(tmp_path):
    names = [unicodedata.normalize(form, "café") for form in ("NFC", "NFD")]
    pets(tmp_path, 1, (*names, "dog"))
    with pytest.raises(ValueError, match="has two folders café, which differ in the Unicode form of their names"):
        load_images(str(tmp_path))


def accounts(root, run, output, sentence: str, images: int):
    """Train on, score and predict a folder: each says the sentence once, and sees as many images."""
    trained, scored = train(root, output), vit_scratch("evaluate", run, root)
    predicted = vit_scratch("predict", run, root)
    for result in (trained, scored, predicted):
        assert result.err.count(sentence) == 1, result.err
    assert (trained.status, scored.status, predicted.status) == (0, 1, 1)
    assert f"all {images} images" in scored.out
    assert len(predicted.lines) == images


@pytest.fixture(scope="module")
def pets_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pets")
    assert train(pets(folder / "pets"), folder / "run").status == 0
    return folder / "run"


def test_heic_says_what_is_missing_whatever_its_name_and_wherever_it_lies(pets_run, tmp_path, without_heif):
    named, renamed = heic(tmp_path / "a.HEIC"), tmp_path / "b.jpg"
    shutil.copy(named, renamed)
    result = vit_scratch("predict", pets_run, named, renamed)
    assert result.status == 1
    assert f"skipped: {named} is {HEIC}." in result.err
    assert f"skipped: {renamed} is {HEIC}." in result.err
    with pytest.raises(images.BadImageError, match="row 3 is HEIC, which is read after pip install"):
        read_image({"bytes": named.read_bytes(), "path": "row 3"})


def test_no_extra_is_asked_for_that_is_installed(tmp_path):
    (tmp_path / "a.heic").write_bytes(heic(tmp_path / "whole.heic").read_bytes()[:40])
    with pytest.raises(images.BadImageError) as raised:
        read_image(tmp_path / "a.heic")
    assert "pip install" not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("cat/a.svg", b"<?xml version='1.0'?>\n<svg width='9' height='9'/>\n", "SVG, a drawing, which has no pixels"),
        ("cat/a.pdf", b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n1 0 obj\n<<>>\nendobj\n", "PDF, a document"),
        ("cat/a.parquet", b"PAR1" + bytes(60), "a parquet file, to be given by itself"),
        ("a.bin", bytes(99), "of no known image format"),
    ],
    ids=["svg", "pdf", "parquet", "beside classes"],
)
def test_each_kind_of_file_is_said_alike_by_every_verb(name, content, reason, pets_run, tmp_path):
    root = pets(tmp_path / "pets")
    (root / name).write_bytes(content)
    accounts(root, pets_run, tmp_path / "out", f"1 file in {root} not read: {name} ({reason})", 20)


def test_class_folders_that_are_links_are_read_by_every_verb(pets_run, tmp_path):
    root = pets(tmp_path / "pets")
    (root / "dog").rename(tmp_path / "elsewhere")
    (root / "dog").symlink_to(tmp_path / "elsewhere")
    assert load_images(str(root))["train"].num_rows == 20
    assert len(vit_scratch("predict", pets_run, root).lines) == 20


def test_a_link_beside_images_is_said(pets_run, tmp_path):
    root = pets(tmp_path / "pets")
    (root / "cat" / "more").symlink_to(root / "dog")
    said = f"1 folder in {root} not read: cat/more (a link to a folder, not followed)"
    accounts(root, pets_run, tmp_path / "out", said, 20)


def test_links_in_a_circle_end(tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    noise(seed=1).save(pets(one, 0).joinpath("cat", "0.png"))
    other.mkdir()
    (one / "dog" / "up").symlink_to(one)
    (one / "dog" / "other").symlink_to(other)
    (other / "back").symlink_to(one)
    others: list = []
    assert list(images_in(one, others)) == [one / "cat" / "0.png"]
    assert others == [one / "dog" / "other" / "back", one / "dog" / "up"]


def test_a_folder_that_cannot_be_opened_is_said(tmp_path, monkeypatch):
    root, scandir = pets(tmp_path, 1), os.scandir

    def closed(path):
        if str(path).endswith("dog"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", closed)
    others: list = []
    assert list(images_in(root, others)) == [root / "cat" / "0.png"]
    assert not_read(others, root) == f"1 folder in {root} not read: dog (a folder that cannot be opened)"


def test_what_lies_beside_the_folders_of_splits_is_said(tmp_path, caplog, without_heif):
    for split in ("train", "test"):
        pets(tmp_path / split, 1)
    heic(tmp_path / "s.HEIC")
    noise(seed=1).save(tmp_path / "s.png")
    assert load_images(str(tmp_path))["train"].num_rows == 2
    assert f"1 file in {tmp_path} not read: s.HEIC ({HEIC})." in caplog.text
    assert "images beside the folders of its splits, which are not used: s.png." in caplog.text


def test_class_folders_beside_files_of_many_images_are_refused(tmp_path):
    root = pets(tmp_path / "pets", 2)
    rows = [{"bytes": path.read_bytes(), "path": None} for path in images_in(root)]
    Dataset.from_dict({"image": rows, "label": [0, 0, 1, 1]}).to_parquet(root / "x.parquet")
    with pytest.raises(ValueError, match=r"holds folders of images \(cat, dog\) and files of many: move one kind away"):
        load_images(str(root))


# --- Which split, and which data -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("one", "other"), [("val", "valid"), ("test", "testing"), ("train", "training")])
def test_two_names_of_a_split_are_refused(one, other, tmp_path):
    for split in {"train", one, other}:
        pets(tmp_path / split, 1)
    line = refused("train", "digits", f"--data={tmp_path}", f"--output_dir={tmp_path}-out")
    assert "which are both names of the" in line
    assert {one, other} <= set(line.replace(",", "").split())


def test_split_folders_that_differ_in_their_letters_are_refused(tmp_path):
    for split in ("train", "val", "Val"):
        pets(tmp_path / split, 1)
    assert "Val and val, which name the same split" in refused(
        "train", "digits", f"--data={tmp_path}", f"--output_dir={tmp_path}-out"
    )


def test_folders_beside_the_splits_are_said(tmp_path, caplog):
    for split in ("train", "test", "rejected"):
        pets(tmp_path / split, 1)
    assert set(load_images(str(tmp_path))) == {"train", "test"}
    assert f"{tmp_path} has folders that are not used: rejected." in caplog.text


def test_a_folder_named_digits_is_not_taken_for_those_of_scikit_learn(tmp_path, monkeypatch):
    pets(tmp_path / "digits", 1)
    monkeypatch.chdir(tmp_path)
    assert "give ./digits for the folder" in refused("train", "digits", "--data=digits", "--output_dir=out")
    assert load_images("./digits")["train"].num_rows == 2


def test_a_run_named_digits_goes_on_with_those_of_scikit_learn(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert train("digits", "digits", "--max_steps=1").status == 0
    assert train("digits", "digits", "--max_steps=1", "--overwrite_output_dir").status == 0


# --- Labels in a table -----------------------------------------------------------------------------------------------


def with_table(root, labels, kind: str = "csv", column: str = "label"):
    rows = [{"file_name": name, column: label} for name, label in labels.items()]
    if kind == "csv":
        lines = [f"file_name,{column}", *(f"{row['file_name']},{row[column]}" for row in rows)]
    else:
        lines = [json.dumps(row) for row in rows]
    (root / f"metadata.{kind}").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return root


def labels_by_file(dataset):
    names = dataset.features["label"].names
    return {row["image"]["path"].rpartition("/")[2]: names[row["label"]] for row in dataset}


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
@pytest.mark.parametrize("labels", [["cat", "dog", "cat"], [7, 10, 7]], ids=str)
def test_a_table_says_which_label_an_image_has(kind, labels, tmp_path, caplog):
    (tmp_path / "imgs").mkdir()
    for index in range(3):
        noise(seed=index).save(tmp_path / "imgs" / f"{index}.png")
    with_table(tmp_path, {f"imgs/{index}.png": label for index, label in enumerate(labels)}, kind)
    train = load_images(str(tmp_path))["train"]
    assert labels_by_file(train) == {f"{index}.png": str(label) for index, label in enumerate(labels)}
    assert train.features["label"].names == [str(label) for label in sorted(set(labels))]
    assert f"the labels of the images in {tmp_path} are those of {tmp_path / f'metadata.{kind}'}" in caplog.text


def test_a_table_of_each_split_is_read(tmp_path):
    for split, labels in (("train", ["cat", "dog"]), ("test", ["dog", "cat"])):
        (tmp_path / split).mkdir()
        for index in range(2):
            noise(seed=index).save(tmp_path / split / f"{index}.png")
        with_table(tmp_path / split, {f"{index}.png": label for index, label in enumerate(labels)})
    splits = load_images(str(tmp_path))
    assert labels_by_file(splits["train"]) == {"0.png": "cat", "1.png": "dog"}
    assert labels_by_file(splits["test"]) == {"0.png": "dog", "1.png": "cat"}


def test_splits_without_labels_and_other_folders_beside_tables_are_named(tmp_path, caplog):
    for folder in ("train", "test", "spare"):
        (tmp_path / folder).mkdir()
        for index in range(2):
            noise(seed=index).save(tmp_path / folder / f"{index}.png")
    with_table(tmp_path / "train", {"0.png": "cat", "1.png": "dog"})
    assert list(load_images(str(tmp_path))) == ["train"]
    assert f"{tmp_path} has folders that are not used: spare, test (no labels)." in caplog.text
    noise(seed=1).save(tmp_path / "train" / "2.png")
    with_table(tmp_path / "spare", {"0.png": "cat", "1.png": "dog"})
    assert list(load_images(str(tmp_path))) == ["train"]
    assert "left out 1 image" in caplog.text
    (tmp_path / "train" / "metadata.csv").unlink()
    with pytest.raises(ValueError, match=r"none of the images in .*train has a row in a table of labels"):
        load_images(str(tmp_path))


def test_folders_and_a_table_that_disagree_are_refused(tmp_path):
    root = pets(tmp_path / "pets", 1)
    with_table(root, {"cat/0.png": "dog", "dog/0.png": "cat"})
    line = refused("train", "digits", f"--data={root}", f"--output_dir={tmp_path / 'out'}")
    assert f"{root / 'cat' / '0.png'} lies in the folder cat, and {root / 'metadata.csv'} says that it is dog" in line
    with_table(root, {"cat/0.png": "cat", "dog/0.png": "dog"})
    assert labels_by_file(load_images(str(root))["train"]) == {"0.png": "dog"}  # of each folder one


@pytest.mark.parametrize(
    ("labels", "sentence"),
    [
        ({"0.png": "cat", "none.png": "dog"}, "has rows for files that are not there: none.png"),
        ({"0.png": "cat", "1.png": ""}, "has no label for 1.png"),
        ({"0.png": "cat", "": "dog"}, "has a row without a file_name"),
        ({"0.png": "cat", "./0.png": "dog"}, "has two labels for ./0.png, cat and dog: keep one"),
    ],
    ids=str,
)
def test_a_table_that_does_not_fit_is_refused(labels, sentence, tmp_path):
    for index in range(2):
        noise(seed=index).save(tmp_path / f"{index}.png")
    with pytest.raises(ValueError, match=sentence):
        load_images(str(with_table(tmp_path, labels)))


def test_a_table_without_rows_or_in_another_encoding_is_named(tmp_path, caplog):
    root = pets(tmp_path / "pets", 1)
    (root / "metadata.csv").write_text("file_name,label\n", encoding="utf-8")
    assert load_images(str(root))["train"].num_rows == 2
    assert f"{root / 'metadata.csv'} is not used: it has no rows." in caplog.text
    (root / "metadata.csv").write_bytes("file_name,label\ncat/0.png,käse\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"metadata.csv is not in UTF-8: save it so"):
        load_images(str(root))
    (root / "metadata.csv").unlink()
    (root / "metadata.jsonl").write_text('{"file_name": "cat/0.png", "label": "cat"}\n{"file', encoding="utf-8")
    with pytest.raises(ValueError, match=r"metadata.jsonl cannot be read: line 2 is no JSON object"):
        load_images(str(root))


def test_images_without_a_row_are_counted(tmp_path, caplog):
    for index in range(3):
        noise(seed=index).save(tmp_path / f"{index}.png")
    train = load_images(str(with_table(tmp_path, {"0.png": "cat", "2.png": "dog"})))["train"]
    assert train.num_rows == 2
    assert f"left out 1 image in {tmp_path} without a label: 1.png." in caplog.text


# --- Names in two Unicode forms --------------------------------------------------------------------------------------


def test_names_are_compared_in_one_form(tmp_path):
    composed, decomposed = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    pets(tmp_path / "train", 3, (composed, "bar"))
    pets(tmp_path / "test", 1, (decomposed, "bar"))
    splits = load_images(str(tmp_path))
    assert splits["test"].features["label"].names == ["bar", composed]
    weights = f"--class_weights={decomposed}=2,bar=1"
    output = f"{tmp_path}-run"
    assert train(tmp_path, output, weights, "--train_val_split=0.3").status == 0
    assert vit_scratch("evaluate", output, tmp_path / "test").status == 0


def test_a_table_names_files_in_either_form(tmp_path):
    composed, decomposed = (unicodedata.normalize(form, "é.png") for form in ("NFC", "NFD"))
    noise(seed=1).save(tmp_path / decomposed)
    noise(seed=2).save(tmp_path / "b.png")
    train = load_images(str(with_table(tmp_path, {composed: "cat", "b.png": "dog"})))["train"]
    assert train.num_rows == 2


# --- What a review of all this found ---------------------------------------------------------------------------------


def flat(root, number: int = 3):
    for index in range(number):
        path = root / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        noise(seed=index).save(path)
    return root


@pytest.mark.parametrize(("one", "other"), [("test", "testing"), ("val", "valid"), ("train", "training")])
@pytest.mark.parametrize("streaming", ["false", "true"])
def test_two_names_of_a_split_are_refused_in_the_names_of_files(one, other, streaming, tmp_path):
    rows = {"image": [{"bytes": b"", "path": None}] * 2, "label": ["cat", "dog"]}
    for split in {"train", one, other}:
        Dataset.from_dict(rows).to_parquet(tmp_path / f"{split}-0.parquet")
    data = f"--data={tmp_path}" if streaming == "false" else f"--data={tmp_path}/*.parquet"
    line = refused("train", "digits", data, f"--output_dir={tmp_path}-out", f"--streaming={streaming}")
    assert "which are both names of the" in line
    assert {one, other} <= set(line.replace(",", "").split())


def test_folders_named_as_labels_are_compared_with_all_labels(tmp_path):
    root = pets(tmp_path / "pets", 1)
    with_table(root, {"cat/0.png": "wolf", "dog/0.png": "dog"})
    with pytest.raises(ValueError, match=r"cat/0.png lies in the folder cat, and .*metadata.* says that it is wolf"):
        load_images(str(root))


def test_the_nearest_table_counts_at_any_depth(tmp_path):
    flat(tmp_path / "imgs")
    with_table(tmp_path / "imgs", {f"{index}.png": label for index, label in enumerate(["cat", "dog", "cat"])})
    assert labels_by_file(load_images(str(tmp_path))["train"]) == {"0.png": "cat", "1.png": "dog", "2.png": "cat"}
    with_table(tmp_path, {"imgs/0.png": "eel"})
    assert load_images(str(tmp_path))["train"].features["label"].names == ["cat", "dog"]


def test_a_table_of_some_class_folders_leaves_the_others_without_labels(tmp_path):
    root = pets(tmp_path / "pets", 1)
    with_table(root / "cat", {"0.png": "dog"})
    with pytest.raises(ValueError, match=r"dog/0.png has no table of labels beside it or above, and other images have"):
        load_images(str(root))


@pytest.mark.parametrize("column", ["caption", "width"])
def test_a_table_of_other_things_is_said_and_not_used(column, tmp_path, caplog):
    root = pets(tmp_path / "pets", 1)
    with_table(root, {"cat/0.png": 3, "dog/0.png": 4}, column=column)
    assert load_images(str(root))["train"].features["label"].names == ["cat", "dog"]
    assert "metadata.csv is not used: it lacks a column of labels (--label_column_name); its columns are" in caplog.text
    named = load_images(str(root), label_column_name=column)["train"]
    assert named.features["label"].names == ["3", "4"]
    (root / "metadata.csv").write_text("id,label\n1,cat\n", encoding="utf-8")
    assert load_images(str(root))["train"].features["label"].names == ["cat", "dog"]
    assert "it lacks one column of file_names" in caplog.text


def test_a_column_of_files_may_say_of_what_they_are(tmp_path):
    flat(tmp_path, 2)
    (tmp_path / "metadata.csv").write_text("image_file_name,label\n0.png,cat\n1.png,dog\n", encoding="utf-8-sig")
    assert labels_by_file(load_images(str(tmp_path))["train"]) == {"0.png": "cat", "1.png": "dog"}


@pytest.mark.parametrize("name", ["../0.png", "/etc/hostname", "https://example.org/0.png", "C:\\0.png"])
def test_a_table_names_files_in_its_own_folder(name, tmp_path):
    flat(tmp_path, 2)
    with pytest.raises(ValueError, match="which does not lie in the folder of the table"):
        load_images(str(with_table(tmp_path, {"0.png": "cat", name: "dog"})))


def test_the_separators_of_windows_do(tmp_path):
    flat(tmp_path / "imgs", 2)
    with_table(tmp_path, {"imgs\\0.png": "cat", "imgs\\1.png": "dog"})
    assert load_images(str(tmp_path))["train"].num_rows == 2


def test_a_folder_in_another_form_is_found_at_any_depth(tmp_path):
    composed, decomposed = (unicodedata.normalize(form, "été") for form in ("NFC", "NFD"))
    flat(tmp_path / decomposed / "sub", 2)
    labels = {f"{composed}/sub/0.png": "cat", f"{composed}/sub/1.png": "dog"}
    assert load_images(str(with_table(tmp_path, labels)))["train"].num_rows == 2
    with_table(tmp_path, {**labels, "nichts-é/9.png": "dog"})
    with pytest.raises(ValueError, match=r"has rows for files that are not there: nichts-é/9.png"):
        load_images(str(tmp_path))


def test_a_label_that_is_missing_is_named_by_its_row(tmp_path):
    flat(tmp_path, 2)
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "0.png", "label": 1}\n{"file_name": "1.png"}\n', "utf-8")
    with pytest.raises(ValueError, match=r"metadata.jsonl has no label for 1.png"):
        load_images(str(tmp_path))
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "0.png", "label": [1, 2]}\n', "utf-8")
    with pytest.raises(ValueError, match=r"has the label \[1, 2\] for 0.png, which is neither a text nor a whole"):
        load_images(str(tmp_path))


@pytest.mark.parametrize("classes", [("bus", "test", "eval"), ("bus", "train", "training")], ids=str)
def test_classes_may_be_named_as_splits_are(classes, tmp_path):
    pets(tmp_path, 1, classes)
    assert load_images(str(tmp_path))["train"].features["label"].names == sorted(classes)


def test_class_folders_beside_a_file_of_many_images_are_refused(tmp_path):
    root = pets(tmp_path / "pets", 1)
    rows = {"image": [{"bytes": b"", "path": None}] * 2, "label": ["wolf", "fox"]}
    Dataset.from_dict(rows).to_parquet(root / "old.parquet")
    line = refused("train", "digits", f"--data={root}", f"--output_dir={tmp_path / 'out'}")
    assert f"{root} holds folders of images (cat, dog) and files of many: move one kind away" in line


def test_labels_of_a_stream_and_of_a_checkpoint_are_compared_in_one_form(tmp_path, digits_run):
    composed, decomposed = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    picture = io.BytesIO()
    noise(seed=1).save(picture, "PNG")
    rows = {"image": [{"bytes": picture.getvalue(), "path": None}] * 3, "label": [composed, decomposed, "bar"]}
    features = Features({"image": ImageFeature(), "label": Value("string")})
    Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "train.parquet")
    stream, _ = stream_images(str(tmp_path / "train.parquet"))
    assert stream.features["label"].names == ["bar", composed]

    assert _index_of(composed, {0: "bar", 1: decomposed}) == 1
    config = json.loads((digits_run[0] / "config.json").read_text(encoding="utf-8"))
    checkpoint = shutil.copytree(digits_run[0], tmp_path / "checkpoint")
    names = {number: f"{name} {decomposed}" for number, name in config["id2label"].items()}
    indices = {name: int(number) for number, name in names.items()}
    (checkpoint / "config.json").write_text(json.dumps({**config, "id2label": names, "label2id": indices}), "utf-8")
    _, _, origin = build_model(ModelArguments(model=str(checkpoint)), [f"{number} {composed}" for number in range(10)])
    assert "new head" not in origin
