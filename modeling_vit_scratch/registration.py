# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""`model_type: vit_scratch` and `vivit_scratch`, made known to transformers' Auto classes when these are imported.

Importing the package thus costs nothing, and the order of the two imports does not matter. transformers has no entry
points, and its mappings by name lead nowhere outside of it; hence the hook. It watches the modules of the Auto classes,
not `transformers`: who needs one of them does not pay for the others.
"""

import importlib
import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

IMAGES, VIDEOS = (f"{__package__}.model.modeling_{kind}_scratch" for kind in ("vit", "vivit"))
AUTO = "transformers.models.auto"
# Module of models -> Auto class -> which of its classes that serves.
CLASSES = {
    IMAGES: {
        "AutoModel": "ViTScratchModel",
        "AutoModelForImageClassification": "ViTScratchForImageClassification",
        "AutoModelForMaskedImageModeling": "ViTScratchForMaskedImageModeling",
        "AutoBackbone": "ViTScratchBackbone",
    },
    VIDEOS: {
        "AutoModel": "ViViTScratchModel",
        "AutoModelForVideoClassification": "ViViTScratchForVideoClassification",
    },
}


def register() -> None:
    """Register with those Auto classes that are imported, and with the others when they are."""
    for name in REGISTRATIONS.keys() & sys.modules.keys():
        REGISTRATIONS[name]()
    sys.meta_path.insert(0, AfterImport())


class AfterImport(MetaPathFinder):
    """Leaves the import of a module to the other finders, and registers when it is done."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """The specification of a module that is waited for, whose loader registers at its end; of others, none."""
        if name not in REGISTRATIONS:
            return None
        others = (finder.find_spec(name, path, target) for finder in sys.meta_path if finder is not self)
        spec = next(filter(None, others), None)
        if spec is not None and spec.loader is not None:
            load = spec.loader.exec_module

            def load_and_register(module: ModuleType) -> None:
                load(module)
                if module.__name__ == name:  # some loaders serve several modules
                    REGISTRATIONS[name]()

            spec.loader.exec_module = load_and_register  # type: ignore[method-assign]  # of this loader alone
        return spec


class StandIn:
    """What an Auto class has for a model class until that is imported: its use imports it.

    Modules that the model needs import the Auto classes in their turn, so that the model cannot be imported with these.
    """

    def __init__(self, module: str, name: str, config_class: type):
        self.module, self.name, self.config_class = module, name, config_class

    def __getattr__(self, attribute: str) -> Any:
        return getattr(getattr(importlib.import_module(self.module), self.name), attribute)

    def __reduce__(self) -> tuple:
        return StandIn, (self.module, self.name, self.config_class)


def _register_config() -> None:
    from transformers.models.auto.configuration_auto import AutoConfig

    for config_class in _configs().values():
        AutoConfig.register(config_class.model_type, config_class, exist_ok=True)


def _configs() -> dict[str, Any]:
    """Module of models -> their configuration."""
    from .model.configuration_vit_scratch import ViTScratchConfig
    from .model.configuration_vivit_scratch import ViViTScratchConfig

    return {IMAGES: ViTScratchConfig, VIDEOS: ViViTScratchConfig}


def _register_models() -> None:
    """Called when transformers' module is imported, or one of ours."""
    if f"{AUTO}.modeling_auto" not in sys.modules:
        return
    auto = importlib.import_module(f"{AUTO}.modeling_auto")
    for module, config_class in _configs().items():
        for auto_class, name in CLASSES[module].items():
            model_class = getattr(sys.modules.get(module), name, None) or StandIn(module, name, config_class)
            getattr(auto, auto_class).register(config_class, model_class, exist_ok=True)


def _register_image_processors() -> None:
    """Transformers' own of its ViT, by backend, torchvision's only where torchvision is; and ours of videos."""
    from transformers.models.auto.image_processing_auto import AutoImageProcessor
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil
    from transformers.utils import is_torchvision_available

    from .model.configuration_vit_scratch import ViTScratchConfig
    from .model.configuration_vivit_scratch import ViViTScratchConfig
    from .model.image_processing_vivit_scratch import ViViTScratchImageProcessor

    classes: dict[str, type] = {"pil": ViTImageProcessorPil}
    if is_torchvision_available():
        from transformers.models.vit.image_processing_vit import ViTImageProcessor

        classes["torchvision"] = ViTImageProcessor
    AutoImageProcessor.register(ViTScratchConfig, image_processor_classes=classes, exist_ok=True)
    of_videos: dict[str, type] = {"pil": ViViTScratchImageProcessor}
    AutoImageProcessor.register(ViViTScratchConfig, image_processor_classes=of_videos, exist_ok=True)


REGISTRATIONS: dict[str, Callable[[], None]] = {
    f"{AUTO}.configuration_auto": _register_config,
    f"{AUTO}.modeling_auto": _register_models,
    f"{AUTO}.image_processing_auto": _register_image_processors,
    IMAGES: _register_models,
    VIDEOS: _register_models,
}
