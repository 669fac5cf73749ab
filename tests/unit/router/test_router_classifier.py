"""The offline classifier: calibrated where it knows, silent where it does not."""

from __future__ import annotations

from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest

from penstock_router.adapters.classifier_file import load_classifier, save_classifier
from penstock_router.adapters.lexicon_file import load_lexicon
from penstock_router.domain.classifier import HASHED, Classifier, Weights, scores_of
from penstock_router.domain.features import Features, features_of
from penstock_router.evaluate.outcomes import features_of_prompts, read_outcomes, text_content
from penstock_router.evaluate.training import train
from penstock_shared.contracts.errors import PermanentError
from penstock_shared.contracts.models import ModelManifest, ModelRecord

ROOT = Path(__file__).parents[3]
SAMPLE = ROOT / "tests" / "data" / "routellm" / "outcomes.jsonl.gz"
LEXICON = load_lexicon()


def record(name: str, version: str = "1") -> ModelRecord:
    return ModelManifest(
        name=name,
        version=version,
        parameters=1,
        context_tokens=1,
        price_input_microusd_per_1k=1,
        price_output_microusd_per_1k=1,
    ).record()


def features(text: str) -> Features:
    return features_of(text_content(text), LEXICON)


@pytest.fixture(scope="module")
def weights() -> Weights:
    rows = read_outcomes(SAMPLE)
    right = np.array([(row.weak, row.strong) for row in rows], float)
    return train(features_of_prompts(rows, LEXICON), right, {"weak": "1", "strong": "1"}).weights


def test_easy_prompts_are_told_from_hard_ones() -> None:
    """Where the words decide who is right, new prompts with these words are told apart."""
    easy = [f"Please tell me the opening hours of shop number {n}, thank you" for n in range(200)]
    hard = [f"Prove the theorem about prime ideals of degree {n} over a ring" for n in range(200)]
    seen = [features(text) for text in easy + hard]
    right = np.array([(1.0, 1.0)] * 200 + [(0.0, 1.0)] * 200)
    classifier = Classifier(train(seen, right, {"weak": "1", "strong": "1"}).weights)
    near = features("Please tell me the opening hours of shop number 77, thank you")
    far = features("Prove the theorem about prime ideals of degree 77 over a ring")
    assert (classifier.p_correct(near, record("weak")) or 0) > 0.9
    assert (classifier.p_correct(far, record("weak")) or 0) < 0.1
    assert (classifier.p_correct(far, record("strong")) or 0) > 0.9


def test_calibration_does_not_see_the_text_itself() -> None:
    """A text that is left out is predicted worse than it is with it, each and every one."""
    rows = read_outcomes(SAMPLE)[:200]
    right = np.array([(row.weak, row.strong) for row in rows], float)
    seen = features_of_prompts(rows, LEXICON)
    trained = train(seen, right, {"weak": "1", "strong": "1"})
    for at, each in enumerate(seen):
        inside = scores_of(trained.weights, each)
        if inside is not None:  # else out of its depth
            left_out = np.abs(right[at] - trained.scores[at])
            assert (left_out >= np.abs(right[at] - inside) - 1e-3).all()


def test_nothing_is_said_of_what_is_not_known(weights: Weights) -> None:
    """No weights, another model, another version, or a text of another kind: None."""
    known = features("Which of the following is a prime number?\nA. 4\nB. 6\nC. 7\nD. 9\nAnswer:")
    assert Classifier().p_correct(known, record("weak")) is None
    classifier = Classifier(weights)
    assert classifier.p_correct(known, record("other")) is None
    assert classifier.p_correct(known, record("weak", "2")) is None
    assert classifier.p_correct(known, record("weak")) is not None
    for alien in ("", "{" * 5_000, "漢字仮名交じり文" * 300):
        assert classifier.p_correct(features(alien), record("weak")) is None


def test_probabilities_are_probabilities_and_follow_the_scores(weights: Weights) -> None:
    """The curve rises from 0 to 1 at most, and so do the estimates along the scores."""
    classifier = Classifier(weights)
    for seen in features_of_prompts(read_outcomes(SAMPLE)[:50], LEXICON):
        p = classifier.p_correct(seen, record("weak"))
        assert p is None or 0 <= p <= 1
    for curve in weights.curves:
        assert (np.diff(curve(np.linspace(-1, 2, 50))) > 0).all()


def test_what_was_saved_decides_the_same(weights: Weights, tmp_path: Path) -> None:
    """The file loses no more than its 16 bits do."""
    path = tmp_path / "classifier.npz"
    save_classifier(path, weights)
    before, after = Classifier(weights), load_classifier(path)
    for seen in features_of_prompts(read_outcomes(SAMPLE)[:100], LEXICON):
        for model in (record("weak"), record("strong")):
            p, q = before.p_correct(seen, model), after.p_correct(seen, model)
            assert p == pytest.approx(q, abs=0.01)


def test_a_file_that_is_none_is_refused(weights: Weights, tmp_path: Path) -> None:
    """Torn, empty, of other dimensions, or missing: a sentence that says what to do."""
    good = tmp_path / "good.npz"
    save_classifier(good, weights)
    torn, empty, other = (tmp_path / name for name in ("torn.npz", "empty.npz", "other.npz"))
    torn.write_bytes(good.read_bytes()[:1_000])
    empty.write_bytes(b"")
    with np.load(good) as arrays:
        np.savez(other, **{**arrays, "format": np.array([1, HASHED, 3])})
    for path in (torn, empty, other, tmp_path / "missing.npz"):
        with pytest.raises(PermanentError, match="train it again"):
            load_classifier(path)


SPOILT = {
    "base": np.full(2, np.nan, np.float32),
    "words": np.zeros((10, 2), np.float16),
    "curves": np.zeros((2, 3)),
    "landmarks": np.zeros((256, 3), np.float16),
    "models": np.frombuffer(b"5", np.uint8),
    "format": np.array(1),
}


@pytest.mark.parametrize("name", SPOILT)
def test_a_file_that_no_decision_could_be_made_with_is_refused(
    weights: Weights, tmp_path: Path, name: str
) -> None:
    """When it is loaded, not by every request from then on."""
    path = tmp_path / "spoilt.npz"
    save_classifier(path, weights)
    with np.load(path) as arrays:
        np.savez(path, **{**arrays, name: SPOILT[name]})
    with pytest.raises(PermanentError, match="train it again"):
        load_classifier(path)


def test_a_file_with_flipped_bits_is_refused(weights: Weights, tmp_path: Path) -> None:
    """What is compressed cannot be unpacked then, which is an error of zlib's own."""
    path = tmp_path / "flipped.npz"
    save_classifier(path, weights)
    with ZipFile(path) as archive:
        begins = archive.getinfo("words.npy").header_offset
    data = bytearray(path.read_bytes())
    data[begins + 200 : begins + 240] = b"\xff" * 40
    path.write_bytes(data)
    with pytest.raises(PermanentError, match="train it again"):
        load_classifier(path)


def test_the_packaged_classifier_is_for_the_packaged_models() -> None:
    """Weights and models are released together: a model that is trained anew makes them stale."""
    classifier = load_classifier()
    asked = features("Hello. I would like to order 9 cups in pink. Our office is in Vienna.")
    for name in ("penstock-small", "penstock-large"):
        manifest = (ROOT / "models" / name / "penstock.json").read_bytes()
        model = ModelManifest.model_validate_json(manifest).record()
        assert classifier.p_correct(asked, model) is not None
        assert classifier.p_correct(asked, model.model_copy(update={"version": "0"})) is None
