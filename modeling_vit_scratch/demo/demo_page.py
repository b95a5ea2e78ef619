# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""The page of `vit-scratch demo`: a classifier in the browser, for several users at once.

Images are read, prepared and classified by the code of `predict`; the files come as they were uploaded
(`preprocess=False`), because Gradio's components would decode them themselves, and differently. `uploads.py` checks
what clients send, and `serving.py` serves the page.
"""

import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image
from transformers import PreTrainedModel

from ..data.images import read_image
from ..data.model_input import pixel_values
from ..hub.cards import name_of
from ..inspection.attention import NoAttentionMapError, attention_map
from ..inspection.inputs import readable_size, seen_area, shown_input
from ..inspection.overlays import LEAST_SIDE, MOST_SIDE, on_image
from ..prediction.classifier import Classifier, Prediction
from ..prediction.sources import ImageSources
from ..prediction.writing import write_predictions
from ..text import counted, for_file_name, for_markdown
from .uploads import MOST_IMAGES, names_url, read_upload

# Classes that are shown of an image, and written to the CSV of many.
TOP = 5
# Class names in the head of the page.
MOST_NAMED = 20
# Seconds: how often uploads are looked through, and how old they become.
DELETE_EVERY, DELETE_AFTER = 600, 3600
# Users of whom each function serves so many at once, and so many wait; more are told that the page is busy.
AT_ONCE, WAITING = 2, 64
CSS = """
#message, #many-message { border-left: 4px solid var(--color-accent); padding: 4px 12px; }
#upload img { width: 100%; height: 100%; object-fit: contain; }
#attention img, #seen img { max-height: 420px; object-fit: contain; }
"""
ATTENTION, SEEN = "Attention", "What the model sees"
ABOUT_ATTENTION = (
    "Bright is what the attention of all blocks mixed into the answer most (attention rollout), whether it spoke for "
    "the answer or against. Dark borders are cut off before the model sees the image."
)


@dataclass
class Answers:
    """What the page shows of images.

    Args:
        title: the name over the page.
        classifier: which says what is on them.
    """

    title: str
    classifier: Classifier

    def look(self, upload: Any) -> tuple[Any, ...]:
        """What the page shows of one image: message, probabilities, attention, about it, and the input of the model.

        Args:
            upload: what a client sent, as `read_upload` takes it; None if it took its image away.
        """
        nothing = (None, _picture(None, ATTENTION), _markdown(visible=False), _picture(None, SEEN))
        if upload is None:
            return _message(), *nothing
        try:
            _, image = read_upload(upload)
            [(scores, classes)] = self.classifier.most_likely([image], TOP)
        except ValueError as error:
            return _message([str(error)]), *nothing
        names = _told_apart([self.classifier.label_names[index] for index in classes])
        attention, seen, notes = self.pictures(image)
        about = _markdown(visible=attention is not None)
        shown = _picture(readable_size(seen, LEAST_SIDE, MOST_SIDE), f"{SEEN}: {seen.width} × {seen.height} pixels")
        return _message(notes), dict(zip(names, scores, strict=True)), _picture(attention, ATTENTION), about, shown

    def pictures(self, image: Image.Image) -> tuple[Image.Image | None, Image.Image, list[str]]:
        """The attention laid over an image, the input of the model, and a note if there is no attention."""
        model, processor = self.classifier.model, self.classifier.processor
        batch = pixel_values(processor, [image]).to(model.device, model.dtype)
        seen = shown_input(processor, batch[0])
        try:
            [heatmap] = attention_map(model, batch).cpu()
        except NoAttentionMapError as error:
            return None, seen, [str(error)]
        return on_image(image, seen, seen_area(processor, image.size), heatmap), seen, []

    def look_at_many(self, uploads: Any) -> tuple[Any, ...]:
        """What the page shows of many images: a message that names the bad ones, a table, and the CSV.

        They are read and classified one by one, so that many take no more memory than one.

        Args:
            uploads: what a client sent: a list of what `read_upload` takes, or None.
        """
        nothing = (gr.Dataframe(visible=False), gr.DownloadButton(visible=False))
        if not uploads:
            return _message(), *nothing
        if not isinstance(uploads, list) or len(uploads) > MOST_IMAGES:
            return _message([f"The page takes a list of {MOST_IMAGES:,} images at most."]), *nothing
        rows: list[list[str]] = []
        bad: list[str] = []

        def predictions() -> Iterator[Prediction]:
            for upload in uploads:
                try:
                    name, image = read_upload(upload)
                    [(scores, classes)] = self.classifier.most_likely([image], TOP)
                except ValueError as error:
                    bad.append(str(error))
                    continue
                labels = [self.classifier.label_names[index] for index in classes]
                rows.append([name, labels[0], f"{scores[0]:.2%}"])
                yield Prediction(name, labels, scores)

        # Among the uploads, with which it is deleted.
        file = os.path.join(tempfile.mkdtemp(dir=os.environ["GRADIO_TEMP_DIR"]), "predictions.csv")
        write_predictions(predictions(), file)
        message = _message(list(dict.fromkeys(bad)))
        if not rows:
            return message, *nothing
        return message, gr.Dataframe(rows, visible=True), gr.DownloadButton(value=file, visible=True)


class Page(gr.Blocks):
    """Gradio's page, which has a sentence for a request that is none of a browser, and loads nothing by a URL."""

    async def preprocess_data(
        self, block_fn: Any, inputs: list[Any], state: Any, explicit_call: bool = False
    ) -> list[Any]:
        """What Gradio does with the data of a request, or an answer that is the same whatever is wrong with them."""
        try:
            if names_url(inputs):  # Gradio would fetch it, of any size
                raise ValueError("a URL is no upload.")
            if block_fn.preprocess and None in inputs:  # only our own functions can do with nothing
                raise ValueError("there is no example of no number.")
            return await super().preprocess_data(block_fn, inputs, state, explicit_call)
        except Exception as error:  # it raises many kinds
            raise gr.Error("This request does not name files uploaded to this page.", print_exception=False) from error


def _told_apart(names: list[str]) -> list[str]:
    """The labels, which may be several classes' of the same name: the page wants each once."""
    return [name if name not in names[:index] else f"{name} ({index + 1})" for index, name in enumerate(names)]


def _message(sentences: Sequence[str] = ()) -> Any:
    return _markdown("\n\n".join(for_markdown(sentence) for sentence in sentences), visible=bool(sentences))


def _markdown(text: str | None = None, **options: Any) -> gr.Markdown:
    return gr.Markdown(text, latex_delimiters=[], **options)  # names may have dollar signs, and none is a formula


def _picture(image: Image.Image | None, label: str) -> Any:
    return gr.Image(image, label=label, visible=image is not None)


def build_page(answers: Answers, examples: Sequence[str]) -> gr.Blocks:
    """The page, not yet served.

    Args:
        answers: what it shows.
        examples: image files to try it with.
    """
    names = [for_markdown(name) for name in answers.classifier.label_names[:MOST_NAMED]]
    more = len(answers.classifier.label_names) - len(names)
    classes = ", ".join(names) + (f" and {more:,} more" if more else "")
    head = (
        f"An image classifier that tells apart **{counted(len(answers.classifier.label_names), 'class')}**: {classes}."
    )
    with Page(title=answers.title, analytics_enabled=False, delete_cache=(DELETE_EVERY, DELETE_AFTER)) as page:
        _markdown(f"# {for_markdown(answers.title)}\n\n{head}")
        with gr.Tab("One image"):
            _one_image(answers, examples)
        with gr.Tab("Many images"):
            _many_images(answers)
    return page.queue(max_size=WAITING, default_concurrency_limit=AT_ONCE)


def _one_image(answers: Answers, examples: Sequence[str]) -> None:
    with gr.Row():
        with gr.Column():
            upload = gr.Image(label="Image", type="filepath", height=320, elem_id="upload")
            if examples:
                gr.Examples([[example] for example in examples], [upload], cache_examples=False, label="Examples")
        with gr.Column():
            message = _markdown(visible=False, label="Message", elem_id="message")
            label = gr.Label(label="Probabilities", num_top_classes=TOP, elem_id="probabilities")
    with gr.Row():
        options: dict[str, Any] = {"interactive": False, "format": "png", "visible": False}
        attention = gr.Image(label=ATTENTION, elem_id="attention", buttons=["download", "fullscreen"], **options)
        seen = gr.Image(label=SEEN, elem_id="seen", buttons=["download", "fullscreen"], **options)
    about = _markdown(ABOUT_ATTENTION, visible=False, label="About the attention")
    outputs = [message, label, attention, about, seen]
    upload.change(answers.look, [upload], outputs, preprocess=False, api_name="classify")


def _many_images(answers: Answers) -> None:
    _markdown(f"The table has the most likely class of each image; the CSV has up to {TOP}.")
    uploads = gr.File(label="Images", file_count="multiple", elem_id="uploads", height=200)
    message = _markdown(visible=False, label="Message", elem_id="many-message")
    download = gr.DownloadButton("Download as CSV", variant="primary", visible=False, elem_id="download")
    table = gr.Dataframe(
        headers=["file", "label", "score"],
        label="Table",
        show_label=False,
        interactive=False,
        visible=False,
        elem_id="table",
    )
    outputs = [message, table, download]
    uploads.change(answers.look_at_many, [uploads], outputs, preprocess=False, api_name="classify_many")


def load_answers(checkpoint: str, *, title: str | None = None, **options: Any) -> Answers:
    """A checkpoint ready for the page; the arguments but `title`, the name over it, are those of `load_checkpoint`."""
    classifier = Classifier(checkpoint, **options)
    model = classifier.model
    if isinstance(model, PreTrainedModel) and model.config.model_type != "vit_scratch":
        model.set_attn_implementation("eager")  # transformers' own models have attention maps with no other
    return Answers(title or name_of(str(classifier.checkpoint)), classifier)


def example_files(examples: Sequence[str], folder: Path, own: str = "") -> list[str]:
    """The examples of a page as PNG files, which every browser shows and which have no place or time in them.

    Args:
        examples: image files, and folders of them.
        folder: where to; made if it is missing.
        own: the first example, if there is such a file.

    Raises:
        ValueError: if one cannot be read, or is not there.
    """
    # Who names the checkpoint's own, too, gets it once.
    names = [*([own] if os.path.isfile(own) else []), *(name for name in examples if not _same_file(name, own))]
    if not names:
        return []
    sources, result = ImageSources(names), []
    if sources.not_read:
        raise ValueError(f"of the examples, {sources.not_read[0]}.")
    for index in range(len(sources)):
        place = folder / f"{index + 1:02} {for_file_name(Path(sources.name(index)).stem)}.png"
        image = read_image(sources[index])
        folder.mkdir(parents=True, exist_ok=True)
        image.save(place)
        result.append(str(place))
    return result


def _same_file(one: str, other: str) -> bool:
    return os.path.exists(one) and os.path.exists(other) and os.path.samefile(one, other)
