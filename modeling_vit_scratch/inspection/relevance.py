# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""Which patches speak for a class: relevance by the attention and its gradient, and what hiding them does.

Shapes: B batch, C channels, H and W image height and width in pixels, N patches, T tokens (N, and those in front of the
patches), A attention heads.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from ..model.layers_vit_scratch import MultiHeadSelfAttention, eager_attention, height_width
from ..model.merging_vit_scratch import MergedPatches, TokenMerging
from ..prediction.classifier import probabilities
from .attention import reading_of
from .model_loading import evaluating

# Of probabilities, which are shown in hundredths of a percent.
LEAST_DIFFERENCE = 1e-4


@dataclass
class Recorded:
    """The attention of a block as it was computed.

    Args:
        probabilities: (B, A, tokens, tokens), on the way from the image to the logits.
        patches: what the tokens are made of, where patches were merged before.
    """

    probabilities: Tensor
    patches: MergedPatches | None

    def of_patches(self, values: Tensor) -> Tensor:
        """What belongs to these tokens, for the original ones: (B, A, tokens, tokens) -> (B, A, T, T)."""
        return values if self.patches is None else self.patches.unmerge_attention(values)


@contextmanager
def recorded_attention(model: nn.Module) -> Iterator[list[Recorded]]:
    """Compute all attention by the kernel that has probabilities, whichever the model has, and keep them.

    Yields:
        A list, to which each block that runs appends its own.
    """
    records: list[Recorded] = []

    def recording(patches: MergedPatches | None) -> Callable[..., Any]:
        def kernel(*given: Any, **named: Any) -> tuple[Tensor, Tensor]:
            output, probabilities = eager_attention(*given, **named)
            records.append(Recorded(probabilities, patches))
            return output, probabilities

        return kernel

    def enter(
        module: nn.Module, given: tuple[Any, ...], named: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        x, mask, kernel = given
        merging = getattr(kernel, "__self__", None)
        if isinstance(merging, TokenMerging):
            # It calls the kernel itself, with the sizes of the tokens as a mask, which this kernel adds.
            merging.kernel, merging.adds_mask = recording(merging.before), True
        else:
            kernel = recording(None)
        return (x, mask, kernel), named

    with ExitStack() as hooks:
        for module in model.modules():
            if isinstance(module, MultiHeadSelfAttention):
                hooks.callback(module.register_forward_pre_hook(enter, with_kwargs=True).remove)
        yield records


def relevance_map(model: Any, pixel_values: Tensor, classes: Sequence[int] | None = None, **options: Any) -> Tensor:
    """How much each patch speaks for a class: (B, C, H, W) -> (B, rows, columns), from 0 on.

    In each block the attention is weighed by the gradient of the class's logit, and what speaks for the class is kept;
    the mean of the heads mixes the relevance of the tokens, beside what came by the skip connection (Chefer et al.
    2021, "Generic Attention-model Explainability", arXiv 2103.15679, equations 5 and 6). As in `attention_rollout`
    only the rows that the head reads are followed.

    Args:
        model: a classifier of this package, with any kernel, with token merging or without; nothing of it is changed.
        pixel_values: as the image processor makes them.
        classes: the class of each image; by default the most likely one.
        **options: of the forward pass, such as `interpolate_pos_encoding`.

    Raises:
        ValueError: if the model is no classifier of this package, or there is not one class of it for each image.
    """
    check_classifier(model)
    if classes is not None and len(classes) != len(pixel_values):
        raise ValueError(f"classes must be one for each of the {len(pixel_values)} images, got {list(classes)}.")
    if classes is not None and not all(0 <= index < model.config.num_labels for index in classes):
        raise ValueError(f"classes must be from 0 to {model.config.num_labels - 1}, got {list(classes)}.")
    # The gradient is to be there whatever is frozen, and wherever this is called.
    with torch.inference_mode(False), torch.enable_grad(), evaluating(model), recorded_attention(model) as records:
        pixel_values = pixel_values.clone().requires_grad_()
        # With hidden states asked for, the last block computes all of its tokens.
        outputs = model.vit(pixel_values, output_hidden_states=True, return_dict=True, **options)
        logits = model.classification_head(outputs.pooler_output)  # (B, K)
        chosen = logits.argmax(1) if classes is None else torch.tensor(classes, device=logits.device)
        score = logits.gather(1, chosen[:, None]).sum()
        gradients = torch.autograd.grad(score, [record.probabilities for record in records])
    with torch.no_grad():
        rows, columns = model.vit.patch_embedding.grid_of(*pixel_values.shape[2:])
        relevance = reading_of(model, outputs.last_hidden_state, rows * columns).float()  # (B, T)
        for record, gradient in zip(reversed(records), reversed(gradients), strict=True):
            speaks_for = (
                record.of_patches((record.probabilities * gradient).clamp(min=0)).float().mean(dim=1)
            )  # (B, T, T)
            relevance = relevance + (relevance.unsqueeze(1) @ speaks_for).squeeze(1)
    return relevance[:, -rows * columns :].unflatten(1, (rows, columns))


def check_classifier(model: Any) -> None:
    """Refuse what is no classifier of this package.

    Raises:
        ValueError: with what makes it one.
    """
    kind = getattr(getattr(model, "config", None), "model_type", type(model).__name__)
    if kind != "vit_scratch":
        raise ValueError(
            f"only models of type vit_scratch can be explained, and this one is of type {kind}: "
            "`vit-scratch import` makes it one."
        )
    if not hasattr(model, "classification_head"):
        raise ValueError(f"{type(model).__name__} is no classifier: there is no class to explain.")
    if not model.config.num_labels:
        raise ValueError("the model has no classes: there is nothing to explain.")
    if model.config.problem_type == "regression":
        raise ValueError("the model predicts numbers (problem_type regression): there is no class to explain.")


# --- Occlusion -------------------------------------------------------------------------------------------------------


def occluded(pixel_values: Tensor, patches: Tensor, patch_size: int | tuple[int, int]) -> Tensor:
    """Images with some patches grey: each gets the mean of the image's pixels, which says nothing of what was there.

    Args:
        pixel_values: (B, C, H, W).
        patches: (B, rows, columns), true where a patch is hidden.
        patch_size: pixels, one number or (height, width).
    """
    height, width = height_width(patch_size)
    mask = patches[:, None].repeat_interleave(height, 2).repeat_interleave(width, 3)  # (B, 1, H, W)
    return torch.where(mask, pixel_values.mean(dim=(2, 3), keepdim=True), pixel_values)


def most_important(importance: Tensor, number: int) -> Tensor:
    """True for so many patches of each image, those of the largest numbers: (B, rows, columns) -> same."""
    flat = importance.flatten(1)
    chosen = torch.zeros_like(flat, dtype=torch.bool).scatter(1, flat.topk(number).indices, True)
    return chosen.view_as(importance)


@dataclass
class Occlusion:
    """The probability of a class with patches hidden.

    Args:
        number: how many patches were hidden.
        whole: with none hidden.
        important: with the most important ones hidden.
        random: with as many random ones hidden, the mean of some draws.
        spread: the standard deviation of these draws.
    """

    number: int
    whole: float
    important: float
    random: float
    spread: float

    @property
    def verdict(self) -> str:
        """How much what is called important matters, beside random patches: "more", "less" or "as much".

        It matters more or less if hiding it is further from hiding random patches than these are from one another.
        """
        difference, least = self.random - self.important, max(self.spread, LEAST_DIFFERENCE)
        return "as much" if abs(difference) <= least else "more" if difference > 0 else "less"


@torch.inference_mode()
def occlusion(
    model: PreTrainedModel,
    pixel_values: Tensor,
    importance: Tensor,
    class_index: int,
    *,
    share: float = 0.2,
    draws: int = 20,
    **options: Any,
) -> Occlusion:
    """Whether what a map calls important is: hide it, and as many random patches, and see what the model says.

    Args:
        model: a classifier.
        pixel_values: (1, C, H, W), one image.
        importance: (1, rows, columns), the map.
        class_index: of which class the probability is meant.
        share: of the patches that are hidden, at least one.
        draws: of random patches.
        **options: of the forward pass.
    """
    number = max(1, round(share * importance[0].numel()))
    random = torch.Generator().manual_seed(0)
    noise = torch.rand(draws, *importance.shape[1:], generator=random).to(importance.device)
    masks = torch.cat((torch.zeros_like(importance, dtype=torch.bool), most_important(importance, number)))
    masks = torch.cat((masks, most_important(noise, number)))  # (2 + draws, rows, columns)
    images = occluded(pixel_values.expand(len(masks), -1, -1, -1), masks, model.config.patch_size)
    scores = probabilities(model(images, **options).logits, model.config)[:, class_index]
    whole, important, draws_of_it = float(scores[0]), float(scores[1]), scores[2:]
    return Occlusion(number, whole, important, float(draws_of_it.mean()), float(draws_of_it.std(correction=0)))
