"""What ``train demo`` refuses before it loads or opens anything."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from clearfuse.synth.types import UserError
from clearfuse.train.demo.result import methods_of
from conftest import Ran


def free_port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


def test_without_gradio_it_says_what_to_install(train: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    ran = train("demo", "--port", free_port())
    assert ran.code == 2 and "needs gradio: pip install 'clearfuse[demo]'" in ran.error
    monkeypatch.setitem(sys.modules, "gradio", SimpleNamespace(__version__="3.18.0"))
    ran = train("demo", "--port", free_port())
    assert ran.code == 2 and "needs gradio 6, here is 3.18.0" in ran.error


def test_an_address_that_cannot_be_had(train: Callable[..., Ran]) -> None:
    assert train("demo", "--port", "70000").code == 2
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        ran = train("demo", "--port", port)
    assert ran.code == 2 and f"--port {port}: cannot be listened on" in ran.error
    ran = train("demo", "--host", "no such host")
    assert ran.code == 2 and "no such host" in ran.error


def test_a_model_that_is_not_there() -> None:
    with pytest.raises(UserError, match="no/such"):
        methods_of(("no/such/../model",), "cpu")
