# Copyright 2026 The vit-scratch authors. Licensed under the Apache License, Version 2.0.
"""Serving the page of `demo_page.py`: where it listens, what it keeps, and what it leaves out.

Nothing on the page needs the internet: it has the fonts of the system and no telemetry, and Gradio serves its scripts
itself.
"""

import ipaddress
import os
import socket
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gradio as gr
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware

from ..data.images import pillow_silent
from ..model.publishing_vit_scratch import SAMPLE
from ..text import show
from .demo_page import CSS, build_page, example_files, load_answers
from .uploads import MOST_BYTES, pixels_limited

FONTS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif")
MONO_FONTS = ("ui-monospace", "Menlo", "Consolas", "monospace")
# Bytes of a request: as many names of files as it may have fit; uploads, many in one perhaps, go to the disk.
MOST_IN_MEMORY = 1_000_000
MOST_UPLOADED = 10 * MOST_BYTES
UPLOADS = "/gradio_api/upload"


@contextmanager
def _private_folder() -> Iterator[Path]:
    """Where uploads lie while the page is served: a folder of this user's alone, deleted at the end."""
    with tempfile.TemporaryDirectory(prefix="vit-scratch-demo-", ignore_cleanup_errors=True) as folder:
        # Gradio takes these from the environment alone. It serves whatever is in the two folders, and asks itself
        # whether it is there, which must not go by a proxy.
        direct = os.environ.get("no_proxy", os.environ.get("NO_PROXY", ""))
        settings = {
            "GRADIO_TEMP_DIR": f"{folder}/uploads",
            "GRADIO_EXAMPLES_CACHE": f"{folder}/cache",
            "no_proxy": f"{direct},localhost,127.0.0.1".lstrip(","),
        }
        before = {name: os.environ.get(name) for name in settings}
        os.environ |= settings
        os.mkdir(settings["GRADIO_TEMP_DIR"])
        try:
            yield Path(folder)
        finally:
            for name, value in before.items():
                os.environ.pop(name)
                if value is not None:
                    os.environ[name] = value


def _check_address(server_name: str, server_port: int | None) -> None:
    """Refuse an address that cannot be listened at, before a model is loaded for it; without a port, any will do."""
    if server_port is not None and not 1 <= server_port <= 65535:
        raise ValueError(f"--port (or --server_port) must be from 1 to 65535, got {server_port}.")
    try:
        host, port = server_name.strip("[]"), server_port or 0
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        place = server_name if server_port is None else f"{server_name}, port {server_port}"
        raise ValueError(
            f"the page cannot be served at {place}: {error.strerror}; name another place with --host or --port."
        ) from error


def _is_this_machine(server_name: str) -> bool:
    """Whether only this machine can reach what listens at an address."""
    try:
        found = socket.getaddrinfo(server_name.strip("[]"), None, type=socket.SOCK_STREAM)
        return all(ipaddress.ip_address(str(address[0]).partition("%")[0]).is_loopback for *_, address in found)
    except (OSError, ValueError):
        return False


def serve(
    checkpoint: str,
    *,
    title: str | None = None,
    examples: Sequence[str] = (),
    server_name: str | None = None,
    server_port: int | None = None,
    precision: str = "fp32",
    token_merging: int | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
) -> None:
    """Serve the page of a checkpoint until a signal comes, and print its address.

    Args:
        checkpoint, precision, token_merging, revision, trust_remote_code: those of `load_checkpoint`.
        title: the name over the page; by default that of the checkpoint.
        examples: image files to try it with, and folders of them, besides the checkpoint's own, an image of the data,
            which other machines get only if it is named.
        server_name: the address to listen at; by default `GRADIO_SERVER_NAME`, else 127.0.0.1, this machine alone.
        server_port: by default `GRADIO_SERVER_PORT`, else the first that is free from 7860 on.

    Raises:
        ValueError: if the address is taken, the checkpoint will not do, or an example cannot be read.
    """
    if server_name is not None and ":" in server_name:
        server_name = f"[{server_name.strip('[]')}]"  # an IPv6 address, as URLs have it
    if server_name is not None or server_port is not None:
        _check_address(server_name or "127.0.0.1", server_port)
    answers = load_answers(
        checkpoint,
        title=title,
        precision=precision,
        token_merging=token_merging,
        revision=revision,
        trust_remote_code=trust_remote_code,
    )
    sample, notes = answers.classifier.checkpoint.place / SAMPLE, []
    alone = _is_this_machine(server_name or os.environ.get("GRADIO_SERVER_NAME") or "127.0.0.1")
    with _private_folder() as folder, pillow_silent(), pixels_limited():
        shown = example_files(examples, folder / "examples", str(sample) if alone else "")
        if not alone:
            notes.append("other machines can reach this page, and it has no login")
            if sample.is_file() and not any(name.endswith(f" {SAMPLE}") for name in shown):
                notes.append(f"left out {SAMPLE}, which shows one of your images: --examples {sample} shows it to all")
        page = build_page(answers, shown)
        try:
            _launch(page, server_name, server_port)
            show([f"{answers.title} is at {page.local_url}", *notes])
            page.server.thread.join()
        finally:
            page.close(verbose=False)


class FilesOfHereAlone:
    """Gradio's `file=` fetches any public URL for whoever asks; this refuses such a request before it gets there.

    Args:
        app: what answers the others, as ASGI has it.
    """

    def __init__(self, app: Any):
        self.app = app

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "http" and "://" in scope["path"]:
            await send({"type": "http.response.start", "status": 403, "headers": []})
            await send({"type": "http.response.body", "body": b""})
        else:
            await self.app(scope, receive, send)


class BodiesLimited:
    """A body that is too large is answered with status 413: by the length that it says it has, else when it has it.

    Gradio holds what is sent to it in memory, but for uploads.

    Args:
        app: what answers the others, as ASGI has it.
    """

    def __init__(self, app: Any):
        self.app = app

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        is_upload = scope["path"].removeprefix(scope.get("root_path", "")) == UPLOADS
        most, received = MOST_UPLOADED if is_upload else MOST_IN_MEMORY, 0
        sentence = f"A request to this page has {most // 1_000_000:,} MB at most."
        said = dict(scope["headers"]).get(b"content-length", b"")
        if said.isdigit() and int(said) > most:
            headers = [(b"content-type", b"text/plain"), (b"connection", b"close")]
            await send({"type": "http.response.start", "status": 413, "headers": headers})
            await send({"type": "http.response.body", "body": sentence.encode()})
            return

        async def counted() -> Any:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > most:
                raise HTTPException(413, sentence)
            return message

        await self.app(scope, counted, send)


def _launch(page: gr.Blocks, server_name: str | None, server_port: int | None) -> None:
    page.launch(
        server_name=server_name,
        server_port=server_port,
        prevent_thread_lock=True,
        quiet=True,
        share=False,  # else it is in hosted notebooks, at an address for everyone
        inline=False,
        max_file_size=MOST_BYTES,
        app_kwargs={"middleware": [Middleware(FilesOfHereAlone), Middleware(BodiesLimited)]},
        theme=gr.themes.Default(font=FONTS, font_mono=MONO_FONTS),
        css=CSS,
        footer_links=[],
        run_history=False,
        enable_monitoring=False,
        mcp_server=False,
        pwa=False,
        ssr_mode=False,
    )
