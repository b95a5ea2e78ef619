# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""The verb `demo`."""

from ..text import show
from .parsing import Parser, add_checkpoint_flags, add_speed, count, quiet, stoppable


def demo(argv: list[str]) -> int:
    """Run `vit-scratch demo`; the exit status."""
    parser = Parser(prog="vit-scratch demo", description="Show a checkpoint on a page in the browser.")
    parser.add_argument("checkpoint", help="folder or Hub id")
    parser.add_argument(
        "--examples", nargs="*", default=[], metavar="IMAGE", help="image files and folders to try it with"
    )
    parser.add_argument("--title", help="name over the page (default: that of the checkpoint)")
    parser.add_argument("--space", metavar="DIR", help="write a folder that is ready to be a Hub Space, instead")
    parser.add_argument(
        "--server_name", "--server-name", "--host", help="address to listen at (default: 127.0.0.1, this machine alone)"
    )
    parser.add_argument(
        "--server_port", "--server-port", "--port", type=count, help="port (default: the first free one from 7860 on)"
    )
    add_speed(parser)
    add_checkpoint_flags(parser)
    options = vars(parser.parse_args(argv))
    quiet()
    try:
        from ..demo.serving import serve
    except ModuleNotFoundError as error:
        if error.name != "gradio":
            raise
        raise ValueError("the demo needs gradio: pip install 'vit-scratch[demo]'.") from error
    from ..demo.space import write_space

    space, address = options.pop("space"), {name: options.pop(name) for name in ("server_name", "server_port")}
    with stoppable():
        if space is None:
            serve(**options, **address)
        elif any(value is not None for value in address.values()):
            raise ValueError("--space writes a folder and serves nothing: leave out --host and --port.")
        else:
            show(write_space(output=space, **options))
    return 0
