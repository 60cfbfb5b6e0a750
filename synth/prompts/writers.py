"""Language models that write phrases: a local one of transformers, or an OpenAI-compatible chat endpoint."""

from __future__ import annotations

import json
import os
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from clearfuse.synth.types import UserError, WorkIncomplete, reason_of

KEY_VARIABLE = "CLEARFUSE_API_KEY"
"""The environment variable with the endpoint's key; without it no key is sent."""
MOST_BYTES = 1 << 20
"""Size limit for reading an endpoint's answer."""
TRANSIENT = (408, 409, 425, 429, 500, 502, 503, 504, 529)
"""HTTP statuses after which the request is retried."""
TOKENS_A_LINE = 96

Messages = Sequence[Mapping[str, str]]


@runtime_checkable
class Writer(Protocol):
    """A language model that answers a conversation."""

    @property
    def name(self) -> str:
        """The model's name, recorded with its phrases; never a local path."""
        ...

    def __call__(self, messages: Messages, seed: int, lines: int) -> str:
        """The answer, of about ``lines`` lines. messages: a chat, each with the keys "role" and "content"."""
        ...


class LocalWriter:
    """A causal language model of transformers, from a folder or the hub; only safetensors, no remote code.

    Nucleus sampling with p = 0.95 at temperature 0.9: the same seed and messages give the same answer on the same
    machine. Without a chat template it continues the text of the messages. Raises UserError where the model cannot be
    loaded or its context is too short.
    """

    def __init__(self, source: str) -> None:
        import torch
        from transformers.models.auto.modeling_auto import AutoModelForCausalLM
        from transformers.models.auto.tokenization_auto import AutoTokenizer
        from transformers.utils import logging

        logging.disable_progress_bar()
        self.name = Path(source).resolve().name if Path(source).is_dir() else source
        cuda = torch.cuda.is_available()
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
            self._model: Any = AutoModelForCausalLM.from_pretrained(
                source, use_safetensors=True, trust_remote_code=False, dtype="auto" if cuda else torch.float32
            )
        except Exception as error:  # the hub, tokenizers and safetensors raise various errors
            raise UserError(f"--model {source}: cannot be loaded with safetensors: {reason_of(error)}") from None
        self._model.to("cuda" if cuda else "cpu").eval()

    def __call__(self, messages: Messages, seed: int, lines: int) -> str:
        import torch
        from transformers.generation.configuration_utils import GenerationConfig

        tokens = self._tokens(messages)
        context = getattr(self._model.config, "max_position_embeddings", None)
        max_tokens = lines * TOKENS_A_LINE
        if context is not None:
            max_tokens = min(max_tokens, context - tokens.shape[1])
        if max_tokens < TOKENS_A_LINE // 2:
            raise UserError(
                f"--model {self.name}: its context of {context} tokens is too short: {tokens.shape[1]} are asked"
            )
        end = self._model.generation_config.eos_token_id
        pad = self._tokenizer.pad_token_id
        if pad is None:
            pad = end[0] if isinstance(end, list) else end
        config = GenerationConfig(
            do_sample=True,
            temperature=0.9,
            top_p=0.95,
            top_k=0,
            max_new_tokens=max_tokens,
            eos_token_id=end,
            pad_token_id=pad,
        )
        # generate() takes no generator: seed the global one and restore its state afterwards.
        with torch.random.fork_rng(devices=[tokens.device] if tokens.is_cuda else []), torch.inference_mode():
            torch.manual_seed(seed)
            mask = torch.ones_like(tokens)
            out = self._model.generate(tokens, attention_mask=mask, generation_config=config)
        return str(self._tokenizer.decode(out[0, tokens.shape[1] :], skip_special_tokens=True))

    def _tokens(self, messages: Messages) -> Any:
        if self._tokenizer.chat_template:
            text = self._tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True)
            ids = self._tokenizer(text, add_special_tokens=False, return_tensors="pt").input_ids
        else:
            text = "\n\n".join(message["content"] for message in messages) + "\n"
            ids = self._tokenizer(text, return_tensors="pt").input_ids
        return ids.to(self._model.device)


@dataclass(frozen=True)
class EndpointWriter:
    """``POST URL/chat/completions``: a local server (vLLM, llama.cpp, Ollama) or a provider.

    model: the requested model, None to let the server choose. timeout: seconds without a byte. retries: further
    attempts after a transient failure, after ``pause`` seconds, doubled each time, or as long as the server asks.
    Raises UserError where the server refuses the request, WorkIncomplete where it fails.
    """

    url: str
    model: str | None = None
    key: str | None = None
    timeout: float = 120.0
    retries: int = 4
    pause: float = 1.0

    def __post_init__(self) -> None:
        parts = urllib.parse.urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UserError(f"--endpoint {self.url}: must be a URL such as http://localhost:8000/v1")
        if not self.timeout > 0:
            raise UserError(f"--timeout {self.timeout:g}: must be above 0")

    @staticmethod
    def of_environment(url: str, model: str | None, timeout: float) -> EndpointWriter:
        """The writer with the key from the environment variable ``KEY_VARIABLE``."""
        return EndpointWriter(url, model, os.environ.get(KEY_VARIABLE) or None, timeout)

    @property
    def name(self) -> str:
        """The requested model's name, or "a model" where the server chooses."""
        return self.model or "a model"

    def __call__(self, messages: Messages, seed: int, lines: int) -> str:
        body: dict[str, Any] = {"messages": list(messages), "seed": seed}
        if self.model is not None:
            body["model"] = self.model
        answer = self._post(json.dumps(body).encode())
        try:
            content = json.loads(answer)["choices"][0]["message"]["content"]
        except (ValueError, KeyError, IndexError, TypeError, RecursionError):
            content = None
        if not isinstance(content, str):
            raise WorkIncomplete(f"{self.url}: its answer is no chat completion: {_shorten(answer)}")
        return content

    def _post(self, body: bytes) -> bytes:
        headers = {"Content-Type": "application/json", "User-Agent": "clearfuse"}
        if self.key is not None:
            headers["Authorization"] = f"Bearer {self.key}"
        url = f"{self.url.rstrip('/').removesuffix('/chat/completions')}/chat/completions"
        failure = ""
        for attempt in range(self.retries + 1):
            wait = self.pause * 2**attempt
            try:
                request = urllib.request.Request(url, body, headers)
                with urllib.request.urlopen(request, timeout=self.timeout) as response:
                    return response.read(MOST_BYTES)
            except urllib.error.HTTPError as error:
                with error:
                    failure = f"HTTP {error.code}: {_error_message(error)}"
                if error.code not in TRANSIENT:
                    raise UserError(f"{self.url}: {failure}") from None
                retry_after = error.headers.get("Retry-After", "")
                wait = min(float(retry_after), 60.0) if retry_after.isdigit() else wait
            except TimeoutError:
                failure = f"no answer within {self.timeout:g} s"
            except OSError as error:  # URLError too
                reason = getattr(error, "reason", error)
                timed_out = isinstance(reason, TimeoutError)
                failure = f"no answer within {self.timeout:g} s" if timed_out else f"cannot be reached: {reason}"
            except Exception as error:  # an error of http.client: the connection broke
                failure = f"broke off: {type(error).__name__}"
            if attempt < self.retries:
                time.sleep(wait)
        tries = "1 try" if self.retries == 0 else f"{self.retries + 1} tries"
        raise WorkIncomplete(f"{self.url}: {failure} ({tries})")


def _error_message(error: urllib.error.HTTPError) -> str:
    """The reason in a server's error: the message in its JSON, else the start of the body, else the status's name."""
    try:
        body = error.read(MOST_BYTES)
    except Exception:  # only the status is known
        body = b""
    try:
        message = json.loads(body)["error"]["message"]
    except (ValueError, KeyError, TypeError, RecursionError):
        message = None
    return " ".join(message.split())[:200] if isinstance(message, str) else _shorten(body) or str(error.reason)


def _shorten(body: bytes) -> str:
    text = " ".join(body[:400].decode(errors="replace").split())
    return text if len(text) <= 100 else text[:97] + "..."
