# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""What the package and the scripts use of other libraries although its name begins with an underscore: all of it.

No version number speaks for these names. `INTERFACES` is the list: with each name stand the reason, the files, and the
test that fails if the name is there still and means something else. A name that is gone, or takes other arguments,
fails here, with the files to look at. A name that is used and not listed fails, and one that is listed and not used.
`BEHAVIOURS` is what is relied on without any name.
"""

import ast
import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "modeling_vit_scratch"
TREES = {
    path.relative_to(ROOT).as_posix(): ast.parse(path.read_text(encoding="utf-8"))
    for path in sorted([*(ROOT / PACKAGE).rglob("*.py"), *(ROOT / "scripts").glob("*.py")])
}
# Of these, Python's documentation says that they are no private names.
OF_NAMED_TUPLES = {"_asdict", "_field_defaults", "_fields", "_make", "_replace"}


class Interface(NamedTuple):
    """What is used of another library."""

    owner: str  # a module, or something in it, where the name is or is read
    name: str
    parameters: str | None  # of a function that is called or overridden; a part of its parameters, in order
    files: str  # where it is used, in the package unless it says otherwise
    reason: str
    test: str  # what notices that it means something else


MODEL, CONFIG = "transformers.modeling_utils", "transformers.configuration_utils"
TRAINER, HELP = "transformers.Trainer", "argparse.HelpFormatter"
METRIC, SCORES = "evaluate.module.EvaluationModule", "evaluation/evaluate_metrics.py"
BASE, TASKS, FIELDS = (
    "model/pretrained_vit_scratch.py",
    "model/modeling_vit_scratch.py",
    "model/configuration_vit_scratch.py",
)
VIDEOS, CLIPS = "model/modeling_vivit_scratch.py", "model/image_processing_vivit_scratch.py"
INTERFACES = (
    # What a model of transformers declares: documented for authors of models.
    Interface(
        MODEL,
        "_auto_class",
        None,
        f"{TASKS} {FIELDS} {VIDEOS} {CLIPS}",
        "which Auto class a saved folder serves",
        "remote_code",
    ),
    Interface(
        f"{MODEL}.PreTrainedModel", "_init_weights", "module", f"{BASE} {VIDEOS}", "how a module begins", "modeling"
    ),
    Interface(MODEL, "_no_split_modules", None, f"{BASE} {VIDEOS}", "what FSDP and device maps keep whole", "sharding"),
    Interface(MODEL, "_supports_sdpa", None, BASE, "the kernel may be asked for", "modeling"),
    Interface(MODEL, "_supports_flash_attn", None, BASE, "the kernel may be asked for", "modeling"),
    Interface(MODEL, "_supports_flex_attn", None, BASE, "the kernel may be asked for", "modeling_compile"),
    Interface(MODEL, "_supports_attention_backend", None, BASE, "registered kernels may be asked for", "modeling"),
    Interface(MODEL, "_can_compile_fullgraph", None, BASE, "the model is one graph", "modeling_compile"),
    Interface(MODEL, "_can_record_outputs", None, BASE, "hidden states and maps come from these modules", "modeling"),
    Interface(MODEL, "_input_embed_layer", None, f"{BASE} {VIDEOS}", "what `get_input_embeddings` gives", "modeling"),
    Interface(
        MODEL,
        "_keys_to_ignore_on_load_unexpected",
        None,
        f"{BASE} {TASKS} {VIDEOS}",
        "one checkpoint serves every task",
        "modeling",
    ),
    Interface(
        "transformers.hf_argparser",
        "_argument_group_name",
        None,
        "data/image_arguments.py training/training_arguments.py",
        "the headings of the help",
        "recipes",
    ),
    # What a model of transformers reads and sets, as transformers' own do, and has no other name.
    Interface(
        CONFIG,
        "_attn_implementation",
        None,
        "model/encoder_vit_scratch.py training/report.py",
        "which kernel runs; there is no public way to read it",
        "modeling",
    ),
    Interface(CONFIG, "_output_attentions", None, FIELDS, "allowed with every kernel, saved as ever", "configuration"),
    Interface(
        CONFIG,
        "_commit_hash",
        None,
        "hub/checkpoint.py training/run_card.py model/publishing_vit_scratch.py",
        "which commit of the Hub was loaded; nothing else remembers it",
        "hub",
    ),
    Interface(
        "transformers.backbone_utils.BackboneConfigMixin",
        "_out_features",
        None,
        FIELDS,
        "no stage is asked for until one is",
        "configuration",
    ),
    Interface(
        "transformers.backbone_utils.BackboneConfigMixin", "_out_indices", None, FIELDS, "as above", "configuration"
    ),
    Interface(
        f"{MODEL}.PreTrainedModel",
        "_initialize_weights",
        "module is_custom_code",
        BASE,
        "of code that is not transformers' own it leaves out modules without weights of their own",
        "modeling",
    ),
    Interface(
        "transformers.initialization",
        "_is_hf_initialized",
        None,
        "model/initialization_vit_scratch.py",
        "the mark of a weight that was loaded, for which no costly one is to be made",
        "modeling",
    ),
    Interface(
        "transformers.image_processing_backends.PilBackend",
        "_preprocess",
        "images",
        "data/model_input.py tracing/preparing.py",
        "only compared: whether a processor's steps are the common ones",
        "deployment",
    ),
    # Checkpoints that are whole or not there: transformers writes its own in place.
    Interface(TRAINER, "_save_checkpoint", "model trial", "training/trainer.py", "the only place to do it", "survival"),
    Interface(
        TRAINER,
        "_save_optimizer_and_scheduler",
        "output_dir",
        "training/saving.py",
        "a part of a checkpoint, which transformers reads back",
        "survival",
    ),
    Interface(TRAINER, "_save_scaler", "output_dir", "training/saving.py", "as above", "survival"),
    Interface(TRAINER, "_save_rng_state", "output_dir", "training/saving.py", "as above", "survival"),
    Interface(
        f"{TRAINER}.save_model",
        "_internal_call",
        None,
        "training/saving.py training/run_folder.py",
        "or it would publish what is not finished",
        "hub",
    ),
    # Processes that load images, ended at once: the garbage collector takes five seconds for each.
    Interface("torch.utils.data.DataLoader", "_iterator", None, "training/trainer.py", "holds them", "training"),
    Interface("torch.utils.data.dataloader", "_shutdown_workers", None, "training/trainer.py", "ends them", "training"),
    Interface(
        "torch.ops.aten",
        "_scaled_dot_product_flash_attention_for_cpu",
        None,
        "inspection/layer_costs.py",
        "torch's counter of operations does not know it",
        "dry_run",
    ),
    Interface(
        "torch.utils",
        "_python_dispatch",
        None,
        "scripts/measure_scale.py",
        "the only home of `TorchDispatchMode`, which sees collectives",
        "measure_scale",
    ),
    Interface("torch.Tensor", "_base", None, "scripts/measure_scale.py", "views of weights take none", "measure_scale"),
    # Metrics: the first two are what the documentation of evaluate tells authors to write.
    Interface(METRIC, "_info", "", SCORES, "the columns", "metrics"),
    Interface(METRIC, "_compute", "", SCORES, "the metric", "metrics"),
    Interface(
        METRIC,
        "_build_data_dir",
        "",
        SCORES,
        "or there would be a folder in a cache",
        "metrics",
    ),
    Interface(METRIC, "_finalize", "", SCORES, "without images there is one sentence", "metrics"),
    # The help of train and pretrain, which has a hundred flags.
    Interface("argparse", "_actions", None, "training/recipes.py", "hides flags of the other verb", "pretraining"),
    Interface(HELP, "_format_args", "action default_metavar", "training/recipes.py", "one spelling a flag", "recipes"),
    Interface(HELP, "_format_action_invocation", "action", "training/recipes.py", "one spelling a flag", "recipes"),
    Interface(HELP, "_fill_text", "text width indent", "training/recipes.py", "names are not broken", "recipes"),
)


class Behaviour(NamedTuple):
    """What a library does and does not document."""

    library: str
    what: str
    files: str
    test: str


BEHAVIOURS = (
    Behaviour(
        "transformers",
        "a run calls `on_train_begin` when all of its checkpoint is loaded, and before its first step",
        "training/trainer.py",
        "survival",
    ),
    Behaviour(
        "transformers",
        "a saved folder gets the siblings that a file imports, which a pattern finds in its text",
        BASE,
        "remote_code",
    ),
    Behaviour(
        "transformers",
        "with FSDP the first process alone loads weights; those of the others are on the meta device",
        "training/starting.py",
        "sharding",
    ),
    Behaviour(
        "torch",
        "a module that FSDP2 shards is of a class derived from its own, the last of the bases",
        "training/sharding.py",
        "sharding",
    ),
    Behaviour(
        "accelerate",
        "a prepared loader keeps the one that it was made of as `base_dataloader`",
        "training/trainer.py",
        "survival",
    ),
    Behaviour(
        "torch",
        "the message of a worker's error ends with its own, and one that was killed is called `DataLoader worker`",
        "training/trainer.py",
        "survival",
    ),
    Behaviour(
        "torch",
        "collectives of FSDP2 are `_allgather_base_` and `_reduce_scatter_base_` of c10d",
        "scripts/measure_scale.py",
        "measure_scale",
    ),
    Behaviour("gradio", "uploads lie where `GRADIO_TEMP_DIR` says as a page is built", "demo/serving.py", "demo"),
)


def found(path: str) -> Any:
    """A module, or what is in it."""
    module, rest = path, []
    while True:
        try:
            thing = importlib.import_module(module)
            break
        except ImportError:
            module, _, name = module.rpartition(".")
            rest.insert(0, name)
    for name in rest:
        thing = getattr(thing, name)
    return thing


def files_of(interface: Interface | Behaviour) -> list[str]:
    return [file if file.startswith("scripts/") else f"{PACKAGE}/{file}" for file in interface.files.split()]


@pytest.mark.parametrize("interface", INTERFACES, ids=lambda interface: interface.name)
def test_every_interface_is_as_it_was(interface):
    changed = (
        f"{interface.owner.split('.')[0]} changed {interface.name} of {interface.owner}, which "
        f"{' and '.join(files_of(interface))} relied on ({interface.reason}): mend it there, then here."
    )
    try:
        owner = found(interface.owner)
    except AttributeError:
        pytest.fail(changed)
    if interface.parameters is None:
        assert hasattr(owner, interface.name) or interface.name in inspect.getsource(owner), changed
        return
    function = getattr(owner, interface.name, None)
    assert function is not None, changed
    parameters = list(inspect.signature(function).parameters)[1:]
    assert parameters[: len(interface.parameters.split())] == interface.parameters.split(), changed


def test_what_is_used_of_others_is_what_is_listed():
    used = set(foreign_names())
    listed = {(file, interface.name) for interface in INTERFACES for file in files_of(interface)}
    private = ", ".join(f"{name} in {file}" for file, name in sorted(used - listed))
    stale = ", ".join(f"{name} in {file}" for file, name in sorted(listed - used))
    assert not private, f"private names of others: use public ones, or list them in INTERFACES: {private}"
    assert not stale, f"listed in INTERFACES and not used any more: {stale}"


def test_the_files_and_the_tests_that_are_named_are_there():
    for item in (*INTERFACES, *BEHAVIOURS):
        assert (ROOT / "tests" / f"test_{item.test}.py").is_file(), item
        assert all((ROOT / file).is_file() for file in files_of(item)), item


# --- What is used ----------------------------------------------------------------------------------------------------


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name != "_" and name not in OF_NAMED_TUPLES


def foreign_names() -> Iterator[tuple[str, str]]:
    """The file and the name of all that is not of the package itself."""
    classes = {
        file: [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)] for file, tree in TREES.items()
    }
    own = {name for several in classes.values() for one in several for name in members(one)}
    read = {name for tree in TREES.values() for name, how in accesses(tree) if how == "read"}
    for file, tree in TREES.items():
        yield from ((file, name) for name, how in accesses(tree) if how == "foreign" or name not in own)
        # What a class has and nothing here reads is there for others to read.
        yield from ((file, name) for one in classes[file] for name in members(one) if name not in read)
        yield from ((file, name) for one in classes[file] for name in inherited(file, one))


def accesses(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Each private name that is used, and how: "read" or "written", or "foreign" where it is surely of others."""
    for node in ast.walk(tree):
        names, how = [], "foreign"
        if isinstance(node, ast.Attribute):
            names = [node.attr]
            if not (isinstance(node.value, ast.Call) and ast.unparse(node.value.func) == "super"):
                how = "read" if isinstance(node.ctx, ast.Load) else "written"
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in {"getattr", "hasattr", "setattr", "delattr"}:
            names, how = [node.args[1].value] if isinstance(node.args[1], ast.Constant) else [], "read"
        elif isinstance(node, ast.keyword):
            names = [node.arg or ""]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = [*str(node.module).split("."), *(alias.name for alias in node.names)]
        elif isinstance(node, ast.Import):
            names = [part for alias in node.names for part in alias.name.split(".")]
        yield from ((name, how) for name in names if is_private(name))


def members(node: ast.ClassDef) -> set[str]:
    """The private names that a class gives to its methods and attributes."""
    methods = {item.name for item in node.body if isinstance(item, ast.FunctionDef)}
    targets = [target for item in node.body for target in getattr(item, "targets", [getattr(item, "target", None)])]
    attributes = {target.id for target in targets if isinstance(target, ast.Name)}
    own = {item.attr for item in ast.walk(node) if isinstance(item, ast.Attribute) and is_set_on_self(item)}
    return {name for name in methods | attributes | own if is_private(name)}


def is_set_on_self(node: ast.Attribute) -> bool:
    return isinstance(node.ctx, ast.Store) and isinstance(node.value, ast.Name) and node.value.id == "self"


def inherited(file: str, node: ast.ClassDef) -> set[str]:
    """The private names of a class that one of its bases in another library has, too."""
    names = members(node)
    if not names or not node.bases or not file.startswith(PACKAGE):
        return set()
    cls = getattr(importlib.import_module(file.removesuffix(".py").replace("/", ".")), node.name)
    bases = [base for base in cls.__mro__ if not base.__module__.startswith((PACKAGE, "builtins", "typing", "abc"))]
    sources = [Path(inspect.getsourcefile(base)).read_text(encoding="utf-8") for base in bases]
    return {
        name
        for name in names
        if any(name in vars(base) for base in bases) or any(f"self.{name} " in source for source in sources)
    }
