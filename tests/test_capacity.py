"""How much fits: stages on a model that holds a known number of tokens, and the whole on a real small one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from cramdemo import CramConfig, CramResult, FrozenLM, TextError, Verification
from cramdemo import capacity as module
from cramdemo.capacity import (
    ENDED,
    Capacity,
    Fit,
    Growth,
    Point,
    by_the_papers_rule,
    grow,
    linear_fit,
    measure_capacity,
)
from cramdemo.decode import greedy_prefix
from cramdemo.metrics import cross_entropy_bits
from cramdemo.vectors import MemVectors
from tests.crossing import crossed

IDS = list(range(5, 295, 3))  # 97 tokens
QUICK = CramConfig(steps=30)


@dataclass
class Holding:
    """Stands for `cram`: its vectors hold so many tokens, whatever the text; `misses` are wrong beyond them."""

    tokens: int
    reason: str = "steps"
    steps: int = 7
    misses: Sequence[int] | None = None
    tried: list[int] = field(default_factory=list)
    starts: list[Tensor | None] = field(default_factory=list)
    configs: list[CramConfig] = field(default_factory=list)

    def __call__(
        self,
        lm: FrozenLM,
        ids: Sequence[int],
        config: CramConfig,
        *,
        stop: Callable[[], bool],
        start: Tensor | None,
    ) -> Iterator[CramResult]:
        self.tried.append(len(ids))
        self.starts.append(start)
        self.configs.append(config)
        held = min(len(ids), self.tokens)
        correct = torch.ones(len(ids), dtype=torch.bool)
        correct[list(range(held, len(ids)) if self.misses is None else self.misses)] = False
        vectors = MemVectors(
            mem=torch.full((config.num_mem, lm.hidden_size), float(len(ids))),
            model_id="m",
            model_revision="",
            model_fingerprint="f",
            tokenizer_fingerprint="t",
            num_tokens=len(ids),
            token_sha256="",
            dtype_trained="float32",
        )
        check = Verification("cpu", "float32", held == len(ids), len(ids), held, 1.0)
        yield CramResult(
            vectors=vectors,
            token_ids=list(ids),
            verifications=[check],
            reason=self.reason,
            steps=min(self.steps, config.steps),
            seconds=0.0,
            flops=0,
            token_bits=torch.full((len(ids),), 0.5),
            token_margins=torch.ones(len(ids)),
            token_correct=correct,
            token_predicted=torch.tensor(ids),
            bare_bits=torch.full((len(ids) - 1,), 4.5),
            bare_correct=torch.arange(len(ids) - 1) % 4 == 0,
            encoder_correct=None,
            vocab_size=lm.vocab_size,
        )


@pytest.fixture
def holding(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Holding]:
    """Puts a model that holds a known number of tokens in the engine's place."""

    def put(tokens: int, **more: Any) -> Holding:
        stub = Holding(tokens, **more)
        monkeypatch.setattr(module, "cram", stub)
        return stub

    return put


# ---- stages


def test_stages_grow_while_they_hold_and_are_halved_when_they_fail(
    tiny_lm: FrozenLM, holding: Callable[..., Holding]
) -> None:
    stub = holding(37)
    last = list(grow(tiny_lm, IDS, QUICK))[-1]
    assert stub.tried == [16, 32, 48, 45, 41]  # 37 + 8, 37 + 4
    assert last.horizon == 37 and last.ended and not last.whole
    assert last.steps == 5 * 7
    assert all(config.growth == 0 and config.margin == module.STAGE_MARGIN for config in stub.configs)


def test_each_stage_starts_from_the_vectors_that_hold_the_most(
    tiny_lm: FrozenLM, holding: Callable[..., Holding]
) -> None:
    stub = holding(37)
    last = list(grow(tiny_lm, IDS, QUICK))[-1]
    assert stub.starts[0] is None
    assert [float(start[0, 0]) for start in stub.starts[1:] if start is not None] == [16, 32, 48, 48]
    assert last.mem is not None and float(last.mem[0, 0]) == 48  # 37 of 48: later stages held no more


def test_more_vectors_are_encoded_anew_until_a_stage_fails(built_in: FrozenLM, holding: Callable[..., Holding]) -> None:
    stub = holding(70)
    list(grow(built_in, list(range(300)), replace(QUICK, num_mem=2), first=50))
    assert stub.tried == [50, 66, 82, 78]
    assert [start is None for start in stub.starts] == [True, True, True, False]


@pytest.mark.parametrize(("num_mem", "stages"), [(1, 8), (4, 3)])
def test_a_growth_ends_when_its_steps_are_used(
    tiny_lm: FrozenLM, holding: Callable[..., Holding], num_mem: int, stages: int
) -> None:
    stub = holding(1000)
    last = list(grow(tiny_lm, list(range(290)) * 2, CramConfig(num_mem=num_mem, steps=6)))[-1]
    assert last.ended and not last.whole
    assert last.steps == sum(min(stub.steps, config.steps) for config in stub.configs) == 6 * stages


def test_a_text_that_is_held_whole_ends_the_growth(tiny_lm: FrozenLM, holding: Callable[..., Holding]) -> None:
    stub = holding(1000)
    last = list(grow(tiny_lm, IDS[:20], QUICK))[-1]
    assert stub.tried == [16, 20] and last.whole


def test_the_figures_of_a_horizon_are_those_of_its_tokens_alone(
    tiny_lm: FrozenLM, holding: Callable[..., Holding]
) -> None:
    holding(37)
    last = list(grow(tiny_lm, IDS, QUICK))[-1]
    assert last.gain_bits == 36 * 4.0  # tokens 1 to 36, at 4.5 bits without and 0.5 with
    assert last.token_gain == 36 - 9
    assert last.utilisation == 27 / last.theoretical


def test_a_real_horizon_decodes_and_its_gain_is_the_definition_s(tiny_lm: FrozenLM) -> None:
    states = list(grow(tiny_lm, IDS, QUICK))
    last = states[-1]
    assert last.mem is not None and last.horizon > 0
    ids = IDS[: last.horizon]
    assert greedy_prefix(tiny_lm, last.mem, ids)[0] == last.horizon
    tensor = torch.tensor([ids])
    with torch.no_grad():
        mem = cross_entropy_bits(tiny_lm.text_logits(last.mem[None], tensor), tensor)[0]
        bare = cross_entropy_bits(tiny_lm.bare_logits(tensor), tensor[:, 1:])[0]
    assert last.gain_bits == pytest.approx(float(bare.sum() - mem[1:].sum()), abs=1e-3)
    for old, new in pairwise(states):
        assert new.points[: len(old.points)] == old.points, "a reading was changed"
    assert all(a.step <= b.step and a.horizon <= b.horizon for a, b in pairwise(last.points))


# ---- the paper's rule


def _grown(horizon: int) -> Growth:
    return Growth(1, len(IDS), horizon, 100.0, horizon=horizon, mem=torch.zeros(1, 64), ended=True)


def test_lengths_up_to_the_horizon_count_and_the_next_are_tried_until_one_fails(
    tiny_lm: FrozenLM, holding: Callable[..., Holding]
) -> None:
    stub = holding(70)
    found = list(by_the_papers_rule(tiny_lm, IDS, QUICK, _grown(37), stop=lambda: False))
    assert [tried.length for tried in found] == [8, 16, 32, 64, 80]
    assert stub.tried == [64, 80]
    assert [tried.holds for tried in found] == [True, True, True, True, False]
    assert found[-1].accuracy == pytest.approx(69 / 79)


def test_the_paper_does_not_score_token_0(tiny_lm: FrozenLM, holding: Callable[..., Holding]) -> None:
    holding(0, misses=[0])
    found = list(by_the_papers_rule(tiny_lm, IDS[:40], QUICK, _grown(20), stop=lambda: False))
    assert (found[-1].length, found[-1].accuracy) == (32, 1.0)


def test_a_length_that_was_stopped_says_nothing(tiny_lm: FrozenLM, holding: Callable[..., Holding]) -> None:
    holding(5, reason="stopped")
    found = list(by_the_papers_rule(tiny_lm, IDS, QUICK, _grown(37), stop=lambda: False))
    assert [tried.length for tried in found] == [8, 16, 32]


# ---- the line


def test_a_line_goes_through_points_that_lie_on_one() -> None:
    fit = linear_fit([(1, 60), (2, 100), (4, 180), (8, 340)])
    assert fit is not None
    assert (fit.base, fit.slope, fit.at(16)) == pytest.approx((20, 40, 660))
    assert linear_fit([(1, 60)]) is None
    assert linear_fit([(2, 60), (2, 70)]) is None


def test_only_growths_that_came_to_their_end_are_fitted() -> None:
    def growth(k: int, horizon: int, *, ended: bool = True) -> Growth:
        return Growth(k, 400, horizon, 1.0, horizon=horizon, ended=ended)

    state = Capacity("m", 1, 1, 400, (1, 2, 4, 8), (0.0,), (growth(1, 60), growth(2, 100), growth(4, 180, ended=False)))
    line = Fit(20.0, 40.0)
    assert state.fit == line
    stopped = replace(state, growths=(*state.growths[:2], growth(4, 110)), stopped=True)
    assert stopped.fit == line
    whole = replace(state, growths=(*state.growths[:2], growth(4, 400)))
    assert whole.fit == line


# ---- the whole


def test_each_k_starts_where_the_one_before_ended(built_in: FrozenLM, holding: Callable[..., Holding]) -> None:
    stub = holding(37)
    *_, last = measure_capacity(built_in, list(range(200)), QUICK, (1, 2))
    assert stub.tried == [16, 32, 48, 45, 41, 64, 37, 53, 45]  # one vector, the paper's rule, two vectors
    assert last.doing == ENDED and not last.stopped and last.decoding_capacity == 32
    assert [growth.num_mem for growth in last.growths] == [1, 2]


def test_a_model_without_an_encoder_grows_more_vectors_from_the_start(
    tiny_lm: FrozenLM, holding: Callable[..., Holding]
) -> None:
    stub = holding(20)
    list(measure_capacity(tiny_lm, IDS, QUICK, (1, 2)))
    assert stub.tried[-3:] == [16, 32, 28]


def test_the_whole_on_a_real_model_is_cumulative_and_reaches_another_process(tiny_lm: FrozenLM) -> None:
    states = list(measure_capacity(tiny_lm, IDS[:40], CramConfig(steps=15), (1, 2)))
    last = states[-1]
    assert last.model == tiny_lm.name and last.hidden_size == 64
    assert last.parameters == sum(p.numel() for p in tiny_lm.model.parameters())
    assert len(last.cost_bits) == 40 and last.cost_bits[0] == 0
    bare = cross_entropy_bits(tiny_lm.bare_logits(torch.tensor([IDS[:40]])), torch.tensor([IDS[1:40]]))
    assert last.cost_bits[-1] == pytest.approx(float(bare.sum()), rel=1e-5)
    assert [growth.ended for growth in last.growths] == [True, True]
    assert last.tried
    assert last.steps == sum(growth.steps for growth in last.growths) + sum(tried.steps for tried in last.tried)
    again = crossed(last)
    assert again.growths[0].points == last.growths[0].points


def test_stop_keeps_what_is_there(tiny_lm: FrozenLM) -> None:
    pressed: list[bool] = []
    states = []
    for state in measure_capacity(tiny_lm, IDS, QUICK, (1, 2), stop=lambda: bool(pressed)):
        states.append(state)
        if state.growths[0].horizon:
            pressed.append(True)
    last = states[-1]
    assert last.stopped and last.doing == ENDED
    assert len(last.growths) == 1 and last.growths[0].horizon > 0


def test_a_text_longer_than_the_context_is_refused(tiny_lm: FrozenLM) -> None:
    with pytest.raises(TextError, match="at most 126"):
        next(measure_capacity(tiny_lm, [1] * 127, QUICK, (1, 2)))


def test_a_growth_that_has_not_begun_has_no_steps() -> None:
    assert Growth(1, 10, 5, 1.0).steps == 0
    assert Growth(1, 10, 5, 1.0, points=(Point(3, 0, 2, 0.0),)).steps == 3
