# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""All that is seen of a classifier's answer for an image: as numbers in Python, as a folder of pictures and a page."""

import dataclasses
import difflib
import json
import math
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm
from transformers.image_processing_utils import BaseImageProcessor

from ..data.columns import one_form
from ..data.images import BadImageError, read_image
from ..data.model_input import pixel_values
from ..finite import check_logits
from ..hub.cards import name_of
from ..hub.checkpoint import find_checkpoint, load_checkpoint
from ..model.layers_vit_scratch import Size, height_width
from ..prediction.classifier import probabilities
from ..prediction.sources import ImageSources
from ..system.folders import check_new_folder, new_folder
from ..text import for_file_name, for_table, for_terminal
from .attention import attention_distance, attention_map, reading_of
from .embeddings import patch_filters, position_similarity
from .explain_page import write_page
from .inputs import seen_area, shown_input
from .model_loading import evaluating
from .overlays import distances, filters, heatmaps, on_image, patch_grid, similarities
from .relevance import Occlusion, check_classifier, occlusion, recorded_attention, relevance_map

# Of all attention: itself, its gradient, and their product.
MAPS_HELD = 3
FILTERS, POSITIONS = "filters.png", "positions.png"
PAGE, NUMBERS = "index.html", "explanation.json"


@dataclass
class Explanation:
    """What is seen of a classifier's answer for one image.

    Args:
        seen: the input of the model as a picture.
        area: the part of the image that it was cut from, as `seen_area` gives it.
        class_index, label: the class that is explained.
        probability: what the model gives it.
        attention: (blocks, A, rows, columns), how what the head reads attends to the patches, [CLS] for the most part.
        rollout: (rows, columns), attention rollout.
        relevance: (rows, columns), what speaks for the class.
        distance: (blocks, A), mean attention distance in pixels of the input.
        occlusion: what hiding the most relevant patches does.
    """

    seen: Image.Image
    area: tuple[float, float, float, float] | None
    class_index: int
    label: str
    probability: float
    attention: Tensor
    rollout: Tensor
    relevance: Tensor
    distance: Tensor
    occlusion: Occlusion


def explain(
    model: Any,
    processor: BaseImageProcessor,
    image: Any,
    *,
    label: str | None = None,
    image_size: Size | None = None,
) -> Explanation:
    """Look at a classifier's answer for an image, whatever its attention kernel, with token merging or without.

    Args:
        model: a classifier of this package; neither its weights nor its settings are changed.
        processor: its image processor.
        image: what `read_image` takes: a path, a PIL image, or a row of an image column.
        label: the class to explain; by default the most likely one.
        image_size: pixels that the image is resized to, one number or (height, width), instead of what the processor
            does.

    Raises:
        ValueError: if the model is no classifier of this package, the label is none of it, the image is bad, or the
            logits are not finite.
    """
    check_classifier(model)
    with evaluating(model):
        return _explain(model, processor, image, label, None if image_size is None else height_width(image_size))


def _explain(
    model: Any, processor: BaseImageProcessor, image: Any, label: str | None, image_size: tuple[int, int] | None
) -> Explanation:
    if image_size is not None:
        _check_memory(model, image_size)
    picture = read_image(image)
    processor = _resizing_to(processor, image_size) if image_size is not None else processor
    options: dict[str, Any] = {} if image_size is None else {"interpolate_pos_encoding": True}
    pixels = pixel_values(processor, [picture]).to(model.device, model.dtype)  # (1, C, H, W)
    _check_memory(model, (pixels.shape[2], pixels.shape[3]))
    grid = model.vit.patch_embedding.grid_of(*pixels.shape[2:])
    num_patches = grid[0] * grid[1]
    with torch.no_grad():
        logits = model(pixels, **options).logits  # (1, K)
        check_logits(logits, "the model")
        scores = probabilities(logits, model.config)[0]  # (K,)
        with recorded_attention(model) as records:
            outputs = model.vit(pixels, output_hidden_states=True, return_dict=True, **options)
        attentions = [record.of_patches(record.probabilities) for record in records]  # blocks x (1, A, T, T)
        reading = reading_of(model, outputs.last_hidden_state, num_patches)[:, None, None].to(attentions[0].dtype)
        read = torch.cat([(reading @ item)[..., 0, -num_patches:] for item in attentions])  # (blocks, A, N)
    index = int(scores.argmax()) if label is None else _index_of(label, model.config.id2label)
    relevance = relevance_map(model, pixels, [index], **options)
    return Explanation(
        seen=shown_input(processor, pixels[0]),
        area=seen_area(processor, picture.size),
        class_index=index,
        label=model.config.id2label[index],
        probability=float(scores[index]),
        attention=read.unflatten(2, grid).float(),
        rollout=attention_map(model, pixels, **options)[0],
        relevance=relevance[0],
        distance=attention_distance(attentions, grid, model.config.patch_size),
        occlusion=occlusion(model, pixels, relevance, index, **options),
    )


def _check_memory(model: Any, image_size: tuple[int, int]) -> None:
    """Refuse images whose attention would not fit into the memory of this machine.

    Raises:
        ValueError: with how much it would take.
    """
    config, (height, width) = model.config, image_size
    patch_height, patch_width = model.vit.patch_embedding.patch_size
    num_tokens = (height // patch_height) * (width // patch_width) + config.num_prefix_tokens
    needed = MAPS_HELD * config.num_hidden_layers * config.num_attention_heads * num_tokens**2 * 4
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else math.inf
    if needed > there:
        raise ValueError(
            f"the attention of images of {height}x{width} pixels takes {needed / 1e9:,.0f} GB, and this machine has "
            f"{there / 1e9:,.0f}: explain smaller images."
        )


def _resizing_to(processor: BaseImageProcessor, image_size: tuple[int, int]) -> Any:
    settings = {"size": dict(zip(("height", "width"), image_size, strict=True)), "do_resize": True}
    return type(processor)(**processor.to_dict() | settings | {"do_center_crop": False})


def _index_of(label: str, id2label: dict[int, str]) -> int:
    if not isinstance(label, str):
        raise ValueError(f"label must be the name of a class, such as {id2label[0]!r}, got {label!r}.")
    indices = [index for index, name in id2label.items() if one_form(name) == one_form(label)]
    if not indices:
        closest = difflib.get_close_matches(label, id2label.values(), n=1)
        hint = f" (did you mean {closest[0]!r}?)" if closest else ""
        raise ValueError(f"the model has no label {label!r}{hint}.")
    return indices[0]


def write_explanations(
    checkpoint: str,
    images: Sequence[str],
    output: str,
    *,
    label: str | None = None,
    image_size: Size | None = None,
    token_merging: int | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
    say: Callable[[str], None] = lambda sentence: None,
) -> list[str]:
    """Explain a checkpoint's answers for images in a new folder: pictures, the numbers as JSON, and a page of all.

    Args:
        checkpoint, token_merging, revision, trust_remote_code: those of `load_checkpoint`.
        images: files, folders, patterns and parquet files, as `ImageSources` takes them.
        output: the folder, written whole or not at all.
        label, image_size: those of `explain`.
        say: is told, in a sentence, which images cannot be explained.

    Returns:
        What was found and written, a line each.

    Raises:
        ValueError: if the checkpoint or the images will not do, or `output` cannot be written.
    """
    check_new_folder(output)
    sources = ImageSources(images)
    source = find_checkpoint(checkpoint, revision, trust_remote_code=trust_remote_code)
    loaded, processor, _ = load_checkpoint(source, token_merging=token_merging, trust_remote_code=trust_remote_code)
    check_classifier(loaded)
    model: Any = torch.nn.Module.to(loaded, "cuda" if torch.cuda.is_available() else "cpu")
    if label is not None:
        _index_of(label, model.config.id2label)
    with new_folder(output) as folder:
        one = partial(explain, model, processor, label=label, image_size=image_size)
        found = _explained(sources, one, model.vit.patch_embedding.patch_size, folder, say)
        of_model = _draw_model(model, folder)
        records = [{"file": name, "folder": place} | _numbers(item) for name, place, item in found]
        (folder / NUMBERS).write_text(
            json.dumps(records, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8"
        )
        sections = [(for_terminal(name), in_words(item), place) for name, place, item in found]
        write_page(folder / PAGE, name_of(str(source)), sections, of_model)
    return [*(f"{name}: {said}" for name, said, _ in sections), f"written    {output}: open {PAGE} in a browser"]


def _explained(
    sources: ImageSources,
    explain_one: Callable[[Any], Explanation],
    patch_size: tuple[int, int],
    folder: Path,
    say: Callable[[str], None],
) -> list[tuple[str, str, Explanation]]:
    """Explain and draw the images that can be: of each its name, the folder of its pictures, and what is seen.

    Raises:
        ValueError: if there is none.
    """
    found: list[tuple[str, str, Explanation]] = []
    failed: list[Exception] = []
    digits = max(2, len(str(len(sources))))
    for number in tqdm(range(len(sources)), unit="image", leave=False, disable=None if len(sources) > 1 else True):
        name = for_table(sources.name(number))
        place = folder / f"{number + 1:0{digits}}-{for_file_name(Path(name).stem)}"
        try:
            explanation = explain_one(sources[number])
            _draw(explanation, read_image(sources[number]), patch_size, place)
            found.append((name, place.name, explanation))
        except (ValueError, RuntimeError) as error:  # too large an image, or a bad one, does not lose the others
            failed.append(error)
            shutil.rmtree(place, ignore_errors=True)
            if isinstance(error, BadImageError):
                say(f"skipped: {error}")
            elif len(sources) > 1:
                say(f"skipped: {name}: {error}")
    for sentence in sources.not_read:
        say(f"skipped: {sentence}.")
    if not found and all(isinstance(error, BadImageError) for error in failed):
        raise ValueError("none of the images can be read.")
    if not found:
        raise next(error for error in failed if not isinstance(error, BadImageError))
    return found


def in_words(explanation: Explanation) -> str:
    """The answer, and whether what is called relevant is."""
    occlusion, total = explanation.occlusion, explanation.relevance.numel()
    verdict = {"more": "more than", "less": "less than", "as much": "as much as"}[occlusion.verdict]
    label = for_terminal(explanation.label)
    return (
        f"{label}: {explanation.probability:.2%}; with the {occlusion.number} most relevant of {total} "
        f"patch{'es' * (total > 1)} hidden {occlusion.important:.2%}, with as many random ones {occlusion.random:.2%}: "
        f"what the map calls relevant matters {verdict} others"
    )


def _numbers(explanation: Explanation) -> dict[str, Any]:
    """An explanation as JSON holds it; its pictures lie beside."""
    values = {field.name: getattr(explanation, field.name) for field in dataclasses.fields(explanation)}
    values["occlusion"] = dataclasses.asdict(explanation.occlusion)
    del values["seen"]
    return {name: value.tolist() if isinstance(value, Tensor) else value for name, value in values.items()}


def _draw(explanation: Explanation, image: Image.Image, patch_size: tuple[int, int], place: Path) -> None:
    place.mkdir()
    seen, area = explanation.seen, explanation.area
    patch_grid(seen, patch_size).save(place / "patches.png")
    on_image(image, seen, area, explanation.rollout).save(place / "rollout.png")
    on_image(image, seen, area, explanation.relevance).save(place / "relevance.png")
    seen.save(place / "input.png")
    blocks, heads = explanation.attention.shape[:2]
    rows, columns = (
        [f"{kind} {number + 1}" for number in range(count)] for kind, count in (("block", blocks), ("head", heads))
    )
    title = "Attention of what the head reads to the patches"
    heatmaps(explanation.attention, rows, columns, title, patch_size).savefig(place / "attention.png", dpi=100)
    distances(explanation.distance, "How far the heads look").savefig(place / "distance.png", dpi=100)


def _draw_model(model: Any, folder: Path) -> list[tuple[str, str]]:
    """The pictures of what the model knows without an image, with what they are."""
    filters(patch_filters(model), "Principal components of the patch embedding's filters").savefig(
        folder / FILTERS, dpi=100
    )
    shown = [(FILTERS, "The filters of the patch embedding, as principal components, those that vary most first.")]
    alike = position_similarity(model)
    if alike is not None:
        patch_size = model.vit.patch_embedding.patch_size
        similarities(alike, "How alike the positions are", patch_size).savefig(folder / POSITIONS, dpi=100)
        shown.append((POSITIONS, "For positions in the image, how alike theirs is to all others."))
    return shown
