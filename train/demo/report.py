"""The texts below the pictures: one line of what happened, the scores, and what is known of the degradations."""

from __future__ import annotations

import math
from html import escape

from clearfuse.synth.operators import operator_class
from clearfuse.synth.types import Step
from clearfuse.train.demo.result import CLASSICAL_PYRAMID, PYRAMID, Result
from clearfuse.train.demo.state import Language, State
from clearfuse.train.demo.words import operator_word, say
from clearfuse.train.metrics import find_metric
from clearfuse.train.pipeline.blind import Request


def status(result: Result, state: State) -> str:
    """One line: size, time, model, and how the task was told."""
    language, pair = state.language, result.pair
    height, width = result.fused.shape[:2]
    parts = [say("time", language).format(size=f"{width}×{height}", seconds=f"{result.seconds:.2f}", model=state.model)]
    if pair.why:
        parts.append(say("guessed", language).format(task=say(pair.task, language), why=pair.why))
    if pair.swapped:
        parts.append(say("swapped", language))
    if result.request is not None:
        parts.append(estimated(result.request, language))
    if state.prompt and state.model in (PYRAMID, CLASSICAL_PYRAMID):
        parts.append(say("no_prompt", language).format(model=state.model))
    return _line("; ".join(parts) + ("。" if language == "zh" else "."), "note")


def estimated(request: Request, language: Language) -> str:
    """What was estimated of a pair without an instruction, and what was asked for."""
    if request.why:
        return say("not_looked", language).format(why=request.why)
    if not request.found:
        return say("nothing_found", language)
    found = [
        say("found", language).format(
            degradation=operator_word(one.finding.op, language),
            where=say(f"on_{one.target}", language),
            strength=one.finding.strength(),
            sure=round(100 * one.finding.certainty),
        )
        for one in request.found
    ]
    return say("estimated", language).format(found=", ".join(found), prompt=request.prompt)


def problem(text: str) -> str:
    """One line that says what is wrong."""
    return _line(text, "problem")


def _line(text: str, kind: str) -> str:
    return f'<p class="cf-{kind}" role="{"alert" if kind == "problem" else "status"}">{escape(text)}</p>'


def scores_table(result: Result, language: Language) -> str:
    """The scores of each method, the best of each column in bold."""
    names = [*next(iter(result.scores.values()))]
    head = "".join(f"<th>{escape(name)}</th>" for name in (say("method", language), *names))
    rows: list[str] = []
    for method, values in result.scores.items():
        cells = [_score(name, values[name], [other[name] for other in result.scores.values()]) for name in names]
        rows.append(f"<tr><td>{escape(method)}</td>{''.join(cells)}</tr>")
    why = say("scores_truth" if result.has_truth else "scores_pair", language)
    return _block(say("scores", language), f"<table><tr>{head}</tr>{''.join(rows)}</table><p>{escape(why)}</p>")


def _score(name: str, value: float, others: list[float]) -> str:
    metric = find_metric(name)
    unit = " dB" if name == "PSNR" else ""
    text = "∞" if math.isinf(value) else "–" if math.isnan(value) else f"{value:.{min(metric.digits, 3)}f}{unit}"
    best = len(others) > 1 and value == max(others)
    return f"<td>{f'<b>{text}</b>' if best else text}</td>"


def known_table(result: Result, state: State) -> str:
    """What was done to the pair: by degradation the images, the severity, and the physical parameters with units."""
    language = state.language
    rows = [
        f"<tr><td>{escape(operator_word(step.op, language))}</td><td>{say(f'on_{step.target}', language)}</td>"
        f"<td>{step.severity or 0:.2f}</td><td>{escape(parameters(step))}</td></tr>"
        for step in result.steps
    ]
    keys = ("degradation", "where", "severity", "parameters")
    head = "".join(f"<th>{escape(say(key, language))}</th>" for key in keys)
    text = f"<table><tr>{head}</tr>{''.join(rows)}</table>" if rows else f"<p>{say(_nothing(state), language)}</p>"
    if result.left_out:
        names = ", ".join(operator_word(name, language) for name in result.left_out)
        text += f"<p>{escape(names)}: {say('left_out', language)}</p>"
    return _block(say("known", language), text)


def _nothing(state: State) -> str:
    return "unknown" if state.scene is None else "clean_scene"


def parameters(step: Step) -> str:
    """What drives a step's strength, with units: ``visibility 412 m``."""
    ranges = operator_class(step.op).ranges()
    return ", ".join(
        f"{name.replace('_', ' ')} {value:.4g} {ranges[name].unit}".rstrip()
        for name, value in step.params.items()
        if ranges[name].kind == "severe" and isinstance(value, (int, float))
    )


def _block(title: str, text: str) -> str:
    return f'<div class="cf-block"><h3>{escape(title)}</h3>{text}</div>'
