"""What ``train demo`` refuses before it opens a page."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable

import pytest

from conftest import Ran


def test_without_gradio_it_says_what_to_install(train: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    ran = train("demo")
    assert ran.code == 2 and "needs gradio: pip install 'clearfuse[demo]'" in ran.error


def test_bad_options_are_one_line(train: Callable[..., Ran]) -> None:
    assert train("demo", "--port", "70000").code == 2
    pytest.importorskip("gradio", reason="gradio is not installed: pip install 'clearfuse[demo]'")
    ran = train("demo", "--model", "no/such/../model")
    assert ran.code == 2 and "no/such" in ran.error


def test_a_port_that_is_taken(train: Callable[..., Ran]) -> None:
    pytest.importorskip("gradio", reason="gradio is not installed: pip install 'clearfuse[demo]'")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ran = train("demo", "--port", str(port), "--device", "cpu")
    assert ran.code == 2 and f"--port {port}" in ran.error and "listened" in ran.error
