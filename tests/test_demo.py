# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""The page: it says what `predict` says, in a real browser, to several users at once, with no internet."""

import asyncio
import csv
import json
import os
import re
import signal
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import httpx
import numpy as np
import pytest
from browser import chromium
from pictures import encoded, noise, oriented
from PIL import Image
from runs import Service, free_port, refused, vit_scratch
from transformers import ViTConfig, ViTForImageClassification
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from modeling_vit_scratch.data.dataset_loading import load_images
from modeling_vit_scratch.data.images import pillow_silent, read_image
from modeling_vit_scratch.demo import demo_page as demo
from modeling_vit_scratch.demo import serving
from modeling_vit_scratch.demo.demo_page import load_answers
from modeling_vit_scratch.inspection.attention import NoAttentionMapError
from modeling_vit_scratch.prediction.classifier import predict


@pytest.fixture(scope="module")
def checkpoint(digits_run):
    return str(digits_run[0])


@pytest.fixture(scope="module")
def answers(checkpoint):
    return load_answers(checkpoint)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    """Digits, odd but good images, and bad ones."""
    folder = tmp_path_factory.mktemp("pictures")
    for index, image in enumerate(load_images("digits")["test"].select(range(4))["image"]):
        (folder / f"digit {index}.png").write_bytes(image["bytes"])
    noise((40, 30), "CMYK").save(folder / "print.jpg")
    noise((30, 50), seed=1).save(folder / "turned.jpg", exif=oriented(6))
    noise((9, 7), "P", seed=2).save(folder / "palette.gif")
    Image.fromarray(np.arange(200, dtype=np.uint16).reshape(10, 20) * 300).save(folder / "scan.tif")
    (folder / "empty.png").write_bytes(b"")
    (folder / "text.png").write_text("no picture")
    (folder / "cut.png").write_bytes(encoded(noise((60, 60)))[:2000])
    return folder


WAIT = 120  # seconds, on a machine that has much else to do
GOOD = ("digit 0.png", "digit 1.png", "print.jpg", "turned.jpg", "palette.gif", "scan.tif")


def upload(file: Path) -> dict:
    """A file as Gradio hands it over."""
    return {"path": str(file), "orig_name": file.name}


@pytest.fixture(autouse=True)
def uploads_folder(tmp_path_factory, monkeypatch) -> Path:
    """What tests write counts as uploaded."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path_factory.getbasetemp()))
    return tmp_path_factory.getbasetemp()


# What it says


@pytest.mark.parametrize("name", GOOD)
def test_the_probabilities_are_those_of_predict(answers, checkpoint, pictures, name):
    message, probabilities, attention, about, seen = answers.look(upload(pictures / name))
    [expected] = predict(checkpoint, [str(pictures / name)], top_k=5)
    assert list(probabilities) == expected.labels
    assert list(probabilities.values()) == pytest.approx(expected.scores, abs=1e-6)
    assert not message.visible
    assert attention.visible
    assert about.visible
    assert seen.label == "What the model sees: 8 × 8 pixels"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("empty.png", "empty.png is empty, or of no known image format."),
        ("text.png", "text.png is empty, or of no known image format."),
        ("cut.png", "cut.png cannot be read: it is corrupt or truncated"),
    ],
)
def test_of_a_bad_image_it_says_what_is_wrong_and_shows_nothing(answers, pictures, name, said):
    message, probabilities, attention, about, seen = answers.look(upload(pictures / name))
    assert message.value.replace("\\", "").startswith(said)
    assert message.visible
    assert str(pictures) not in message.value
    assert probabilities is None
    assert not any(item.visible for item in (attention, about, seen))


def test_an_image_that_is_taken_away_leaves_nothing(answers):
    message, probabilities, *pictures = answers.look(None)
    assert probabilities is None
    assert not message.visible
    assert not any(picture.visible for picture in pictures)


def test_the_pictures_are_of_the_upright_image_and_of_what_the_model_gets(answers, pictures):
    image = read_image(str(pictures / "turned.jpg"))
    attention, seen, notes = answers.pictures(image)
    assert image.size == (50, 30)
    assert attention.size == (400, 240)
    assert seen.size == (8, 8)
    assert notes == []
    digit = read_image(str(pictures / "digit 0.png"))  # of the size that the model wants
    assert answers.pictures(digit)[1].tobytes() == digit.tobytes()


def test_a_name_is_shown_as_it_is(answers, tmp_path):
    (tmp_path / "bad").write_bytes(b"")
    hostile = "*<img src=x onerror=alert(1)>.png"
    message, *_ = answers.look({"path": str(tmp_path / "bad"), "orig_name": f"../{hostile}"})
    assert message.value.startswith(r"\*\<img src=x onerror=alert(1)\>.png is empty")


def test_classes_of_the_same_name_are_told_apart(answers, pictures, monkeypatch):
    monkeypatch.setattr(answers.classifier, "label_names", ["crane"] * 10)
    _, probabilities, *_ = answers.look(upload(pictures / "digit 0.png"))
    assert list(probabilities) == ["crane", "crane (2)", "crane (3)", "crane (4)", "crane (5)"]


def test_the_csv_of_many_images_is_what_predict_writes(answers, checkpoint, pictures, tmp_path, uploads_folder):
    files = [pictures / name for name in GOOD]
    message, table, download = answers.look_at_many([upload(file) for file in files])
    result = vit_scratch("predict", checkpoint, *files, "--top-k=5", "--output", tmp_path / "expected.csv")
    assert result.status == 0
    with (tmp_path / "expected.csv").open(newline="") as one, open(download.value["path"], newline="") as other:
        expected, rows = list(csv.DictReader(one)), list(csv.DictReader(other))
    assert list(rows[0]) == ["file", "rank", "label", "score"]
    assert len(rows) == 5 * len(files)
    for row, wanted in zip(rows, expected, strict=True):
        assert (row["file"], row["rank"], row["label"]) == (Path(wanted["file"]).name, wanted["rank"], wanted["label"])
        assert float(row["score"]) == pytest.approx(float(wanted["score"]), abs=1e-6)
    assert not message.visible
    assert [row[0] for row in table.value["data"]] == list(GOOD)
    assert uploads_folder in Path(download.value["path"]).parents  # with which it is deleted


def test_bad_ones_of_many_are_named_with_the_reason(answers, pictures):
    names = ["empty.png", "digit 1.png", "cut.png", "digit 0.png"]
    message, table, download = answers.look_at_many([upload(pictures / name) for name in names])
    first, second = message.value.split("\n\n")
    assert first == "empty.png is empty, or of no known image format."
    assert second.startswith("cut.png cannot be read")
    assert [row[0] for row in table.value["data"]] == ["digit 1.png", "digit 0.png"]
    assert download.visible
    message, table, download = answers.look_at_many([upload(pictures / "empty.png")])
    assert message.visible
    assert not any(item.visible for item in (table, download))
    assert not any(item.visible for item in answers.look_at_many([]))


def test_images_of_another_size_than_the_model_takes_are_a_sentence(answers, pictures, monkeypatch):
    monkeypatch.setattr(answers.classifier, "processor", ViTImageProcessorPil(do_resize=False))
    message, probabilities, *_ = answers.look(upload(pictures / "turned.jpg"))
    assert "the images are 30x50 pixels (height x width) and the model is for 8x8" in message.value
    assert probabilities is None
    message, table, _ = answers.look_at_many([upload(pictures / "turned.jpg")])
    assert "the model is for 8x8" in message.value
    assert not table.visible


@pytest.mark.parametrize("settings", [{"token_merging": 4}, {"precision": "bf16"}])
def test_faster_models_have_attention_too(checkpoint, pictures, settings):
    answers = load_answers(checkpoint, **settings)
    message, probabilities, attention, *_ = answers.look(upload(pictures / "digit 0.png"))
    [expected] = predict(checkpoint, [str(pictures / "digit 0.png")], top_k=5, **settings)
    assert probabilities == pytest.approx(dict(zip(expected.labels, expected.scores, strict=True)), abs=1e-6)
    assert attention.visible
    assert not message.visible


def test_without_attention_the_page_says_so_and_shows_the_rest(answers, pictures, monkeypatch):
    def none(model, batch):
        raise NoAttentionMapError("There is none.")

    monkeypatch.setattr(demo, "attention_map", none)
    message, probabilities, attention, about, seen = answers.look(upload(pictures / "digit 0.png"))
    assert message.value == "There is none."
    assert len(probabilities) == 5
    assert seen.visible
    assert not any(item.visible for item in (attention, about))


def test_a_checkpoint_of_transformers_own_vit_has_attention(pictures, tmp_path):
    sizes = {"hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 16}
    ViTForImageClassification(ViTConfig(**sizes, image_size=14, patch_size=2)).save_pretrained(tmp_path)
    ViTImageProcessorPil(size={"height": 14, "width": 14}).save_pretrained(tmp_path)
    answers = load_answers(str(tmp_path))
    _, probabilities, attention, *_ = answers.look(upload(pictures / "turned.jpg"))
    [expected] = predict(str(tmp_path), [str(pictures / "turned.jpg")], top_k=5)
    assert list(probabilities.values()) == pytest.approx(expected.scores, abs=1e-6)
    assert attention.visible


def test_several_threads_get_what_each_would_get_alone(answers, pictures):
    items = [upload(pictures / name) for name in GOOD] * 3
    alone = [answers.look(item)[1] for item in items]
    with ThreadPoolExecutor(max_workers=4) as pool, pillow_silent():
        together = list(pool.map(lambda item: answers.look(item)[1], items))
    assert [pytest.approx(item, abs=1e-6) for item in alone] == together


# The command


def test_an_address_that_will_not_do_is_refused_before_the_checkpoint_is_read():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for name in ("--port", "--server_port", "--server-port"):
            line = refused("demo", "nothing", f"{name}={port}")
            assert f"cannot be served at 127.0.0.1, port {port}: Address already in use; name another" in line
    for name in ("--host", "--server_name", "--server-name"):
        assert "cannot be served at 203.0.113.7: " in refused("demo", "nothing", f"{name}=203.0.113.7")
    assert "cannot be served at no such place: " in refused("demo", "nothing", "--host=no such place")
    for port in (0, 65536):
        assert f"--port (or --server_port) must be from 1 to 65535, got {port}." in refused(
            "demo", "nothing", "--port", port
        )


def test_what_else_will_not_do_is_refused_in_a_line(checkpoint, pictures, tmp_path):
    assert "there is no checkpoint folder nothing." in refused("demo", "nothing")
    assert "text.png is empty" in refused("demo", checkpoint, "--examples", pictures / "text.png")
    assert "the folder" in refused("demo", checkpoint, "--examples", tmp_path)
    assert "leave out --host and --port." in refused("demo", checkpoint, "--space", tmp_path / "space", "--port", 7860)
    assert os.listdir(tmp_path) == []


def test_without_gradio_it_says_what_to_install(checkpoint, monkeypatch):
    for name in ("page", "serving"):
        monkeypatch.delitem(sys.modules, f"modeling_vit_scratch.demo.{name}", raising=False)
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert "the demo needs gradio: pip install 'vit-scratch[demo]'." in refused("demo", checkpoint)


@pytest.mark.parametrize(
    ("address", "alone"),
    [(None, True), ("localhost", True), ("127.1.2.3", True), ("::1", True), ("0.0.0.0", False), ("::", False)],
)
def test_the_sample_is_shown_to_other_machines_only_if_it_is_named(checkpoint, monkeypatch, capsys, address, alone):
    pages = []

    def build(answers, examples):
        pages.append([Path(name).name for name in examples])
        nothing = SimpleNamespace(join=lambda: None)
        return SimpleNamespace(local_url="here", server=SimpleNamespace(thread=nothing), close=lambda **_: None)

    monkeypatch.setattr(serving, "build_page", build)
    monkeypatch.setattr(serving, "_launch", lambda *arguments: None)
    monkeypatch.setattr(serving, "_check_address", lambda *arguments: None)
    sample = f"{checkpoint}/sample.png"
    for examples in ([], [sample]):
        serving.serve(checkpoint, examples=examples, server_name=address)
    assert pages == [["01 sample.png"] if alone else [], ["01 sample.png"]]
    reached = [] if alone else ["other machines can reach this page, and it has no login"]
    left_out = f"left out sample.png, which shows one of your images: --examples {sample} shows it to all"
    first = [*reached, *([] if alone else [left_out])]
    assert capsys.readouterr().out.splitlines() == ["digits is at here", *first, "digits is at here", *reached]


# The server


@pytest.fixture(scope="module")
def served(checkpoint, pictures, tmp_path_factory):
    """The command, serving: its address, and the folder of its uploads."""
    port = free_port()
    folder = tmp_path_factory.mktemp("service")
    before = f"""
import os, tempfile
os.environ["TMPDIR"] = tempfile.tempdir = {str(folder)!r}
os.environ["HTTP_PROXY"] = "http://127.0.0.1:9"  # where nobody is
import modeling_vit_scratch.demo.serving as serving
serving.MOST_BYTES = 200_000
"""
    arguments = ["demo", checkpoint, "--port", port, "--examples", pictures / "print.jpg"]
    service = Service(arguments, folder, before)
    assert service.first == f"digits is at http://127.0.0.1:{port}/\n"
    [private] = folder.glob("vit-scratch-demo-*")
    assert private.stat().st_mode & 0o777 == 0o700
    yield f"http://127.0.0.1:{port}", private / "uploads"
    result = service.end()
    assert (result.status, result.out) == (128 + signal.SIGTERM, "")
    assert result.err == "vit-scratch demo: interrupted.\n"  # and no traceback of what was refused
    assert not private.exists()


@pytest.fixture(scope="module")
def service(served):
    return served[0]


@pytest.fixture(scope="module")
def client(service):
    with httpx.Client(base_url=f"{service}/gradio_api", timeout=WAIT) as client:
        yield client


def told(client: httpx.Client, function: str, data: object) -> str:
    """What the page says to whoever sends it this, instead of an image that it knows."""
    event = client.post(f"/call/{function}", json={"data": [data]}).json()["event_id"]
    kind, _, answer = client.get(f"/call/{function}/{event}").text.partition("\n")
    if kind == "event: error":
        return json.loads(answer.removeprefix("data: "))["error"]
    message, *shown = json.loads(answer.removeprefix("data: "))
    assert not any(item and item.get("value") for item in shown), shown
    return message["value"]


META = {"meta": {"_type": "gradio.FileData"}}
FALSE_META = ({"meta": {"_type": "a file"}}, {"meta": "gradio.FileData"})


@pytest.fixture(scope="module")
def outside(checkpoint, served, tmp_path_factory) -> list[str]:
    """Paths that are none of an upload, though some lie among the uploads."""
    _, uploads = served
    folder = uploads / "planted"
    folder.mkdir()
    picture = f"{checkpoint}/sample.png"
    (folder / "link.png").symlink_to(picture)
    (folder / "folder").symlink_to(checkpoint)
    (folder / "endless.png").symlink_to("/dev/zero")
    (folder / "circle.png").symlink_to(folder / "circle.png")
    os.mkfifo(folder / "pipe.png")
    return [
        picture,
        f"{uploads}/../../../../../../../../../../..{picture}",
        *(f"{folder}/{name}" for name in ("link.png", "folder/sample.png", "endless.png", "circle.png", "pipe.png")),
        str(folder),
        str(uploads),
        f"{uploads}/missing.png",
        f"{uploads}-of-others/x.png",
        "/missing.png",
        "/dev/zero",
        "/dev/stdin",
        "/proc/self/environ",
        "x\0.png",
        "x" * 5000,
        "",
    ]


@pytest.mark.parametrize("function", ["classify", "classify_many"])
def test_only_what_was_uploaded_is_read_however_its_path_is_sent(client, outside, function):
    answers = set()
    for path in outside:
        for more in ({}, META, *FALSE_META):
            given = {"path": path, "orig_name": "x.png", **more}
            answers.add(told(client, function, [given] if function == "classify_many" else given))
    # Nothing in them tells a file that is there from one that is not.
    assert answers <= {
        "x.png is not among the files that were uploaded to this page: upload it again.",
        "This request does not name files uploaded to this page.",
    }


OF_NO_BROWSER = (
    *([], {}, "x.png", 3, True, [[]], [None], {"path": None}, {"path": 3}, {"path": "x", "orig_name": ["x"]}),
    {"url": "https://example.com/x.png"},
    {"url": "data:image/png;base64,AAAA"},
    {"path": "https://example.com/x.png"} | META,
    [{"path": "https://example.com/x.png"} | META],
    [{"path": "x"} | META] * 1001,
)


@pytest.mark.parametrize("function", ["classify", "classify_many"])
def test_what_no_browser_sends_is_answered_in_a_sentence(client, function):
    for given in OF_NO_BROWSER:
        answer = told(client, function, given)
        assert re.fullmatch(r"|(the image|x) is not among the files.*|This request does not name files.*", answer), (
            given,
            answer,
        )


def test_an_example_that_is_none_is_answered_in_a_sentence(client):
    for number in (None, 99, "x"):
        body = {"data": [number], "fn_index": 0, "session_hash": "a"}
        answer = client.post("/run/predict", json=body)
        assert answer.json()["error"] == "This request does not name files uploaded to this page."


def in_pieces(size: int):
    """A body that does not say how long it is."""
    for _ in range(size // 10_000):
        yield b" " * 10_000


def test_what_is_uploaded_together_has_a_limit_of_its_own(monkeypatch):
    sent = []

    async def send(message):
        sent.append(message)

    async def app(scope, receive, send):
        sent.append("taken")

    for path in (serving.UPLOADS, f"/space{serving.UPLOADS}", f"{serving.UPLOADS}/x"):
        for length in (b"1000001", b"500000001"):
            scope = {"type": "http", "path": path, "root_path": "/space", "headers": [(b"content-length", length)]}
            asyncio.run(serving.BodiesLimited(app)(scope, None, send))
    refusals = [message if message == "taken" else message.get("body") for message in sent]
    over = [None, b"A request to this page has 500 MB at most."]
    other = [None, b"A request to this page has 1 MB at most."]
    assert refusals == ["taken", *over, "taken", *over, *other, *other]


@pytest.mark.parametrize("content", [bytes, in_pieces])
@pytest.mark.parametrize("path", ["/run/predict", "/call/classify", "/queue/join", "/run/upload"])
def test_a_request_that_would_fill_the_memory_is_refused(client, path, content):
    answer = client.post(path, content=content(1_010_000), headers={"content-type": "application/json"})
    assert answer.status_code == 413, answer.text
    assert "A request to this page has 1 MB at most." in answer.text


def test_the_names_of_as_many_files_as_a_request_may_have_fit_into_it(client):
    given = [{"path": f"{'folder/' * 30}{index}.png", "orig_name": "x" * 200} | META for index in range(1000)]
    assert told(client, "classify_many", given) == "This request does not name files uploaded to this page."


def test_the_internet_is_not_fetched_for_anyone(client):
    for route in ("file=", "file/", "proxy="):
        answer = client.get(f"/{route}https://example.com/")
        assert (answer.status_code, answer.content) == (403, b"")  # Gradio has words of its own once it tried


def uploaded(client: httpx.Client, content: bytes) -> dict:
    [path] = client.post("/upload", files={"files": ("x.png", content)}).json()
    return {"path": path, "orig_name": "x.png"} | META


def test_uploads_and_examples_are_classified(client, checkpoint, pictures):
    [example] = client.post("/call/load_example", json={"data": [1]}).json().values()
    data = client.get(f"/call/load_example/{example}").text.partition("data: ")[2]
    for given, file in (
        (uploaded(client, (pictures / "scan.tif").read_bytes()), "scan.tif"),
        (json.loads(data)[0]["value"], "print.jpg"),
    ):
        event = client.post("/call/classify", json={"data": [given]}).json()["event_id"]
        _, label, *_ = json.loads(client.get(f"/call/classify/{event}").text.partition("data: ")[2])
        [expected] = predict(checkpoint, [str(pictures / file)], top_k=5)
        assert [item["label"] for item in label["confidences"]] == expected.labels


def test_an_image_of_too_many_pixels_is_refused_before_it_is_decoded(client):
    given = uploaded(client, encoded(Image.new("1", (7100, 7100))))  # 6 kB
    sentence = r"x.png has more than 50,000,000 pixels: upload a smaller image."
    assert told(client, "classify", given) == sentence
    assert told(client, "classify_many", [given] * 4) == sentence


def test_files_of_the_machine_are_not_served(client, service, checkpoint, outside):
    root = Path(demo.__file__).resolve().parent.parent
    secrets = ["/etc/passwd", f"{checkpoint}/config.json", f"{root}/pyproject.toml", *outside]
    relative = ["pyproject.toml", "../../../../../../etc/passwd", "README.md"]
    for path in [*secrets, *relative, f"{service}/config"]:
        if "pipe" not in path and "\0" not in path:
            assert 400 <= client.get(f"/file={path}").status_code < 500, path


def test_no_text_becomes_a_formula(client, service, answers):
    components = client.get(f"{service}/config").json()["components"]
    texts = [item["props"]["latex_delimiters"] for item in components if item["type"] == "markdown"]
    assert texts == [[]] * 5
    assert answers.look({})[0].latex_delimiters == []


def test_an_upload_that_is_too_large_is_refused(service):
    answer = httpx.post(f"{service}/gradio_api/upload", files={"files": ("x.png", b"x" * 300_000)}, timeout=WAIT)
    assert answer.status_code == 413


# The browser


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


@pytest.fixture
def visit(browser, service):
    """What opens the page as another user each time; none may ask for anything from elsewhere."""
    contexts, elsewhere, wrong = [], [], []

    def only_here(route):
        if route.request.url.startswith((service, "data:", "blob:")):
            route.continue_()
        else:
            elsewhere.append(route.request.url)
            route.abort()

    def visit():
        context = browser.new_context()
        contexts.append(context)
        context.set_default_timeout(1000 * WAIT)
        context.route("**/*", only_here)
        page = context.new_page()
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.goto(service)
        page.get_by_role("heading", name="digits").wait_for()
        return page

    yield visit
    for context in contexts:
        context.close()
    assert elsewhere == []
    assert wrong == []


def give(page, *files: Path, into: str = "#upload") -> None:
    page.set_input_files(f"{into} input[type=file]", [str(file) for file in files])


def shares(page) -> dict[str, int]:
    """The probabilities on the page, in whole percent, once they are there."""
    page.locator("#seen img").wait_for()
    page.locator("#probabilities").get_by_text("%").last.wait_for()
    *_, rest = page.locator("#probabilities").inner_text().partition("\n")
    pairs = re.findall(r"^(\d)\n(\d+)%$", rest, re.MULTILINE)
    return {label: int(share) for label, share in pairs}


def expected_shares(checkpoint: str, file: Path) -> dict[str, int]:
    [item] = predict(checkpoint, [str(file)], top_k=5)
    return {label: round(100 * score) for label, score in zip(item.labels, item.scores, strict=True)}


def test_a_user_sees_the_classes_the_attention_and_the_input(visit, checkpoint, pictures):
    page = visit()
    assert page.title() == "digits"
    assert "10 classes: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9." in page.locator("body").inner_text()
    give(page, pictures / "digit 0.png")
    assert shares(page) == expected_shares(checkpoint, pictures / "digit 0.png")
    page.get_by_text("What the model sees: 8 × 8 pixels").wait_for()
    for picture in ("attention", "seen"):
        size = page.locator(f"#{picture} img").evaluate("async image => (await image.decode(), image.naturalWidth)")
        assert size == 384
    assert not page.locator("#message").is_visible()


def test_examples_are_ready(visit, checkpoint, pictures):
    page = visit()
    examples = page.locator(".gallery-item")
    examples.nth(1).click()
    assert examples.count() == 2
    assert shares(page) == expected_shares(checkpoint, pictures / "print.jpg")


def test_a_bad_file_is_answered_with_a_sentence_and_the_page_goes_on(visit, checkpoint, pictures):
    page = visit()
    give(page, pictures / "cut.png")
    page.get_by_text("cut.png cannot be read: it is corrupt or truncated").wait_for()
    assert not page.locator("#attention").is_visible()
    page.reload()
    give(page, pictures / "text.png")
    page.get_by_text("text.png is empty, or of no known image format.").wait_for()
    page.get_by_label("Remove Image").click()
    give(page, pictures / "digit 1.png")
    assert shares(page) == expected_shares(checkpoint, pictures / "digit 1.png")
    assert not page.locator("#message").is_visible()


def test_a_file_that_is_too_large_or_no_image_is_answered_by_the_page(visit, checkpoint, pictures, tmp_path):
    noise((400, 400)).save(tmp_path / "large.png")
    (tmp_path / "notes.txt").write_text("no picture")
    page = visit()
    give(page, tmp_path / "large.png")
    page.get_by_text("maximum allowed size").wait_for()
    page.reload()
    give(page, tmp_path / "notes.txt")
    page.get_by_text("only image/* allowed").wait_for()
    give(page, pictures / "digit 1.png")
    assert shares(page) == expected_shares(checkpoint, pictures / "digit 1.png")


def test_two_users_at_once_get_their_own_results(visit, checkpoint, pictures):
    one, other = visit(), visit()
    give(one, pictures / "turned.jpg")
    give(other, pictures / "scan.tif")
    assert shares(other) == expected_shares(checkpoint, pictures / "scan.tif")
    assert shares(one) == expected_shares(checkpoint, pictures / "turned.jpg")


def test_many_images_are_a_table_and_a_csv_to_download(visit, pictures, tmp_path):
    page = visit()
    page.get_by_role("tab", name="Many images").click()
    give(page, *[pictures / name for name in ("digit 0.png", "text.png", "scan.tif")], into="#uploads")
    page.get_by_text("text.png is empty, or of no known image format.").wait_for()
    page.locator("#table").get_by_text("scan.tif").first.wait_for()
    with page.expect_download() as download:
        page.locator("#download").click()
    download.value.save_as(tmp_path / "table.csv")
    assert download.value.suggested_filename == "predictions.csv"
    with (tmp_path / "table.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows] == ["digit 0.png"] * 5 + ["scan.tif"] * 5
    assert [row["rank"] for row in rows] == ["1", "2", "3", "4", "5"] * 2
