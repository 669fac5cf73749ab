"""Decisions by what was learned: exact probabilities, plans, experiments, modes, breakers."""

from __future__ import annotations

from typing import Final

import pytest
from tests.support.decisions import NOW, decide_plainly
from tests.support.router import model_record

from penstock_router.domain.admission import routed_fact
from penstock_router.domain.classifier import Classifier
from penstock_router.domain.features import Features
from penstock_router.domain.learned import TenantLearned
from penstock_router.domain.modes import Modes, Signs
from penstock_shared.contracts.models import ModelRecord
from penstock_shared.contracts.requests import Admission, ChatMessage, Content
from penstock_shared.contracts.routing import Choose, Experiment, PolicyRules, PolicySet
from penstock_shared.contracts.subjects import Lane
from penstock_shared.contracts.usage import Price


def priced(name: str, price: int) -> ModelRecord:
    return model_record(name).model_copy(
        update={"price": Price(input_microusd_per_1k=price, output_microusd_per_1k=price)}
    )


SMALL, MIDDLE, LARGE = priced("small", 100), priced("middle", 1_000), priced("large", 10_000)
MODELS: Final = (LARGE, SMALL, MIDDLE)
PLAIN: Final = Content(messages=(ChatMessage(role="user", content="How do I return a jacket?"),))
CHECKED: Final = Content(messages=PLAIN.messages, output_schema={"type": "object"})


class Knows(Classifier):
    """A classifier whose estimates are given."""

    def __init__(self, **p_correct: float) -> None:
        super().__init__()
        self._p_correct = p_correct

    def p_correct(self, _: Features, model: ModelRecord) -> float | None:
        return self._p_correct.get(model.name)


GRADED: Final = Knows(small=0.6, middle=0.9, large=0.95)


def under(rules: PolicyRules, experiment: Experiment | None = None) -> TenantLearned:
    learned = TenantLearned("acme")
    learned.set_policy(
        PolicySet(tenant="acme", rules=rules, experiment=experiment, reason="operator", set_at=NOW),
        1,
    )
    return learned


@pytest.mark.parametrize(
    ("penalty_microusd", "expected"), [(0, "small"), (2_000, "middle"), (10**7, "large")]
)
def test_the_exchange_rate_decides(penalty_microusd: int, expected: str) -> None:
    """What a wrong answer costs the tenant is weighed against what a better model costs."""
    rules = PolicyRules(error_penalty_microusd=penalty_microusd, exploration_share=0)
    decision = decide_plainly(
        "auto", MODELS, PLAIN, learned=under(rules), classifier=GRADED
    ).decision
    assert (decision.policy, decision.model) == ("learned-v1", expected)
    assert [each.model for each in decision.candidates] == ["small", "middle", "large"]


def test_every_decision_tells_with_which_probability_it_was_made() -> None:
    """The probabilities of the candidates sum to one, and the chosen one's is the decision's."""
    for number in range(50):
        decision = decide_plainly(
            "auto", MODELS, PLAIN, classifier=GRADED, request_id=f"request-{number}"
        ).decision
        told = {each.model: each.probability for each in decision.candidates}
        assert sum(told.values()) == pytest.approx(1)
        assert decision.probability == told[decision.model] > 0
        assert [each.prior for each in decision.candidates] == [0.6, 0.9, 0.95]


def test_who_may_not_explore_does_not_with_what_others_have_saved() -> None:
    """Neither after exploration was forbidden, nor on an experiment's side that forbids it."""
    learned = under(PolicyRules(exploration_share=0))
    learned.account.balance_microusd = 10**9
    decision = decide_plainly("auto", MODELS, PLAIN, learned=learned, classifier=GRADED).decision
    assert sorted(each.probability for each in decision.candidates) == [0, 0, 1]
    assert decision.exploration_microusd == 0


def test_without_classifier_and_experience_the_rule_decides() -> None:
    """Also for a text that is out of the classifier's depth, or a model of another version."""
    decision = decide_plainly("auto", MODELS, PLAIN, classifier=Knows()).decision
    assert (decision.policy, decision.model, decision.probability) == ("rule-v1", "small", 1.0)
    known = decide_plainly("auto", MODELS, PLAIN, classifier=Knows(middle=0.9)).decision
    assert known.policy == "learned-v1"


def test_a_checked_answer_may_be_tried_by_a_cheaper_model_first() -> None:
    """The plan names who follows, never more than allowed, and the expected cost counts them."""
    rules = PolicyRules(error_penalty_microusd=20_000, exploration_share=0)
    sure = Knows(small=0.97, middle=0.97, large=0.99)
    decided = decide_plainly("auto", MODELS, CHECKED, learned=under(rules), classifier=sure)
    assert [model.name for model in decided.models] == ["small", "middle"]
    first = decided.decision.candidates[0]
    assert decided.decision.expected_cost_microusd is not None
    assert decided.decision.expected_cost_microusd > first.cost_microusd
    alone = rules.model_copy(update={"max_attempts": 1})
    assert len(decide_plainly("auto", MODELS, CHECKED, learned=under(alone)).models) == 1


def test_routed_tells_the_plan_and_only_the_last_attempt_is_final() -> None:
    """All but the last answer are checked for confidence, where the tenant wants that."""
    rules = PolicyRules(error_penalty_microusd=20_000, exploration_share=0, min_confidence=0.9)
    sure = Knows(small=0.97, middle=0.97, large=0.99)
    decided = decide_plainly("auto", MODELS, CHECKED, learned=under(rules), classifier=sure)
    routed = routed_fact(
        "acme",
        Admission(
            request_id="01930000-0000-7000-8000-000000000001",
            key_id="k1",
            data_subject="u1",
            content="sealed",
        ),
        decided,
        lane=Lane.STANDARD,
        weight=1,
        now=NOW,
        deadline_s=60,
        reserves=(),
    )
    assert (routed.final_attempt, routed.min_confidence) == (False, 0.9)
    assert [(each.model, each.min_confidence) for each in routed.plan] == [("middle", None)]


def test_an_experiment_gives_its_users_other_rules() -> None:
    """Everybody's side is logged with the decision, and the candidate's rules hold there."""
    experiment = Experiment(id="e1", candidate=PolicyRules(choose=Choose.STRONGEST), share=0.5)
    learned = under(PolicyRules(choose=Choose.CHEAPEST), experiment)
    sides = set()
    for number in range(40):
        decision = decide_plainly(
            "auto", MODELS, PLAIN, learned=learned, data_subject=f"user-{number}"
        ).decision
        assert decision.experiment == "e1"
        sides.add((decision.arm, decision.model))
    assert sides == {("baseline", "small"), ("candidate", "large")}


@pytest.mark.parametrize(("degraded", "models"), [(True, ("large",)), (False, ("gone",))])
def test_an_experiment_compares_only_what_followed_its_rules(
    *, degraded: bool, models: tuple[str, ...]
) -> None:
    """Else a candidate would be promoted for answers that the baseline's models have given."""
    modes = Modes(batch_wait_limit_s=60)
    for second in range(10 if degraded else 0):
        signs = Signs(connected=True, dearer_away=True, batch_wait_s=None, facts_behind=0)
        modes.look(signs, float(second))
    candidate = PolicyRules(choose=Choose.STRONGEST, models=models)
    learned = under(PolicyRules(), Experiment(id="e1", candidate=candidate, share=0.5))
    arms = {
        decide_plainly(
            "auto", MODELS, PLAIN, learned=learned, modes=modes, data_subject=f"user-{number}"
        ).decision.arm
        for number in range(40)
    }
    assert arms == ({None} if degraded else {None, "baseline"})


def test_a_policy_names_the_models_it_chooses_among() -> None:
    """Others are not even candidates; a policy whose models are all gone costs no answer."""
    some = under(PolicyRules(choose=Choose.STRONGEST, models=("small", "middle")))
    decision = decide_plainly("auto", MODELS, PLAIN, learned=some).decision
    assert decision.model == "middle"
    assert {each.model for each in decision.candidates} == {"small", "middle"}
    gone = under(PolicyRules(choose=Choose.CHEAPEST, models=("removed",)))
    assert decide_plainly("auto", MODELS, PLAIN, learned=gone).decision.model == "small"


def test_a_degraded_platform_takes_the_cheapest_and_escalates_nothing() -> None:
    """Cheap-only holds for every tenant, whatever its rules."""
    modes = Modes(batch_wait_limit_s=60)
    for second in range(10):
        signs = Signs(connected=True, dearer_away=True, batch_wait_s=None, facts_behind=0)
        modes.look(signs, float(second))
    decided = decide_plainly(
        "auto", MODELS, CHECKED, learned=under(PolicyRules(choose=Choose.STRONGEST)), modes=modes
    )
    assert [model.name for model in decided.models] == ["small"]


class Failing:
    """Breakers that are open for some models."""

    def __init__(self, *models: str) -> None:
        self._models = models

    def allows(self, _tenant: str, model: str, _request: str, _now: object) -> bool:
        return model not in self._models


def test_a_model_whose_machinery_fails_is_passed_over() -> None:
    """Unless all of them fail: then an answer may still come, and a refusal is none."""
    rules = under(PolicyRules(choose=Choose.CHEAPEST))
    passed = decide_plainly("auto", MODELS, PLAIN, learned=rules, breakers=Failing("small"))
    assert passed.models[0].name == "middle"
    every = Failing("small", "middle", "large")
    assert decide_plainly("auto", MODELS, PLAIN, learned=rules, breakers=every).models[0] is SMALL


def test_a_decision_does_not_depend_on_when_it_is_made() -> None:
    """The same knowledge and the same request give the same decision, in every replica."""
    one = decide_plainly("auto", MODELS, CHECKED, classifier=GRADED)
    other = decide_plainly("auto", MODELS[::-1], CHECKED, classifier=GRADED)
    assert one == other
