"""The page in a real browser, headless Chromium: what a visitor does, at a desk and on a phone, in both languages."""

from __future__ import annotations

import shutil
import socket
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.slow

CHROMIUM = shutil.which("chromium")
ARGUMENTS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
LONG = 180_000
"""Milliseconds to wait for a result, on a machine that does other work too."""


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """The page, served by this process."""
    pytest.importorskip("gradio", reason="gradio is not installed: pip install 'clearfuse[demo]'")
    pytest.importorskip("playwright", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # those of the server's own libraries
        from clearfuse.train.demo.serve import build_page, launch

        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        page = build_page(["clearfuse-small"], "cpu")
        launch(page, "127.0.0.1", port, share=False, block=False)
        yield f"http://127.0.0.1:{port}/"
        page.close()


@pytest.fixture(scope="module")
def browser(address: str) -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        opened = play.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield opened
        opened.close()


def visit(browser: Any, address: str, width: int, locale: str = "en-US") -> tuple[Any, list[str]]:
    """A page that has shown its first result, and all addresses that it asked for so far and later."""
    page = browser.new_page(viewport={"width": width, "height": 860}, locale=locale)
    page.set_default_timeout(LONG)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(address)
    page.wait_for_selector("#scores table")
    page.wait_for_function("document.querySelector('#link input, #link textarea')?.value.includes('task=')")
    return page, asked


def picture(page: Any, name: str) -> str:
    return page.get_attribute(f"#{name} img", "src")


def test_a_visitor_hazes_a_scene_and_fuses_it(browser: Any, address: str, tmp_path: Path) -> None:
    page, asked = visit(browser, f"{address}?task=vif&scene=2&model=clearfuse-small", 1280)
    assert "the scene is clean" in page.inner_text("#known")
    before = picture(page, "a")
    page.click("#degradations input")
    page.get_by_role("option", name="haze").click()
    page.keyboard.press("Escape")
    page.wait_for_selector("#severity-haze", state="visible")
    page.fill("#severity-haze input[type=number]", "0.8")
    page.keyboard.press("Tab")
    page.click("#pick input")
    instruction = page.get_by_role("option").first.inner_text()
    page.get_by_role("option").first.click()
    page.wait_for_function("text => document.querySelector('#prompt textarea').value == text", arg=instruction)
    page.click("#fuse")
    page.wait_for_function("document.querySelector('#known').innerText.includes('visibility')")
    assert picture(page, "a") != before
    assert "Fused 640×480 in" in page.inner_text("#status")
    scores = page.inner_text("#scores")
    assert "PSNR" in scores and "dB" in scores and "pyramid" in scores
    # The link is also the address: another visitor sees the same.
    page.wait_for_function("window.location.search.includes('haze')")
    url = page.url
    assert "severities=0.8" in url and "scene=2" in url
    # The slider's line follows the pointer.
    box = page.locator("#slider .slider-wrap, #slider [role=slider], #slider .wrap").first.bounding_box()
    handle = page.locator("#slider .outer, #slider .inner, #slider .icon-wrap").first
    start = handle.bounding_box()
    assert box and start
    page.mouse.move(start["x"] + start["width"] / 2, start["y"] + start["height"] / 2)
    page.mouse.down()
    page.mouse.move(start["x"] - 150, start["y"] + start["height"] / 2, steps=5)
    page.mouse.up()
    moved = handle.bounding_box()
    assert moved and moved["x"] < start["x"] - 100
    other, _ = visit(browser, url, 1280)
    assert "visibility" in other.inner_text("#known") and "0.80" in other.inner_text("#known")
    assert other.input_value("#prompt textarea") == instruction
    assert page.inner_text("#known") == other.inner_text("#known")
    # Nothing was asked of any other machine.
    assert {one for one in asked if not one.startswith((address, "data:", "blob:"))} == set()
    other.close()
    page.close()


def test_own_pictures_good_and_bad(browser: Any, address: str, tmp_path: Path) -> None:
    page, _ = visit(browser, address, 1280)
    rng = np.random.default_rng(0)
    scene = rng.integers(0, 256, (64, 96, 3), np.uint8)
    for name, image in (("dark", scene // 4), ("bright", np.clip(scene * 2.0, 0, 255)), ("less", scene[:32])):
        Image.fromarray(image.astype(np.uint8)).save(tmp_path / f"{name}.png")
    page.get_by_role("tab", name="Your own pictures").click()
    page.click("#fuse")
    page.wait_for_function("document.querySelector('#status').innerText.includes('two pictures make a pair')")
    page.set_input_files("#files input[type=file]", [str(tmp_path / "dark.png"), str(tmp_path / "less.png")])
    page.wait_for_function("document.querySelector('#files').innerText.includes('less')")
    page.get_by_label("Guess from the pictures").check()
    page.click("#fuse")
    page.wait_for_function("document.querySelector('#status').innerText.includes('differ in size: 96x64 and 96x32')")
    page.close()


def test_a_phone_in_chinese(browser: Any, address: str) -> None:
    page, _ = visit(browser, f"{address}?task=mff&scene=1&degradations=snow&severities=0.5", 390, "zh-CN")
    assert page.inner_text("#fuse") == "融合"
    assert "雪" in page.inner_text("#known") and "峰" not in page.inner_text("#status")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    for name in ("slider", "a", "b", "fused", "difference", "fuse"):
        box = page.locator(f"#{name}").bounding_box()
        assert box and box["x"] >= 0 and box["x"] + box["width"] <= 390, name
    page.get_by_label("English").check()
    page.wait_for_function("document.querySelector('#fuse').innerText == 'Fuse'")
    page.wait_for_function("document.querySelector('#known').innerText.includes('snow')")
    page.close()


def test_a_bad_link_is_one_line(browser: Any, address: str) -> None:
    page = browser.new_page()
    page.set_default_timeout(LONG)
    page.goto(f"{address}?task=vfi")
    page.wait_for_function("document.querySelector('#status')?.innerText.includes(\"did you mean 'vif'\")")
    page.close()
