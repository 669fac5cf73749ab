"""A model's own chat template (Jinja2), rendered without ever seeing what was said.

The template is given a placeholder for each message's content, and what comes out is cut at the
placeholders: fixed parts, in which control tokens mean what they say, and the places where the
messages go. So no text of a user can become a control token, and one rendering serves every
conversation with the same sequence of roles.

Convention: Hugging Face's `tokenizer_config.json` (or `chat_template.jinja` beside it), its
`raise_exception` and `tojson`.
"""

from __future__ import annotations

import contextlib
import json
import re
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, NoReturn

from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from penstock_shared.contracts.errors import PermanentError
from penstock_worker.errors import ConversationError

_PLACE: Final = re.compile("\ue000([0-9]+)\ue001")
_KNOWN_ROLES: Final = {"developer": "system"}
"""The OpenAI API's newer name for what templates call "system"."""
_CACHED_SKELETONS: Final = 512

Skeleton = tuple[str | int, ...]
"""Fixed text, and the number of the message that goes in between."""


class ChatTemplate:
    """Renders the order of roles into a skeleton."""

    def __init__(self, source: str, control_tokens: dict[str, str]) -> None:
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
        )
        environment.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)
        environment.globals["raise_exception"] = _refuse
        try:
            self._template = environment.from_string(source)
        except TemplateError as error:
            msg = f"The chat template is no valid Jinja2: {error}"
            raise PermanentError(msg, code="chat_template_invalid") from error
        self._control_tokens = control_tokens
        self.skeleton = lru_cache(maxsize=_CACHED_SKELETONS)(self._skeleton)

    def _skeleton(self, roles: tuple[str, ...]) -> Skeleton:
        """The prompt of a conversation with these roles, ready for the assistant's turn.

        A template that refuses what tools said, or leaves it out, is told that the user said it.

        Raises:
            ConversationError: the template refuses such a conversation.
        """
        if "tool" not in roles:
            return self._render(roles)
        with contextlib.suppress(ConversationError):
            skeleton = self._render(roles)
            if all(n in skeleton for n, role in enumerate(roles) if role == "tool"):
                return skeleton
        return self._render(tuple("user" if role == "tool" else role for role in roles))

    def _render(self, roles: tuple[str, ...]) -> Skeleton:
        messages = [
            {"role": _KNOWN_ROLES.get(role, role), "content": f"\ue000{number}\ue001"}
            for number, role in enumerate(roles)
        ]
        try:
            rendered = self._template.render(
                messages=messages, add_generation_prompt=True, **self._control_tokens
            )
        except TemplateError as error:
            msg = f"This model cannot take the conversation: {error}"
            raise ConversationError(msg, param="input") from error
        parts = _PLACE.split(rendered)  # text, number, text, number, …, text
        return tuple(int(part) if odd % 2 else part for odd, part in enumerate(parts) if part)


def read_chat_template(directory: Path, config: dict[str, Any]) -> ChatTemplate:
    """The template that belongs to a model.

    Raises:
        PermanentError: there is none; the message says where it belongs.
    """
    source = config.get("chat_template")
    beside = directory / "chat_template.jinja"
    if source is None and beside.is_file():
        source = beside.read_text(encoding="utf-8")
    if isinstance(source, list):
        source = _named_default(source)
    if not isinstance(source, str):
        msg = (
            f"No chat template in {directory}: add 'chat_template' to tokenizer_config.json, "
            "or a file chat_template.jinja."
        )
        raise PermanentError(msg, code="chat_template_missing")
    names = ("bos_token", "eos_token", "pad_token", "unk_token")
    return ChatTemplate(source, {name: control_token(config, name) for name in names})


def _named_default(templates: list[Any]) -> str | None:
    """Some checkpoints list several templates by name (for tools, for retrieval): the plain one."""
    named = {t.get("name"): t.get("template") for t in templates if isinstance(t, dict)}
    default = named.get("default")
    return default if isinstance(default, str) else None


def control_token(config: dict[str, Any], name: str) -> str:
    """A control token of `tokenizer_config.json`, which writes it as text or as an object."""
    value = config.get(name)
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else ""


def _refuse(message: str) -> NoReturn:
    raise TemplateError(message)
