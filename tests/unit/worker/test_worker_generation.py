"""One run: its tokens, its text, its stop."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from penstock_shared.contracts.errors import ErasedError
from penstock_shared.contracts.jobs import Job
from penstock_shared.contracts.models import ModelKind
from penstock_shared.contracts.requests import Sampling, Status
from penstock_shared.contracts.responses import RUN_NUMBERS
from penstock_shared.contracts.subjects import Lane
from penstock_shared.contracts.usage import Price
from penstock_worker.adapters.echo_engine import EchoDetokenizer
from penstock_worker.domain.byte_level import ByteLevelDetokenizer
from penstock_worker.domain.ending import Run, end_of_run, failed_attempt, failed_unstarted
from penstock_worker.domain.generation import Generation, Stop
from penstock_worker.errors import ContextLengthError
from penstock_worker.ports import Delivered, Prompt, SamplingOptions

_NOW = datetime(2026, 1, 2, tzinfo=UTC)
_BYTES = [bytes([number]) for number in range(256)]


def generation(
    limit: int = 100, stop_at_s: float = 10.0, begun_text: str = "", *, withheld: bool = False
) -> Generation:
    return Generation(
        prompt=["a", "b"],
        options=SamplingOptions(),
        limit=limit,
        stop_at_s=stop_at_s,
        detokenizer=ByteLevelDetokenizer(_BYTES),
        shown=Delivered(begun_text, [len(begun_text)], [0]) if begun_text else Delivered(),
        first_number=RUN_NUMBERS if begun_text else 0,
        begun=list(begun_text),
        withheld=withheld,
    )


def say(one: Generation, text: str) -> str:
    """Generate the bytes of `text`; what the next delta says."""
    for byte in text.encode():
        one.accept(byte, -0.5, 0.0)
    return one.take()[0]


def run_of(one: Generation) -> Run:
    job = Job(
        request_id="01890000-0000-7000-8000-000000000000",
        tenant="acme",
        key_id="k",
        data_subject="u",
        model="echo",
        lane=Lane.STANDARD,
        attempt=1,
        expected_seq=7,
        price=Price(input_microusd_per_1k=1, output_microusd_per_1k=2),
        sampling=Sampling(),
        content="",
        routed_at=_NOW - timedelta(seconds=3),
        deadline=_NOW + timedelta(seconds=60),
    )
    return Run(
        job=job,
        run_id="01890000-0000-7000-8000-000000000001",
        subject="s",
        kind=ModelKind.TEXT,
        work=one,
        started_at=_NOW - timedelta(seconds=2),
        first_token_at=_NOW - timedelta(seconds=1),
    )


def test_the_limit_stops_with_its_last_token():
    """`limit` tokens are generated, not one more, and all of them count (I3)."""
    one = generation(limit=3)
    assert [one.accept(65, -0.5, 0.0) for _ in range(3)] == [False, False, True]
    assert (one.stop, len(one.tokens), one.take()) == (Stop.LIMIT, 3, ("AAA", True))


def test_a_stop_counts_the_token_that_came_with_it():
    """Cancelled between two tokens: the second was generated, so it is billed (I3)."""
    one = generation()
    assert not one.accept(65, -0.5, 0.0)
    one.request_stop(Stop.CANCELLED)
    assert one.accept(66, -0.5, 0.0)
    assert (one.stop, len(one.tokens)) == (Stop.CANCELLED, 2)


def test_the_deadline_stops_it():
    """The first token at or past the time is the last."""
    one = generation(stop_at_s=5.0)
    assert not one.accept(65, -0.5, 4.9)
    assert one.accept(65, -0.5, 5.0)
    assert one.stop is Stop.EXPIRED


def test_a_cancellation_after_the_end_changes_nothing():
    """The run had ended by itself: it is completed."""
    one = generation()
    one.accept(65, -0.5, 0.0)
    one.ended = True
    one.request_stop(Stop.CANCELLED)
    assert one.stop is None


def test_deltas_hold_whole_characters_and_their_ends_are_code_points():
    """A character in two tokens comes once it is whole; one that is cut off becomes U+FFFD."""
    one = generation()
    texts = []
    for byte in [*"aé".encode(), *"€".encode()[:2]]:
        one.accept(byte, -0.5, 0.0)
        texts.append(one.take()[0])
    one.ended = True
    texts.append(one.take()[0])
    assert texts == ["a", "", "é", "", "", "\ufffd"]
    assert one.delta_ends == [1, 2, 3]
    assert one.text == "aé\ufffd"
    assert one.take() == ("", True)


def test_two_threads_lose_no_token():
    """The engine's thread appends while the loop's thread reads: every token is read once."""
    one = generation(limit=50_000)

    def generate() -> None:
        for number in range(50_000):
            one.accept(65 + number % 26, -0.5, 0.0)

    thread = threading.Thread(target=generate)
    thread.start()
    parts, ended = [], False
    while not ended:
        text, ended = one.take()
        parts.append(text)
    thread.join()
    assert "".join(parts) == "".join(chr(65 + number % 26) for number in range(50_000))
    assert one.delta_ends[-1] == 50_000


def test_it_sums_the_log_probabilities_of_what_it_generated():
    """Of every token that counts, the last one too."""
    one = generation(limit=3)
    for log_prob in (-0.5, -1.0, -0.25):
        one.accept(65, log_prob, 0.0)
    assert one.log_prob == -1.75


def test_a_run_that_goes_on_begins_its_first_delta_with_what_was_delivered():
    """A client that sees this run alone has the whole answer (I6); the limit counts what is new."""
    one = generation(limit=3, begun_text="Hé")
    assert one.text == "Hé"
    assert [say(one, "l"), say(one, "l"), say(one, "o")] == ["Hél", "l", "o"]
    assert (one.text, one.stop) == ("Héllo", Stop.LIMIT)
    ended = end_of_run(run_of(one), _NOW, "sealed")
    assert ended.delta_ends == (2, 3, 4, 5)
    assert ended.delta_numbers == (0, RUN_NUMBERS, RUN_NUMBERS + 1, RUN_NUMBERS + 2)
    assert ended.usage.output_tokens == 3


def test_a_run_that_goes_on_and_ends_at_once_shows_nothing_new():
    """Its next token is the end: clients have everything already."""
    one = generation(begun_text="Hello")
    one.ended = True
    assert one.take() == ("", True)
    assert (one.text, one.delta_ends) == ("Hello", [5])


def test_a_run_with_nothing_left_to_generate_is_at_its_limit():
    """All of the answer was delivered by a run that died before its fact: nothing new is billed."""
    one = generation(limit=0, begun_text="Hello")
    assert one.left == 0
    one.end_at_limit()
    ended = end_of_run(run_of(one), _NOW, "sealed")
    assert (ended.status, ended.reason) == (Status.INCOMPLETE, "max_output_tokens")
    assert (ended.usage.output_tokens, ended.delta_ends, one.text) == (0, (5,), "Hello")


def test_an_answer_that_is_withheld_marks_no_delta_until_it_has_passed():
    """It counts as one delta then; a flawed one has none."""
    one = generation(withheld=True)
    say(one, "Hel")
    say(one, "lo")
    one.ended = True
    one.take()
    assert (one.text, one.delta_ends) == ("Hello", [])
    one.release()
    assert one.delta_ends == [5]


def test_an_empty_answer_that_was_withheld_has_no_delta():
    """Nothing is nothing, checked or not."""
    one = generation(withheld=True)
    one.ended = True
    assert one.take() == ("", True)
    one.release()
    assert one.delta_ends == []


def test_a_cut_leaves_the_batch_and_not_the_answer():
    """The token that comes with it counts; the next batch starts after all that was generated."""
    one = generation(limit=5, begun_text="H")
    say(one, "e")
    one.cut = True
    assert one.accept(108, -0.5, 0.0)
    assert (one.ended, one.stop, one.left) == (False, None, 3)
    assert one.take() == ("l", False)
    assert one.start_from(["e", "l"]) == Prompt(["a", "b"], ["H", "e", "l"])
    one.cut = False
    assert not one.accept(108, -0.5, 0.0)
    assert one.take() == ("l", False)
    assert (one.text, one.delta_ends) == ("Hell", [1, 2, 3, 4])


@pytest.mark.parametrize(("limit", "stop"), [(1, Stop.LIMIT), (9, Stop.EXPIRED)])
def test_a_cut_that_meets_the_end_is_an_end(limit: int, stop: Stop):
    """Whoever has come to its limit or its time does not go on in another batch."""
    one = generation(limit=limit, stop_at_s=5.0)
    one.cut = True
    assert one.accept(65, -0.5, 5.0)
    assert (one.ended, one.stop) == (True, stop)


def test_a_flawed_attempt_keeps_its_run_and_its_usage():
    """It is billed like any other; why it failed is sealed, and the rule that it broke is not."""
    one = generation(withheld=True)
    say(one, "no")
    one.ended = True
    failed = failed_attempt(
        run_of(one),
        _NOW,
        reason="schema",
        keyword="required",
        sealed_detail="sealed detail",
        sealed="sealed answer",
        confidence=0.6,
    )
    assert (failed.run, failed.attempt) == (run_of(one).run_id, 1)
    assert (failed.usage.input_tokens, failed.usage.output_tokens) == (2, 2)
    assert (failed.keyword, failed.detail) == ("required", "sealed detail")
    assert (failed.output, failed.confidence) == ("sealed answer", 0.6)


@pytest.mark.parametrize(
    ("stop", "status", "reason", "code"),
    [
        (None, Status.COMPLETED, "stop", None),
        (Stop.LIMIT, Status.INCOMPLETE, "max_output_tokens", None),
        (Stop.CANCELLED, Status.CANCELLED, "cancelled", None),
        (Stop.EXPIRED, Status.FAILED, "expired", "expired"),
    ],
)
def test_how_it_stopped_is_how_it_ended(stop, status, reason, code):
    """Every stop has one status, and the usage is what was generated (I3)."""
    one = generation()
    one.accept(65, -0.5, 0.0)
    one.take()
    one.stop = stop
    ended = end_of_run(run_of(one), _NOW, "sealed")
    assert (ended.status, ended.reason) == (status, reason)
    assert (ended.error.code if ended.error else None) == code
    assert (ended.usage.input_tokens, ended.usage.output_tokens) == (2, 1)
    assert (ended.output, ended.delta_ends) == ("sealed", (1,))
    assert ended.timings is not None
    assert ended.timings.queued_ms == 1000
    assert ended.timings.first_token_ms == 2000
    assert ended.timings.total_ms == 3000


def test_an_answer_that_cannot_be_sealed_is_not_kept():
    """Its key was destroyed: no text, no offsets into it, but the true usage (I3, I10)."""
    one = generation()
    one.accept(65, -0.5, 0.0)
    one.take()
    ended = end_of_run(run_of(one), _NOW, None, error=ErasedError("gone"))
    assert (ended.status, ended.reason, ended.output) == (Status.FAILED, "error", None)
    assert (ended.delta_ends, ended.usage.output_tokens) == ((), 1)


def test_a_refusal_has_no_run_and_no_usage():
    """Nothing was generated."""
    ended = failed_unstarted(run_of(generation()).job, _NOW, ContextLengthError("too long"))
    assert (ended.run, ended.usage.input_tokens, ended.usage.output_tokens) == (None, 0, 0)
    assert ended.error is not None
    assert ended.error.code == "context_length_exceeded"


def test_an_echo_has_its_own_words():
    """Its detokenizer holds nothing back."""
    assert EchoDetokenizer().finish() == ""


@pytest.mark.parametrize("kind", list(ModelKind))
def test_facts_tell_the_kind_of_the_model(kind: ModelKind) -> None:
    """Billing counts embeddings apart, and knows their models from nowhere else."""
    one = generation()
    say(one, "x")
    run = replace(run_of(one), kind=kind)
    failed = failed_attempt(
        run, _NOW, reason="schema", keyword=None, sealed_detail="", sealed="", confidence=None
    )
    assert (end_of_run(run, _NOW, "sealed").kind, failed.kind) == (kind, kind)
