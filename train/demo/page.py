"""The page's layout in gradio: controls hold a ``State``, outputs show a ``Result``; nothing is computed here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import gradio as gr  # pyright: ignore[reportMissingImports]

from clearfuse.synth.operators import OPERATORS
from clearfuse.synth.types import TASKS, UserError
from clearfuse.train.demo import report
from clearfuse.train.demo.examples import captions, example, thumbnails
from clearfuse.train.demo.pair import instructions
from clearfuse.train.demo.result import Method, run
from clearfuse.train.demo.state import (
    AUTO,
    LANGUAGES,
    SCENES,
    Language,
    State,
    from_query,
    language_of,
    operators_of,
)
from clearfuse.train.demo.words import operator_word, say

SCENE, OWN = "scene", "own"
USUAL = 0.5
"""Severity of a degradation that was just added."""
CSS = """
.gradio-container { max-width: 1240px !important; margin: auto; }
.cf-note, .cf-problem { padding: 8px 12px; border-radius: 8px; margin: 0; }
.cf-note { background: var(--background-fill-secondary); }
.cf-problem { background: #fdecea; color: #8c1d18; border-left: 4px solid #c5221f; }
.cf-block { overflow-x: auto; }
.cf-block h3 { margin: 0 0 6px; }
.cf-block table, .cf-block tr { border: none !important; }
.cf-block table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
.cf-block th, .cf-block td { padding: 5px 10px 5px 0 !important; text-align: left; border: none !important;
  border-bottom: 1px solid var(--border-color-primary) !important; }
#scores td + td { white-space: nowrap; }
.cf-block th { font-weight: 500; color: var(--body-text-color-subdued); }
#examples, #examples .grid-wrap { height: auto !important; min-height: 0 !important; max-height: none !important; }
#examples .grid-container { grid-template-columns: repeat(4, minmax(0, 1fr)) !important; }
#examples .thumbnail-lg { aspect-ratio: 8 / 3.6 !important; }
#examples .thumbnail-lg img { object-fit: cover; object-position: top; }
#examples .caption-label { max-width: 100%; white-space: normal; left: 0; right: 0; bottom: 0; border-radius: 0; }
@media (max-width: 640px) { #examples .grid-container { grid-template-columns: repeat(2, minmax(0, 1fr)) !important; } }
.cf-block p { color: var(--body-text-color-subdued); margin: 6px 0 0; }
#link { min-width: 0 !important; overflow: hidden; }
footer { display: none !important; }
"""
SHOW_LINK = """(query) => {
  if (!query || query.includes('://')) return query;
  const url = new URL(window.location.href);
  url.search = query;
  window.history.replaceState(null, '', url);
  return url.href;
}"""


def make_page(methods: Mapping[str, Method]) -> gr.Blocks:
    """The page. methods: what fuses, by name, the default first."""
    return _Page(methods).blocks


class _Page:
    """The components, and what happens between them."""

    def __init__(self, methods: Mapping[str, Method]) -> None:
        self.methods = methods
        self.texts: list[tuple[gr.Component, str, str]] = []
        """(component, its property, key of its words), which follow the language."""
        self.blocks = gr.Blocks(title="ClearFuse", analytics_enabled=False)
        with self.blocks:
            self._head()
            with gr.Row():
                with gr.Column(scale=4, min_width=320):
                    self._controls()
                with gr.Column(scale=7, min_width=320):
                    self._outputs()
            self._gallery()
            self._events()

    def _text(self, component: Any, **keys: str) -> Any:
        """Register the words of a component: property = key."""
        self.texts += [(component, name, key) for name, key in keys.items()]
        return component

    def _head(self) -> None:
        with gr.Row():
            with gr.Column(scale=5, min_width=240):
                gr.Markdown("# ClearFuse")
                self.intro = self._text(gr.Markdown(say("intro", "en")), value="intro")
            self.language = gr.Radio(
                [("English", "en"), ("中文", "zh")], value="en", show_label=False, container=False, min_width=160,
                elem_id="language",
            )  # fmt: skip

    def _controls(self) -> None:
        self.source = gr.State(SCENE)
        with gr.Tabs(elem_id="source") as self.tabs:
            with gr.Tab(say("scene_tab", "en"), id=SCENE) as self.scene_tab:
                self.task = gr.Radio(list(TASKS), value="vif", elem_id="task")
                self.scene = gr.Slider(1, SCENES, value=3, step=1, elem_id="scene")
            with gr.Tab(say("own_tab", "en"), id=OWN) as self.own_tab:
                self.files = gr.File(file_count="multiple", type="filepath", height=150, elem_id="files")
                self.own_task = gr.Radio([AUTO, *TASKS], value=AUTO, elem_id="own-task")
        self._text(self.scene_tab, label="scene_tab")
        self._text(self.own_tab, label="own_tab")
        self._text(self.task, label="task")
        self._text(self.scene, label="scene")
        self._text(self.files, label="files")
        self._text(self.own_task, label="task")
        self.chosen = self._text(
            gr.Dropdown(list(OPERATORS), value=[], multiselect=True, elem_id="degradations"),
            label="degradations", info="degradations_info",
        )  # fmt: skip
        self.severities = [
            gr.Slider(0, 1, value=USUAL, step=0.05, visible=False, elem_id=f"severity-{name}") for name in OPERATORS
        ]
        self.prompt = self._text(
            gr.Textbox(lines=2, max_lines=4, elem_id="prompt"), label="prompt", placeholder="prompt_hint"
        )
        self.pick = self._text(gr.Dropdown([], value=None, elem_id="pick"), label="pick")
        self.strength = self._text(
            gr.Slider(0, 1, value=1, step=0.05, elem_id="strength"), label="strength", info="strength_info"
        )
        models = [*self.methods]
        self.model = self._text(gr.Dropdown(models, value=models[0], elem_id="model"), label="model")
        self.fuse = self._text(gr.Button(say("fuse", "en"), variant="primary", elem_id="fuse"), value="fuse")

    def _outputs(self) -> None:
        shown: dict[str, Any] = {"interactive": False, "format": "png"}
        self.status = gr.HTML(elem_id="status")
        self.slider = self._text(
            gr.ImageSlider(max_height=520, elem_id="slider", buttons=["download", "fullscreen"], **shown),
            label="slider",
        )
        shown |= {"min_width": 150, "buttons": []}
        with gr.Row():
            self.a = gr.Image(elem_id="a", **shown)
            self.b = gr.Image(elem_id="b", **shown)
        with gr.Row():
            self.fused = self._text(gr.Image(elem_id="fused", **shown), label="fused")
            self.difference = gr.Image(elem_id="difference", **shown)
        self.known = gr.HTML(elem_id="known")
        self.scores = gr.HTML(elem_id="scores")
        self.link = self._text(
            gr.Textbox(interactive=False, buttons=["copy"], max_lines=1, elem_id="link"), label="link", info="link_info"
        )

    def _gallery(self) -> None:
        pictures = [*zip(thumbnails(), captions("en"), strict=True)]
        self.gallery = self._text(
            gr.Gallery(
                pictures, columns=4, allow_preview=False, object_fit="contain", height="auto", format="png",
                elem_id="examples", buttons=[],
            ),
            label="gallery",
        )  # fmt: skip

    def _events(self) -> None:
        controls = self._state_inputs()
        outputs = [
            *(self.status, self.slider, self.a, self.b, self.fused, self.difference, self.known, self.scores),
            self.link,
        ]

        def then_run(event: Any, **how: Any) -> None:
            done = event.then(self._run, controls, outputs, show_progress_on=[self.slider, self.status], **how)
            done.then(None, [self.link], [self.link], js=SHOW_LINK)

        self.scene_tab.select(lambda: SCENE, None, self.source, api_visibility="private")
        self.own_tab.select(lambda: OWN, None, self.source, api_visibility="private")
        adapted = [*self.severities, self.chosen, self.pick]
        gr.on(
            [self.chosen.input, self.task.input, self.own_task.input],
            self._adapt, controls, adapted, show_progress="hidden", api_visibility="private",
        )  # fmt: skip
        self.pick.input(
            lambda text: text or "", self.pick, self.prompt, show_progress="hidden", api_visibility="private"
        )
        fuse = self.fuse.click(self._run, controls, outputs, show_progress_on=[self.slider, self.status],
                               scroll_to_output=True, api_visibility="private")  # fmt: skip
        fuse.then(None, [self.link], [self.link], js=SHOW_LINK)
        everything = [*dict.fromkeys([*controls, self.tabs, self.pick, self.gallery, *(one[0] for one in self.texts)])]
        self._shown = everything
        then_run(
            self.gallery.select(self._example, [self.language], everything, api_visibility="private"),
            scroll_to_output=True,
        )
        then_run(
            self.language.input(self._translate, controls, everything, show_progress="hidden", api_visibility="private")
        )
        then_run(self.blocks.load(self._open, None, [*everything, self.status], api_visibility="private"))

    def _state_inputs(self) -> list[gr.Component]:
        return [
            *(self.source, self.task, self.scene, self.files, self.own_task, self.chosen, self.prompt, self.model),
            *(self.language, self.strength, *self.severities),
        ]

    @staticmethod
    def _state(values: Sequence[Any]) -> tuple[State, list[str]]:
        """The state that the controls hold, and the user's files. Raises UserError."""
        source, task, scene, files, own_task, chosen, prompt, model, language, strength, *severities = values
        held = dict(zip(OPERATORS, severities, strict=True))
        own = source == OWN
        task = own_task if own else task
        degradations = {name: float(held[name]) for name in chosen or ()}
        scene = None if own else int(scene)
        return State(task, scene, degradations, prompt or "", model, language, float(strength)), [*(files or ())]

    def _run(self, *values: Any) -> list[Any]:
        """All outputs, or one line that says what is wrong, beside the pictures as they were."""
        try:
            state, files = self._state(values)
            result = run(state, files, self.methods)
        except UserError as error:
            return [report.problem(str(error)), *[gr.skip()] * 8]
        language, task = state.language, result.pair.task
        apart = say("difference_truth" if result.has_truth else "difference_a", language)
        return [
            report.status(result, state),
            gr.update(value=(result.a, result.fused)),
            gr.update(value=result.a, label=say(f"a_{task}", language)),
            gr.update(value=result.b, label=say(f"b_{task}", language)),
            result.fused,
            gr.update(value=result.difference, label=apart),
            report.known_table(result, state),
            report.scores_table(result, language),
            state.to_query(),
        ]

    def _adapt(self, *values: Any) -> list[Any]:
        """The sliders of the chosen degradations, those that the task can have, and instructions that fit."""
        source, task, _, _, own_task, chosen, _, _, language, *_ = values
        task = own_task if source == OWN else task
        allowed = operators_of(task) if task != AUTO else [*OPERATORS]
        kept = [name for name in chosen or () if name in allowed]
        state = State(task, None if source == OWN else 1, dict.fromkeys(kept, USUAL), "", "", language)
        return [
            *(gr.update(visible=name in kept) for name in OPERATORS),
            gr.update(value=kept, choices=[(operator_word(name, language), name) for name in allowed]),
            gr.update(choices=instructions(state), value=None),
        ]

    def _show(self, state: State, words: bool = True, keep_files: bool = False) -> list[Any]:
        """Updates of all controls to a state, in the order of ``everything``."""
        language = state.language
        found: dict[Any, dict[str, Any]] = {component: {} for component in self._shown}
        if words:
            for component, name, key in self.texts:
                found[component][name] = say(key, language)
            found[self.gallery]["value"] = [*zip(thumbnails(), captions(language), strict=True)]
            for component, choices in ((self.task, TASKS), (self.own_task, (AUTO, *TASKS))):
                found[component]["choices"] = [(say(one, language), one) for one in choices]
        own = state.scene is None
        found[self.own_task if own else self.task]["value"] = state.task
        if not own:
            found[self.scene]["value"] = state.scene
        allowed = [*OPERATORS] if state.task == AUTO else operators_of(state.task)
        found[self.chosen] |= {
            "value": [*state.degradations],
            "choices": [(operator_word(name, language), name) for name in allowed],
        }
        for name, slider in zip(OPERATORS, self.severities, strict=True):
            label = f"{operator_word(name, language)}: {say('severity', language)}"
            found[slider] |= {"visible": name in state.degradations, "label": label}
            if name in state.degradations:
                found[slider]["value"] = state.degradations[name]
        found[self.prompt]["value"] = state.prompt
        found[self.pick] |= {"choices": instructions(state), "value": None}
        found[self.strength]["value"] = state.strength
        found[self.model]["value"] = state.model
        found[self.language]["value"] = language
        found[self.tabs]["selected"] = OWN if own else SCENE
        source = OWN if own else SCENE
        if not keep_files:
            found[self.files]["value"] = None
        return [source if component is self.source else gr.update(**changes) for component, changes in found.items()]

    def _translate(self, *values: Any) -> list[Any]:
        try:
            state, _ = self._state(values)
        except UserError:
            state = State(model=next(iter(self.methods)), language=values[8])
        return self._show(state, keep_files=True)

    def _example(self, language: Language, chosen: gr.SelectData) -> list[Any]:
        index = chosen.index[0] if isinstance(chosen.index, (list, tuple)) else chosen.index
        return self._show(example(index, next(iter(self.methods)), language), words=False, keep_files=True)

    def _open(self, request: gr.Request) -> list[Any]:
        """The state of the link that the page was opened by; by none, the first example."""
        query = dict(request.query_params)
        language = language_of(request.headers.get("accept-language", ""))
        model = next(iter(self.methods))
        said = query.get("language", "")
        spoken = next((one for one in LANGUAGES if one == said), language)
        line = ""
        try:
            state = from_query(query, self.methods, language)
            if not any(key in query for key in ("task", "scene", "degradations", "prompt")):
                state = replace(example(0, state.model, state.language), model=state.model)
        except UserError as error:
            state, line = example(0, model, spoken), report.problem(str(error))
        return [*self._show(state), line]
