"""Expansion of prompt pools: what is kept and why the rest is rejected, with a tiny local model and with servers."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch

from clearfuse.synth.files.resources import resource_dir
from clearfuse.synth.prompts.compose import compose
from clearfuse.synth.prompts.expand import check, expand, pool_toml, read_answer
from clearfuse.synth.prompts.pages import page_bytes
from clearfuse.synth.prompts.pools import Phrase, load_pool, load_tasks, pool_names
from clearfuse.synth.prompts.wording import Rules, as_phrase, english_faults, likeness, repeats
from clearfuse.synth.prompts.writers import EndpointWriter, LocalWriter
from clearfuse.synth.seeds import generator
from clearfuse.synth.types import Step, UserError, WorkIncomplete
from conftest import Ran

GOOD = [
    {
        "kind": "imperative",
        "text": "Strip the {strength} fog out of {image} and keep the lamps sharp.",
        "clause": "strip the {strength} fog out of {image}",
    },
    {
        "kind": "question",
        "text": "Would a clearer day without this mist be possible for {image}?",
        "clause": "chase the mist away[ in {image}]",
    },
    {
        "kind": "terse",
        "text": "no fog, crisp skyline in {image}",
        "clause": "banish all the {strength} fog[ in {image}]",
    },
]
DUPLICATE = {
    "kind": "imperative",
    "text": "Remove the {strength} haze from {image}.",
    "clause": "scrub the haze off {image}",
}
NEAR = {
    "kind": "imperative",
    "text": "clear away the {strength} fog so that far buildings in {image} can be seen again",
    "clause": "brush the fog aside[ in {image}]",
}
NAMELESS = {"kind": "terse", "text": "cleaner {image}, please", "clause": "clean up {image}"}
HOLE = {"kind": "terse", "text": "fog-free {picture}", "clause": "wash the fog out of {image}"}
LONG = {
    "kind": "imperative",
    "text": "clear the fog " + "very very well " * 10,
    "clause": "sweep the fog out of {image}",
}


def rules(op: str = "haze") -> Rules:
    others = [load_pool(other) for other in pool_names() if other != op]
    return Rules(load_pool(op), others, load_tasks())


def phrase(
    kind: str = "imperative", text: str = "sweep the haze off {image}", clause: str = "sweep the haze away"
) -> Phrase:
    made = as_phrase({"kind": kind, "text": text, "clause": clause}, "haze-machine-01", "m, seed 0")
    assert made is not None
    return made


# --- the rules


@pytest.mark.slow
@pytest.mark.parametrize("op", pool_names())
def test_shipped_phrases_keep_the_rules_for_new_ones(op: str) -> None:
    pool = load_pool(op)
    fallen = [(one.text, fault) for one in pool.phrases if (fault := rules(op).fault(one)) is not None]
    assert len(fallen) <= len(pool.phrases) // 8, fallen


@pytest.mark.parametrize("entry", GOOD)
def test_good_phrases_join(entry: dict[str, str]) -> None:
    made = phrase(**entry)
    assert rules().fault(made) is None and repeats(made, load_pool("haze").phrases) is None
    assert made.text[0].islower() and made.text[-1].isalpha() | (made.text[-1] == "}")


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        ({"text": "clean up {image}"}, "without the fault's name"),
        ({"text": "clean up {image}[, the haze too]"}, "without the fault's name"),
        ({"clause": "clean up {image}"}, "without the fault's name"),
        ({"text": "remove the haze and the rain from {image}"}, "naming another fault"),
        ({"text": "remove the haze from {picture}"}, "with a wrong placeholder"),
        ({"text": "remove the haze from {image"}, "with a wrong placeholder"),
        ({"text": "{image} is full of haze"}, "with a misplaced placeholder"),
        ({"text": "remove haze from the {image}"}, "with a misplaced placeholder"),
        ({"text": "remove a {strength} haze from {image}"}, "with a misplaced placeholder"),
        ({"text": "add {strength} haze to {image}"}, "asking for something else"),
        ({"text": "remove the haze, but don't touch the rest of {image}"}, "asking for something else"),
        ({"text": "clear the haze, then fuse {image}"}, "asking for something else"),
        ({"text": "clear the haze in the thermal image"}, "asking for something else"),
        ({"text": "can you clear the haze in {image}"}, "not of their kind"),
        ({"kind": "question"}, "not of their kind"),
        ({"clause": "the haze goes away"}, "not of their kind"),
        ({"clause": "clearing the haze"}, "not of their kind"),
        ({"clause": "clear the haze, the sky too"}, "not of their kind"),
        ({"kind": "terse", "text": "haze gone " + "far " * 12 + "from {image}"}, "not of their kind"),
        ({"text": "clear the haze " + "from far off " * 8 + "in {image}"}, "too long"),
        ({"clause": "clear the haze that lies above all of the wide old town over here"}, "too long"),
        ({"text": "clear the haze" + "e" * 20 + " and the haze"}, "too long"),
        ({"text": "clear an haze from {image}"}, "not grammatical"),
        ({"text": "clear the the haze from {image}"}, "not grammatical"),
        ({"text": "clear the haze\nfrom {image}"}, "not plain text"),
        ({"text": "clear the haze. Then rest"}, "not plain text"),
        ({"text": "clear the haze from {image} ☀ now"}, "not plain text"),
        ({"text": "dehaze"}, "too short"),
    ],
)
def test_why_a_phrase_falls(changed: dict[str, str], fault: str) -> None:
    assert rules().fault(phrase(**changed)) == fault


@pytest.mark.parametrize(
    "entry", [3, {}, {"kind": "terse", "text": "dehaze it"}, {**GOOD[0], "kind": "loud"}, {**GOOD[0], "text": " ?"}]
)
def test_what_is_no_phrase(entry: Any) -> None:
    assert as_phrase(entry, "x", "") is None


def test_likeness_counts_words_in_order() -> None:
    assert likeness("Remove the {strength} haze[ from {image}]", "remove the haze from") == 1
    assert likeness("remove the haze", "remove the fog") == pytest.approx(2 / 3)
    assert likeness("dehaze it", "bring back colour") == 0
    assert list(english_faults("Clear the haze.")) == []


def test_answers_are_read_whatever_stands_around_them() -> None:
    lines = "\n".join(map(json.dumps, GOOD))
    for answer in (lines, f"Sure!\n```json\n{lines}\n```", json.dumps(GOOD), json.dumps({"phrases": GOOD})):
        assert read_answer(answer) == (GOOD, 0)
    assert read_answer('{"text": "cut {image}\n' + lines) == (GOOD, 1)
    assert read_answer("no idea") == ([], 0) and read_answer("{" * 50) == ([], 1)


# --- expansion, with a fake writer


class Fixed:
    """Returns the same text, and records its requests."""

    name = "test/fixed"

    def __init__(self, answer: str) -> None:
        self.answer, self.asked = answer, list[str]()

    def __call__(self, messages: Any, seed: int, lines: int) -> str:
        self.asked.append(messages[-1]["content"])
        return self.answer


def test_pools_grow_marked_and_are_built_from(tmp_path: Path) -> None:
    writer = Fixed(
        "\n".join(json.dumps(one) for one in [*GOOD, DUPLICATE, NEAR, NAMELESS, HOLE, LONG, GOOD[0]]) + '\n{"kind"'
    )
    grown = expand(lambda: writer, ["haze"], 10, str(tmp_path / "out"), seed=5)["haze"]
    assert grown.line() == (
        "10 asked, 3 kept; rejected: 2 duplicate, 1 unreadable, 1 near-duplicate, 1 without the fault's name, "
        "1 with a wrong placeholder, 1 too long"
    )
    shipped, made = load_pool("haze"), load_pool("haze", tmp_path / "out")
    assert made.phrases[: len(shipped.phrases)] == shipped.phrases
    new = made.phrases[len(shipped.phrases) :]
    assert [one.id for one in new] == ["haze-machine-01", "haze-machine-02", "haze-machine-03"]
    assert {one.source for one in new} == {"test/fixed, seed 5"} and not any(one.source for one in shipped.phrases)
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {path.name for path in resource_dir("prompts").glob("*.toml")}
    assert (tmp_path / "out/rain.toml").read_bytes() == page_bytes(resource_dir("prompts") / "rain.toml")
    assert not list(tmp_path.glob(".tmp-*"))
    # A sample's metadata shows that a model wrote its prompt.
    used = {
        name
        for seed in range(200)
        for name in compose("vif", [Step("haze", "a", {}, 1, 0.5)], generator(seed), folder=tmp_path / "out").templates
    }
    assert {one.id for one in new} <= used
    assert (
        '"kind": "' in writer.asked[0] and "haze, hazy, dehaze" in writer.asked[0] and "Write 10 new" in writer.asked[0]
    )


def test_pools_that_grew_can_grow_again(tmp_path: Path) -> None:
    first, second = (Fixed(json.dumps(one)) for one in GOOD[:2])
    expand(lambda: first, ["haze"], 1, str(tmp_path / "one"))
    grown = expand(lambda: second, ["haze"], 1, str(tmp_path / "two"), folder=tmp_path / "one")
    assert [one.id for one in grown["haze"].kept] == ["haze-machine-02"]
    again = expand(lambda: first, ["haze"], 1, str(tmp_path / "three"), folder=tmp_path / "two")
    assert again["haze"].line() == "1 asked, 0 kept; rejected: 1 duplicate"
    assert not (tmp_path / "three").exists()


def test_a_pool_is_written_as_it_is_read(tmp_path: Path) -> None:
    shutil.copy(resource_dir("prompts") / "tasks.toml", tmp_path)
    for op in pool_names():
        (tmp_path / f"{op}.toml").write_text(pool_toml(load_pool(op)))
        assert load_pool(op, tmp_path) == load_pool(op)


def test_many_are_asked_in_several_calls(tmp_path: Path) -> None:
    writer, told = Fixed(""), list[tuple[int, int]]()
    grown = expand(
        *(lambda: writer, ["haze", "rain"], 25, str(tmp_path / "out")),
        progress=lambda done, total: told.append((done, total)),
    )
    assert [one.asked for one in grown.values()] == [25, 25] and told[-1] == (6, 6)
    assert grown["rain"].line() == "25 asked, 0 kept; rejected: 25 missing"
    assert len(set(writer.asked)) == 6  # other phrases are shown each time


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((["hase"], 1, "new", 0, None), "unknown prompt pool 'hase': did you mean 'haze'? allowed: "),
        ((["albumentations:Blur"], 1, "new", 0, None), "unknown prompt pool 'albumentations:Blur': "),
        (([], 0, "new", 0, None), "--count 0: must be in [1, 200]"),
        (([], 1, "new", -1, None), "--seed -1: must be in [0, 2^53)"),
        (([], 1, "new", 0, Path("away")), "--prompts away: folder does not exist"),
        (([], 1, "full", 0, None), "--out full: is there already; name a new folder"),
    ],
)
def test_refused_before_a_model_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, args: tuple[Any, ...], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full/x").touch()
    with pytest.raises(UserError) as error:
        check(*args)
    assert str(error.value).startswith(message)


# --- a local model


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a GPT-2 with random weights and a byte tokenizer."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("models") / "tiny"
    letters = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "<end>"]
    tokenizer = Tokenizer(models.BPE({letter: i for i, letter in enumerate(letters)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[assignment]
    tokenizer.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>").save_pretrained(folder)
    size = {"vocab_size": len(letters), "n_positions": 4096, "n_embd": 8, "n_layer": 1, "n_head": 2}
    config = GPT2Config(**size, bos_token_id=len(letters) - 1, eos_token_id=len(letters) - 1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        GPT2LMHeadModel(config).save_pretrained(folder)
    return folder


ASKED = [{"role": "user", "content": "write"}]


@pytest.mark.slow
def test_a_local_model_answers_alike_for_a_seed(tiny: Path) -> None:
    writer = LocalWriter(str(tiny))
    before = torch.random.get_rng_state()
    first, again, other = (writer(ASKED, seed, 1) for seed in (1, 1, 2))
    assert first == again != other and writer.name == "tiny"
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.slow
def test_gibberish_is_not_kept(tiny: Path, tmp_path: Path, synth: Callable[..., Ran]) -> None:
    args = ("prompts", "expand", "--op", "haze", "--count", "2", "--out", tmp_path / "out")
    ran = synth(*args, "--model", tiny)
    assert ran.code == 1 and not (tmp_path / "out").exists()
    assert ran.error.startswith("synth: error: nothing kept of 2 phrasings (") and ran.error.endswith(
        "nothing is written"
    )
    assert ran.out.startswith("haze: 2 asked, 0 kept; rejected: 2 ")


@pytest.mark.slow
def test_weights_that_are_pickled_are_not_loaded(tiny: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pickled"
    shutil.copytree(tiny, folder)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"^--model \S*pickled: cannot be loaded with safetensors: .*safetensors"):
        LocalWriter(str(folder))


@pytest.mark.slow
def test_a_model_that_is_not_there(tmp_path: Path, synth: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty").mkdir()
    ran = synth("prompts", "expand", "--model", tmp_path / "empty", "--out", tmp_path / "out")
    assert ran.code == 2 and "cannot be loaded" in ran.error
    ran = synth("prompts", "expand", "--out", tmp_path / "out")
    assert ran.code == 2
    assert ran.error == "synth: error: prompts expand needs --model FOLDER|HUB_ID, or --endpoint URL"


@pytest.mark.slow
def test_a_context_that_is_too_short(tiny: Path) -> None:
    writer = LocalWriter(str(tiny))
    with pytest.raises(UserError, match=r"^--model tiny: its context of 4096 tokens is too short: 4091 are asked$"):
        writer([{"role": "user", "content": "a" * 4090}], 0, 1)


# --- an endpoint

Reply = Callable[[BaseHTTPRequestHandler, dict[str, Any]], None]


def answered(handler: BaseHTTPRequestHandler, body: bytes, status: int = 200, **headers: str) -> None:
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


def chat(text: str) -> bytes:
    return json.dumps({"choices": [{"message": {"role": "assistant", "content": text}}]}).encode()


class Server:
    """A local chat endpoint that replies from a list, repeating the last one; ``seen`` has its requests."""

    def __init__(self, replies: list[Reply]) -> None:
        self.seen: list[tuple[str, dict[str, str], dict[str, Any]]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.seen.append((self.path, dict(self.headers), body))
                replies[min(len(outer.seen), len(replies)) - 1](self, body)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Server]]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.delenv("CLEARFUSE_API_KEY", raising=False)
    servers: list[Server] = []

    def start(*replies: Reply) -> Server:
        servers.append(Server(list(replies)))
        return servers[-1]

    yield start
    for server in servers:
        server.http.shutdown()
        server.http.server_close()


def test_an_endpoint_grows_pools(
    serve: Callable[..., Server], synth: Callable[..., Ran], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLEARFUSE_API_KEY", "secret")
    answer = "\n".join(map(json.dumps, [*GOOD, DUPLICATE])) + '\n{"kind": "terse", "text": '
    server = serve(lambda handler, body: answered(handler, chat(answer)))
    out = tmp_path / "out"
    args = ("prompts", "expand", "--endpoint", server.url, "--model", "org/m", "--op", "haze", "--count", "5")
    ran = synth(*args, "--out", out, "--json")
    assert ran.code == 0
    fell = {"duplicate": 1, "unreadable": 1}
    assert json.loads(ran.out)["pools"] == {"haze": {"asked": 5, "kept": 3, "fell": fell}}
    path, headers, body = server.seen[0]
    assert path == "/v1/chat/completions" and headers["Authorization"] == "Bearer secret"
    assert body["model"] == "org/m" and [one["role"] for one in body["messages"]] == ["system", "user"]
    assert load_pool("haze", out).phrases[-1].source == "org/m, seed 0"
    assert "secret" not in "".join(file.read_text() for file in out.iterdir())
    ran = synth(*args[:-4], "--op", "haze,rain", "--count", "3", "--out", tmp_path / "two")
    assert ran.code == 1 and ran.error == "synth: error: nothing kept for rain"
    assert (tmp_path / "two/rain.toml").is_file()


@pytest.mark.slow
def test_a_build_reads_what_was_written(
    serve: Callable[..., Server], synth: Callable[..., Ran], tmp_path: Path
) -> None:
    server = serve(lambda handler, body: answered(handler, chat("\n".join(map(json.dumps, GOOD)))))
    args = ("prompts", "expand", "--endpoint", server.url, "--op", "haze", "--count", "3", "--out", tmp_path / "out")
    assert synth(*args).code == 0
    assert load_pool("haze", tmp_path / "out").phrases[-1].source == "a model, seed 0"
    ran = synth("build", "--task", "vif", "--prompts", tmp_path / "out", "--dry-run", "--out", tmp_path / "shards")
    assert ran.code == 0


def test_a_transient_failure_is_tried_again(serve: Callable[..., Server]) -> None:
    server = serve(
        lambda handler, body: answered(handler, b"busy", 503),
        lambda handler, body: answered(handler, b"slow down", 429, Retry_After="0"),
        lambda handler, body: answered(handler, chat("yes")),
    )
    writer = EndpointWriter(server.url, pause=0.01)
    assert writer(ASKED, 1, 1) == "yes" and len(server.seen) == 3
    assert "model" not in server.seen[0][2] and "Authorization" not in server.seen[0][1]


def hang(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
    time.sleep(0.6)


def drop(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
    handler.close_connection = True


@pytest.mark.parametrize(
    ("reply", "kind", "message"),
    [
        (lambda h, b: answered(h, b"oh no", 500), WorkIncomplete, "HTTP 500: oh no (2 tries)"),
        (hang, WorkIncomplete, "no answer within 0.2 s (2 tries)"),
        (drop, WorkIncomplete, "cannot be reached: Remote end closed connection without response (2 tries)"),
        (
            lambda h, b: answered(h, b"<html>hi</html>"),
            WorkIncomplete,
            "its answer is no chat completion: <html>hi</html>",
        ),
        (lambda h, b: answered(h, b'{"choices": []}'), WorkIncomplete, "its answer is no chat completion: "),
        (lambda h, b: answered(h, b"[" * 90_000), WorkIncomplete, "its answer is no chat completion: [[["),
        (
            lambda h, b: answered(h, b'{"error": {"message": "no such\\nmodel"}}', 404),
            UserError,
            "HTTP 404: no such model",
        ),
        (lambda h, b: answered(h, b"", 401), UserError, "HTTP 401: Unauthorized"),
    ],
)
def test_servers_that_fail(serve: Callable[..., Server], reply: Reply, kind: type[Exception], message: str) -> None:
    server = serve(reply)
    with pytest.raises(kind) as error:
        EndpointWriter(server.url, timeout=0.2, retries=1, pause=0.01)(ASKED, 1, 1)
    assert str(error.value).startswith(f"{server.url}: {message}") and "\n" not in str(error.value)


def test_a_server_that_fails_leaves_what_was_kept(
    serve: Callable[..., Server], synth: Callable[..., Ran], tmp_path: Path
) -> None:
    good = chat("\n".join(map(json.dumps, GOOD)))
    server = serve(lambda h, b: answered(h, good), lambda h, b: answered(h, b"gone"))
    ran = synth("prompts", "expand", "--endpoint", server.url, "--op", "haze,rain", "--out", tmp_path / "out")
    out = tmp_path / "out"
    assert ran.code == 1 and ran.error == (
        f"synth: error: {server.url}: its answer is no chat completion: gone; {len(GOOD)} phrasings kept until then "
        f"in {out}; go on with --prompts {out} and a new --out"
    )
    assert len(load_pool("haze", out).phrases) == len(load_pool("haze").phrases) + len(GOOD)
    assert load_pool("rain", out) == load_pool("rain")
    server = serve(lambda h, b: answered(h, b"gone"))
    ran = synth("prompts", "expand", "--endpoint", server.url, "--op", "haze", "--out", tmp_path / "none")
    assert ran.code == 1 and ran.error.endswith("its answer is no chat completion: gone; nothing is written")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("url", ["localhost:8000", "file:///etc/passwd", "http://"])
def test_what_is_no_endpoint(url: str) -> None:
    with pytest.raises(UserError, match="must be a URL such as http://localhost:8000/v1"):
        EndpointWriter(url)


CHINESE = [
    {"kind": "imperative", "text": "把{image}里的{strength}雾统统散开。", "clause": "散开[{image}里的]{strength}雾"},
    {"kind": "question", "text": "可否让{image}中的雾全部退去？", "clause": "让[{image}中的]雾全部退去"},
    {"kind": "terse", "text": "remove the haze", "clause": "remove the haze"},
    {"kind": "terse", "text": "{strength}的雾去干净", "clause": "去干净{strength}的雾"},
    {"kind": "imperative", "text": "去除{image}里的雨", "clause": "去除{image}里的雨"},
    {"kind": "imperative", "text": "去除{image}中的{strength}雾", "clause": "去除[{image}中的]{strength}雾"},
]


def test_chinese_pools_grow_by_rules_of_their_own(
    serve: Callable[..., Server], synth: Callable[..., Ran], tmp_path: Path
) -> None:
    server = serve(lambda handler, body: answered(handler, chat("\n".join(map(json.dumps, CHINESE)))))
    out = tmp_path / "out"
    ran = synth(
        *("prompts", "expand", "--endpoint", server.url, "--op", "haze", "--count", "6", "--language", "zh"),
        *("--out", out, "--json"),
    )
    assert ran.code == 0
    fell = {"not plain text": 1, "not of their kind": 1, "without the fault's name": 1, "duplicate": 1}
    assert json.loads(ran.out)["pools"] == {"haze": {"asked": 6, "kept": 2, "fell": fell}}
    assert "plain Chinese" in server.seen[0][2]["messages"][0]["content"]
    grown, before = load_pool("haze", out, "zh").phrases, load_pool("haze", None, "zh").phrases
    assert grown[:-2] == before and any(phrase.sets for phrase in before)
    assert [phrase.id for phrase in grown[-2:]] == ["haze-zh-machine-01", "haze-zh-machine-02"]
    assert load_pool("haze", out) == load_pool("haze")
    ran = synth("prompts", "expand", "--endpoint", server.url, "--language", "mix", "--out", tmp_path / "no")
    assert (ran.code, ran.error) == (2, "synth: error: unknown language 'mix': allowed: en, zh")
