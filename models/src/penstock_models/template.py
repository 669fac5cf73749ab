"""The chat template and the safe way to encode a conversation with it.

Text from users and tools could spell a special token. It is therefore never encoded together with
the template: each piece of content is replaced by a private-use sentinel, the template is rendered,
and the result is cut at the sentinels. Only what the template itself wrote may become special.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from penstock_models.dialogues import compact

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from tokenizers import Tokenizer

CHAT_TEMPLATE = (
    "{{- bos_token -}}"
    "{%- if tools -%}{{- '<|tools|>' -}}"
    "{%- for tool in tools -%}"
    "{%- if not loop.first -%}{{- ' ' -}}{%- endif -%}"
    "{{- (tool.function if tool.function is defined else tool).name -}}"
    "{%- endfor -%}{{- '<|end|>' -}}{%- endif -%}"
    "{%- for message in messages -%}"
    "{%- if message.role == 'user' -%}"
    "{{- '<|user|>' + message.content + '<|end|>' -}}"
    "{%- elif message.role == 'tool' -%}"
    "{{- '<|tool|>' + message.content + '<|end|>' -}}"
    "{%- elif message.role == 'assistant' -%}"
    "{%- if message.tool_calls -%}"
    "{%- for call in message.tool_calls -%}"
    "{%- set called = call.function if call.function is defined else call -%}"
    '{{- \'<|assistant|><|call|>{"name":"\' + called.name + \'","arguments":\''
    " + (called.arguments if called.arguments is string else called.arguments | tojson)"
    " + '}<|end|>' -}}"
    "{%- endfor -%}"
    "{%- else -%}{{- '<|assistant|>' + message.content + '<|end|>' -}}{%- endif -%}"
    "{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}"
)

FIRST_SENTINEL = 0xE000
LAST_SENTINEL = 0xF8FF
SENTINELS = re.compile(f"([{chr(FIRST_SENTINEL)}-{chr(LAST_SENTINEL)}])")

TOOL_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")  # as in the OpenAI API: it needs no hiding


def hide_content(
    messages: Sequence[Mapping[str, Any]],
) -> tuple[list[dict[str, Any]], list[str]]:
    """The messages with sentinels in place of contents, and the contents in sentinel order."""
    contents: list[str] = []

    def hide(text: str) -> str:
        contents.append(text)
        return chr(FIRST_SENTINEL + len(contents) - 1)

    hidden: list[dict[str, Any]] = []
    for message in messages:
        shown = dict(message)
        if shown.get("content"):
            shown["content"] = hide(shown["content"])
        if shown.get("tool_calls"):
            shown["tool_calls"] = [_hide_call(call, hide) for call in shown["tool_calls"]]
        hidden.append(shown)
    return hidden, contents


def _hide_call(call: Mapping[str, Any], hide: Callable[[str], str]) -> dict[str, Any]:
    called = call.get("function", call)
    if not TOOL_NAME.fullmatch(called["name"]):
        message = f"a tool's name must match {TOOL_NAME.pattern}"
        raise ValueError(message)
    arguments = called["arguments"]
    text = arguments if isinstance(arguments, str) else compact(arguments)
    return {"function": {"name": called["name"], "arguments": hide(text)}}


def encode_pieces(tokenizer: Tokenizer, rendered: str, contents: Sequence[str]) -> list[int]:
    """Token ids of a rendered template whose contents stand as sentinels."""
    ids: list[int] = []
    for piece in SENTINELS.split(rendered):
        is_content = SENTINELS.fullmatch(piece) is not None
        tokenizer.encode_special_tokens = is_content
        text = contents[ord(piece) - FIRST_SENTINEL] if is_content else piece
        ids += tokenizer.encode(text, add_special_tokens=False).ids
    return ids
