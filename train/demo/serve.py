"""``train demo``: checks, loads and serves. Everything comes from this machine: no fonts, no analytics."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from clearfuse.synth.types import UserError, reason_of

if TYPE_CHECKING:
    import gradio as gr  # pyright: ignore[reportMissingImports]

LARGEST = "1gb"
"""Of an uploaded file, as ``synth.files.storage.MOST_BYTES``."""
POLICY = (
    "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; "
    "connect-src 'self' ws: wss: data: blob:; img-src 'self' data: blob:"
)
"""Content-Security-Policy: gradio's own page names hosts of fonts and scripts, which no browser shall ask."""


def check_address(host: str, port: int) -> None:
    """Raise UserError where a port of an address can't be listened on, before anything is loaded."""
    try:
        socket.create_server((host, port)).close()
    except (OSError, OverflowError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or reason_of(error)
        raise UserError(f"--host {host} --port {port}: cannot be listened on: {reason}") from None


def check_gradio() -> None:
    """Raise UserError where gradio 6 is not installed."""
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    try:
        import gradio  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise UserError("train demo: needs gradio: pip install 'clearfuse[demo]'") from None
    if int(gradio.__version__.partition(".")[0]) < 6:
        raise UserError(f"train demo: needs gradio 6, here is {gradio.__version__}: pip install 'clearfuse[demo]'")


def build_page(models: Sequence[str] = (), device: str | None = None) -> gr.Blocks:
    """The page with these models, the default one where none is named. Raises UserError, before anything is served."""
    check_gradio()
    from clearfuse.train.demo.page import make_page
    from clearfuse.train.demo.result import methods_of

    return make_page(methods_of(models, device))


def launch(page: gr.Blocks, host: str | None, port: int | None, share: bool, block: bool = True) -> Any:
    """Serve a page; returns at once unless ``block``. Raises UserError where the port can't be had."""
    from gradio.themes import Default  # pyright: ignore[reportMissingImports]
    from starlette.middleware import Middleware  # pyright: ignore[reportMissingImports]

    from clearfuse.train.demo.page import CSS

    fonts = ["system-ui", "sans-serif"]
    try:
        return page.launch(
            server_name=host, server_port=port, share=share, quiet=True, css=CSS, prevent_thread_lock=not block,
            theme=Default(font=fonts, font_mono=["ui-monospace", "monospace"]),
            app_kwargs={"middleware": [Middleware(_OwnHost)]}, max_file_size=LARGEST,
        )  # fmt: skip
    except OSError as error:
        raise UserError(f"--host {host} --port {port}: cannot be listened on: {error}") from None


class _OwnHost:
    """ASGI middleware that adds ``POLICY`` to every answer."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def send_with_policy(message: Any) -> None:
            if message["type"] == "http.response.start":
                policy = (b"content-security-policy", POLICY.encode())
                message = {**message, "headers": [*message.get("headers", ()), policy]}
            await send(message)

        await self.app(scope, receive, send_with_policy)
