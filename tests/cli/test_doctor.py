"""``clearfuse doctor``: what is there, what is absent and what is wrong, with what to do about each."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from clearfuse import doctor
from clearfuse.doctor import Finding, examine, main
from clearfuse.train.pipeline import shipped


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CLEARFUSE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    return tmp_path / "cache"


def by_name() -> dict[str, Finding]:
    return {one.about: one for one in examine(network=False)}


def test_weights_are_absent_with_the_command_to_get_them_then_there(cache: Path) -> None:
    found = by_name()["fuser swinfusion-vif"]
    assert (found.state, found.advice) == ("absent", "run synth weights get swinfusion-vif")
    (cache / "weights").mkdir(parents=True)
    (cache / "weights/swinfusion-vif.safetensors").touch()
    assert by_name()["fuser swinfusion-vif"].state == "ok"


def test_a_model_that_is_gone_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--offline"]) == 0
    monkeypatch.setattr(shipped, "resource_dir", lambda name: tmp_path)
    assert main(["--offline", "--json"]) == 1
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [one["about"] for one in told if one["state"] == "wrong"] == ["model"]


def test_a_package_that_is_gone_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "USED", ("torch", "no-such-package"))
    wrong = [one for one in examine(network=False) if one.state == "wrong"]
    assert [one.text for one in wrong] == ["no-such-package missing"]


def test_the_hub_answers_refuses_and_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    class Hub(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(403 if self.path == "/refuses" else 200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        for path in ("", "/refuses"):
            monkeypatch.setenv("HF_ENDPOINT", address + path)
            assert doctor._hub().state == "ok"
        server.shutdown()
    assert doctor._hub().state == "absent"
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "unset it" in doctor._hub().advice


def test_other_arguments_are_refused() -> None:
    with pytest.raises(SystemExit, match="unknown argument --jsn; allowed: --json, --offline"):
        main(["--jsn"])
