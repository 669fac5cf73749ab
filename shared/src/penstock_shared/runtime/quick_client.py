"""nats-py with shorter ways for what happens with every message.

Three things for what nats-py pays per message: header names are looked at once; headers are
written in one piece; and a *listener* gets its messages where they are read, without the queue and
the task that a subscription's callback has. Requests wait on a future and a timer.
`flush` keeps what its name says. And no message ends the connection: the server passes on whatever
bytes a tenant wrote as subjects and headers, where nats-py's read loop would end with an error.

It overrides methods that nats-py calls its own: the lock pins the version that this fits, and the
tests of the runtime compare what arrives with what plain nats-py makes of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from itertools import count
from typing import Any, Final

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.protocol import command

from penstock_shared.runtime.headers import parse_header_lines

Listener = Callable[[Msg], None]
_VERSION: Final = "NATS/1.0\r\n"


class QuickClient(Client):
    """A NATS client that costs half as much per message."""

    def __init__(self) -> None:
        super().__init__()
        self._listeners: dict[int, Listener] = {}
        self._tokens = count()
        self._answers: dict[str, asyncio.Future[Msg]] = {}
        self._answer_prefix = ""

    async def listen(self, subject: str, listener: Listener, queue: str = "") -> Subscription:
        """Subscribe; `listener` is called as messages are read and must not block.

        Nothing bounds what it is given but what it asked for: use it where that has a bound.
        """
        subscription = await self.subscribe(subject, queue)
        self._listeners[subscription._id] = listener  # noqa: SLF001  it has no public name
        return subscription

    async def publish_each(self, subjects: Iterable[str]) -> None:
        """Publish nothing but the subject, to many in one piece: the acks of a whole batch.

        The subjects come from the server and are not validated again.
        """
        if self.is_closed:
            raise nats.errors.ConnectionClosedError
        commands = [command.pub_cmd(subject, "", b"") for subject in subjects]
        self.stats["out_msgs"] += len(commands)
        await self._send_command(b"".join(commands))
        if self._flush_queue is not None and self._flush_queue.empty():
            await self._flush_pending()

    async def flush(self, timeout: int = 10) -> None:  # noqa: ASYNC109  nats-py's signature
        """Return once the server has processed everything sent before, subscriptions too.

        Twice, because nats-py writes the PING past its own buffer of pending commands: the first
        round trip makes sure that the buffer is out, the second that it was processed.
        """
        await super().flush(timeout)
        await super().flush(timeout)

    def _remove_sub(self, sid: int, max_msgs: int = 0) -> None:
        self._listeners.pop(sid, None)
        super()._remove_sub(sid, max_msgs)

    async def _process_msg(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes
    ) -> None:
        listener = self._listeners.get(sid)
        if listener is None:
            await super()._process_msg(sid, subject, reply, data, headers)
            return
        self.stats["in_msgs"] += 1
        self.stats["in_bytes"] += len(data)
        parsed = await self._process_headers(headers)
        try:
            listener(self._build_message(sid, subject, reply, data, parsed))
        except Exception as error:  # noqa: BLE001  the read loop goes on, as with a callback
            await self._error_cb(error)

    def _build_message(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: dict[str, str] | None
    ) -> Msg:
        message: Msg = super()._build_message(sid, _mended(subject), _mended(reply), data, headers)
        return message

    async def _process_headers(self, headers: bytes) -> dict[str, str] | None:
        try:
            parsed: dict[str, str] | None = await super()._process_headers(headers)
        except (ValueError, IndexError):  # a status line that no server wrote
            return None
        return parsed

    @staticmethod
    def _parse_header_lines(raw: bytes) -> dict[str, str]:
        return parse_header_lines(raw)

    async def _request_new_style(
        self,
        subject: str,
        payload: bytes,
        timeout: float = 1,  # noqa: ASYNC109  nats-py's signature
        headers: dict[str, Any] | None = None,
    ) -> Msg:
        if not self._answer_prefix:
            prefix = self.new_inbox() + "."  # cannot be guessed, so tokens may be
            self._answer_prefix = prefix
            await self.listen(prefix + "*", self._answered)
        loop = asyncio.get_running_loop()
        token = str(next(self._tokens))
        answer: asyncio.Future[Msg] = loop.create_future()
        self._answers[token] = answer
        timer = loop.call_later(timeout, _give_up, answer)
        try:
            await self.publish(subject, payload, reply=self._answer_prefix + token, headers=headers)
            return await answer
        finally:
            timer.cancel()
            del self._answers[token]

    def _answered(self, msg: Msg) -> None:
        answer = self._answers.get(msg.subject[len(self._answer_prefix) :])
        if answer is not None and not answer.done():
            answer.set_result(msg)

    async def _send_publish(
        self,
        subject: str,
        reply: str,
        payload: bytes,
        payload_size: int,
        headers: dict[str, Any] | None,
    ) -> None:
        lines = [f"{name}: {value}\r\n" for name, value in headers.items()] if headers else []
        block = "".join(lines)
        # Whatever could break out of its line is left to nats-py, which mends or refuses it.
        if not block or block.count("\n") != len(lines) or block.count("\r") != len(lines):
            await super()._send_publish(subject, reply, payload, payload_size, headers)
            return
        self.stats["out_msgs"] += 1
        self.stats["out_bytes"] += payload_size
        head = f"{_VERSION}{block}\r\n".encode()
        await self._send_command(command.hpub_cmd(subject, reply, head, payload))
        if self._flush_queue is not None and self._flush_queue.empty():
            await self._flush_pending()


def _mended(subject: bytes) -> bytes:
    return subject if subject.isascii() else subject.decode(errors="replace").encode()


def _give_up(answer: asyncio.Future[Msg]) -> None:
    if not answer.done():
        answer.set_exception(nats.errors.TimeoutError())
