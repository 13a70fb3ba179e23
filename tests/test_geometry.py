"""Where solutions lie: components, lines and planes on known data, and laws of a whole exploration."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable
from itertools import count, pairwise

import pytest
import torch

from cramdemo import CramConfig, FrozenLM, ModelError, TextError, geometry
from cramdemo.geometry import (
    Findings,
    Path,
    Plane,
    _Descent,
    accuracies,
    attention_to_mem,
    between,
    cosine_matrix,
    even_attention,
    explore,
    nearest_tokens,
    principal_components,
)
from cramdemo.metrics import correct_tokens
from tests.crossing import crossed
from tests.families import FAMILIES, LAYERS

TEXT = "The old sea, tired."
CONFIG = CramConfig(num_mem=4, steps=300)
STAGES = ["training", "vectors", "lines", "landscape", "done"]


@pytest.fixture(scope="module")
def states(tiny_lm: FrozenLM) -> list[Findings]:
    """An exploration on the tiny model, on small grids."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(geometry, "GRID", 7)
        patch.setattr(geometry, "LINE_POINTS", 5)
        patch.setattr(geometry, "YIELD_SECONDS", 0.0)
        patch.setattr(geometry, "PATH_SECONDS", 0.0)
        return list(explore(tiny_lm, TEXT, CONFIG))


def test_components_of_a_known_ellipse_are_its_axes() -> None:
    angle = 2 * torch.pi * torch.arange(8, dtype=torch.float64) / 8
    axes = torch.zeros(2, 5, dtype=torch.float64)
    axes[0, :2] = torch.tensor([0.6, 0.8])
    axes[1, 3] = 1.0
    places = torch.stack([3 * angle.cos(), 4 * angle.sin()], dim=1)  # variances 9 : 16
    coordinates, variance = principal_components(places @ axes + 7.0)
    torch.testing.assert_close(variance[:2], torch.tensor([0.64, 0.36], dtype=torch.float64))
    assert float(variance[2:].abs().max()) < 1e-12
    torch.testing.assert_close(coordinates[:, :2].abs(), places.flip(1).abs())


def test_components_keep_distances_and_look_from_the_first_point_to_the_last() -> None:
    points = torch.randn(9, 4, generator=torch.Generator().manual_seed(3))
    coordinates, variance = principal_components(points)
    torch.testing.assert_close(torch.cdist(coordinates, coordinates), torch.cdist(points, points).double())
    for walked in (coordinates, principal_components(points.flip(0))[0]):
        assert bool((walked[-1] >= walked[0]).all())
    assert bool((variance[:-1] >= variance[1:]).all()) and math.isclose(float(variance.sum()), 1)


def test_two_points_have_no_second_direction_not_even_by_rounding():
    points = torch.randn(2, 256, generator=torch.Generator().manual_seed(0))
    coordinates, variance = principal_components(points)
    assert coordinates[:, 1].tolist() == [0, 0] and variance[1] == 0
    assert float(coordinates[1, 0] - coordinates[0, 0]) == pytest.approx(float((points[1] - points[0]).norm()))


def test_points_that_do_not_move_have_no_variance_and_no_nan() -> None:
    coordinates, variance = principal_components(torch.ones(3, 4))
    assert coordinates.eq(0).all() and variance.eq(0).all()


def test_components_needed_are_counted_to_99_percent() -> None:
    path = Path(((0.0, 0.0), (1.0, 0.0)), (0, 1), (0.9, 0.08, 0.015, 0.005))
    assert path.needed == 3 and path.steps == 1
    assert path.cumulative == pytest.approx((0.9, 0.98, 0.995, 1.0))
    assert dataclasses.replace(path, variance=()).needed == 0


def test_cosines_of_known_vectors() -> None:
    right = torch.tensor([[[3.0, 0.0], [0.0, 4.0]]])  # all numbers count as one vector
    up = torch.tensor([[[0.0, 4.0], [3.0, 0.0]]])
    found = cosine_matrix(torch.cat([right, -2 * right, up]))
    torch.testing.assert_close(found, torch.tensor([[1.0, -1.0, 0.0], [-1.0, 1.0, 0.0], [0.0, 0.0, 1.0]]))


def test_the_straight_line_goes_through_its_ends_and_the_middle() -> None:
    first, second = torch.zeros(2, 3), torch.full((2, 3), 4.0)
    points = between(first, second, 5)
    assert points.shape == (5, 2, 3)
    assert points[0].equal(first) and points[-1].equal(second) and points[2].eq(2).all()


def test_the_plane_gives_its_corners_back_at_their_true_distances() -> None:
    three = torch.randn(3, 2, 5, generator=torch.Generator().manual_seed(1))
    plane = Plane(three)
    torch.testing.assert_close(plane.at(plane.corners), three)
    torch.testing.assert_close(
        torch.cdist(plane.corners, plane.corners), torch.cdist(three.flatten(1), three.flatten(1))
    )
    assert plane.corners[0].eq(0).all() and plane.corners[1, 0] > 0 and plane.corners[2, 1] > 0
    x, y = plane.grid(5)
    assert x[0] < plane.corners[:, 0].min() and x[-1] > plane.corners[:, 0].max() and len(x) == len(y) == 5


def test_three_on_one_line_have_no_nan() -> None:
    plane = Plane(torch.arange(3.0)[:, None, None].expand(3, 1, 4))
    assert plane.at(torch.tensor([[1.0, 2.0]])).isfinite().all()


def test_accuracies_are_the_same_in_batches(tiny_lm: FrozenLM, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = torch.tensor([tiny_lm.tokenize(TEXT)])
    mem = tiny_lm.embed(torch.arange(5 * 2).view(5, 2))
    known = [correct_tokens(tiny_lm.text_logits(one[None], ids), ids).float().mean() for one in mem]
    monkeypatch.setattr(geometry, "LOGIT_BYTES", 2 * 4 * tiny_lm.vocab_size * ids.shape[1])  # two rows
    torch.testing.assert_close(accuracies(tiny_lm, mem, ids), torch.stack(known))


def test_the_token_nearest_to_an_embedding_is_that_token(tiny_lm: FrozenLM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(geometry, "_EMBEDDING_ROWS", 7)
    ids, cosines = nearest_tokens(tiny_lm, 3 * tiny_lm.embed(torch.tensor(123)), 4)
    assert int(ids[0]) == 123 and float(cosines[0]) == pytest.approx(1)
    every = torch.nn.functional.cosine_similarity(tiny_lm.embed(torch.arange(300)), tiny_lm.embed(torch.tensor(123)))
    torch.testing.assert_close(cosines, every.sort(descending=True).values[:4])


def test_attention_without_a_preference_is_spread_evenly(tiny_lm: FrozenLM) -> None:
    model = copy.deepcopy(tiny_lm.model)
    for layer in model.model.layers:
        torch.nn.init.zeros_(layer.self_attn.q_proj.weight)
    flat = FrozenLM("flat", model, tiny_lm.tokenizer, fingerprint="0" * 64)
    shares = attention_to_mem(flat, torch.randn(2, 3, 64), torch.arange(9)[None])
    assert shares is not None and shares.shape == (2, 2)
    torch.testing.assert_close(shares, torch.full((2, 2), even_attention(3, 9)))


def test_even_attention_of_the_shortest_text_is_a_half() -> None:
    assert even_attention(1, 2) == 0.5
    assert even_attention(2, 3) == pytest.approx((2 / 3 + 2 / 4) / 2)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_tells_its_attention_and_keeps_its_own(family_lm: Callable[[str], FrozenLM], name: str) -> None:
    lm = family_lm(name)
    usual = lm.model.config._attn_implementation
    shares = attention_to_mem(lm, lm.embed(torch.arange(2)[None]), torch.arange(5)[None])
    assert lm.model.config._attn_implementation == usual
    if name == "Mamba":
        assert shares is None
    else:
        assert shares is not None and shares.shape == (1, LAYERS)
        assert bool(((shares > 0) & (shares < 1)).all())


def test_an_exploration_goes_through_its_stages_and_forgets_nothing(states: list[Findings]) -> None:
    assert list(dict.fromkeys(state.stage for state in states)) == STAGES
    for before, after in pairwise(states):
        assert after.step >= before.step and len(after.lines) >= len(before.lines)
        assert len(after.decoded) >= len(before.decoded)
        for name in ("path", "cosines", "neighbours", "attention", "landscape"):
            assert bool(getattr(after, name)) >= bool(getattr(before, name))
    assert crossed(states[-1]) == states[-1]


def test_what_is_found_of_solved_seeds_agrees_with_itself(states: list[Findings]) -> None:
    last = states[-1]
    assert last.training == "solved" and last.solved == last.decoded == (last.num_tokens,) * 3
    assert last.path is not None and last.path.solved[-1] == last.num_tokens > last.path.solved[0]
    assert len(last.path.points) == len(last.path.solved) and 1 <= last.path.needed <= last.path.steps
    assert [(line.first, line.second) for line in last.lines] == [(0, 1), (0, 2), (1, 2)]
    for line in last.lines:
        assert len(line.accuracy) == 5 and line.accuracy[0] == line.accuracy[-1] == 1
        assert (line.middle_prefix == last.num_tokens) == (line.accuracy[2] == 1)
    assert all(last.cosines[i][i] == pytest.approx(1) for i in range(3))
    assert last.landscape is not None and last.landscape.done
    assert len(last.landscape.accuracy) == 7 and {len(row) for row in last.landscape.accuracy} == {7}
    assert last.neighbours is not None and list(last.neighbours.cosines) == sorted(last.neighbours.cosines)[::-1]


def test_seeds_do_not_disturb_one_another(tiny_lm: FrozenLM) -> None:
    """The second of three is the first of the three that begin at its seed; each stands still once it is solved."""
    ids, config = tiny_lm.tokenize(TEXT), dataclasses.replace(CONFIG.filled(tiny_lm), init="embedding")
    runs, later = _Descent(tiny_lm, ids, config), _Descent(tiny_lm, ids, dataclasses.replace(config, seed=1))
    for each in (runs, later):
        while not each.advance():
            pass
    torch.testing.assert_close(runs.best[1], later.best[0], rtol=1e-3, atol=1e-3)
    for each in (runs, later):
        torch.testing.assert_close(each.path[-1], each.best[0])
        assert not each.path[-1].equal(each.path[-2]), "the path goes on although its seed stands still"


def test_the_same_seed_gives_the_same_findings(tiny_lm: FrozenLM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(geometry, "GRID", 3)
    first, second = (list(explore(tiny_lm, "The sea", CONFIG))[-1] for _ in range(2))
    assert first == second


@pytest.mark.parametrize("stage", STAGES[:4])
def test_stop_keeps_what_is_there(tiny_lm: FrozenLM, monkeypatch: pytest.MonkeyPatch, stage: str) -> None:
    monkeypatch.setattr(geometry, "YIELD_SECONDS", 0.0)
    monkeypatch.setattr(geometry, "GRID", 7)
    monkeypatch.setattr(geometry, "LINE_POINTS", 5)
    found: list[Findings] = []
    for state in explore(tiny_lm, TEXT, CONFIG, stop=lambda: any(known.stage == stage for known in found)):
        found.append(state)
    last = found[-1]
    assert last.stage == "stopped" and last.path is not None
    assert bool(last.cosines) == (stage != "training")
    assert len(last.lines) == {"training": 0, "vectors": 0, "lines": 1, "landscape": 3}[stage]
    assert (last.landscape is not None) == (stage == "landscape")
    assert last.landscape is None or len(last.landscape.accuracy) == 1


def test_a_run_that_is_not_solved_says_why_and_is_looked_at_all_the_same(
    tiny_lm: FrozenLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(geometry, "GRID", 2)
    ids = tiny_lm.tokenize(TEXT)
    last = list(explore(tiny_lm, ids, CramConfig(num_mem=1, steps=2)))[-1]
    assert last.training == "steps" and last.step == 2 and min(last.solved) < last.num_tokens and last.landscape
    clock = count(0.0, 0.3)
    monkeypatch.setattr(geometry.time, "perf_counter", lambda: next(clock))
    last = list(explore(tiny_lm, ids, CramConfig(num_mem=1, steps=200, seconds=0.5)))[-1]
    assert last.training == "seconds" and last.step < 5


@pytest.mark.parametrize(("text", "sentence"), [("a", "Make it longer"), ("a b " * 99, "Shorten it"), ("", "empty")])
def test_a_text_of_a_wrong_length_is_refused_at_once(tiny_lm: FrozenLM, text: str, sentence: str) -> None:
    with pytest.raises(TextError, match=sentence):
        explore(tiny_lm, text, CONFIG)


def test_too_little_memory_is_a_sentence(tiny_lm: FrozenLM, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(geometry, "score", full)
    with pytest.raises(ModelError, match="not enough memory for tiny"):
        list(explore(tiny_lm, TEXT, CONFIG))
