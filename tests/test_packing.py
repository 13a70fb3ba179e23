"""Rows of a batch: each goes its own way, gives what it holds, and makes room."""

from __future__ import annotations

import pytest
import torch

from cramdemo import packing
from cramdemo.config import CramConfig
from cramdemo.metrics import correct_tokens
from cramdemo.models import FrozenLM
from cramdemo.packing import Batch, Held
from cramdemo.placement import loop_device

IDS = [7 * n % 290 for n in range(1, 60)]


def _batch(lm: FrozenLM, rows: int, **given) -> Batch:
    thorough = given.pop("thorough", False)
    return Batch(lm, CramConfig.for_model(lm, num_mem=2, **given), rows, thorough=thorough)


def _run(batch: Batch, steps: int = 3000) -> list[Held]:
    found = []
    for _ in range(steps):
        if len(batch.free) == len(batch.rows):
            return found
        found += batch.step()
    raise AssertionError("a row does not end")


@pytest.fixture
def short(monkeypatch):
    """Prefixes that a tiny model can hold."""
    monkeypatch.setattr(packing, "FIRST_TOKENS", 2)
    monkeypatch.setattr(packing, "ADDED_TOKENS", 1)


def test_what_a_row_gives_is_solved_and_one_more_addition_is_not(tiny_lm, short):
    batch = _batch(tiny_lm, 2)
    batch.put(0, 11, IDS[:40])
    batch.put(1, 22, IDS[20:])
    found = {held.tag: held for held in _run(batch)}
    assert set(found) == {11, 22} and batch.free == [0, 1]
    for tag, ids in ((11, IDS[:40]), (22, IDS[20:])):
        held = found[tag]
        assert 4 <= held.num_tokens < len(ids) and (held.num_tokens - 4) % 2 == 0
        text = torch.tensor([ids[: held.num_tokens]])
        assert bool(correct_tokens(tiny_lm.text_logits(held.mem[None], text), text).all())


def test_a_text_that_is_held_whole_ends_at_once(tiny_lm, short):
    batch = _batch(tiny_lm, 1)
    batch.put(0, 0, IDS[:4])
    (held,) = _run(batch)
    assert held.num_tokens == 4


def test_a_row_does_not_know_of_the_others(tiny_lm, short):
    """But for the last bits, which the shape of the batch decides."""
    alone = _batch(tiny_lm, 1, seed=3)
    alone.put(0, 0, IDS[:12])
    both = _batch(tiny_lm, 3, seed=3)
    both.put(2, 0, IDS[:12])
    for _ in range(5):
        alone.step()
        both.step()
    both.put(0, 1, IDS[30:50])
    for _ in range(10):
        alone.step()
        both.step()
    assert torch.allclose(alone.mem[0], both.mem[2], atol=1e-3)
    assert alone.trained(0) == both.trained(2)


def test_a_free_row_begins_anew(tiny_lm, short):
    """Nothing of the text before is left in it: optimiser, weights, counts."""
    used, fresh = _batch(tiny_lm, 1), _batch(tiny_lm, 1)
    used.put(0, 0, IDS[:5])
    _run(used)
    for batch in (used, fresh):
        batch.put(0, 1, IDS[30:50])
        for _ in range(12):
            batch.step()
    assert torch.equal(used.mem, fresh.mem)


def test_a_prefix_that_cannot_be_solved_shrinks_until_it_can(tiny_lm, monkeypatch):
    monkeypatch.setattr(packing, "FIRST_TOKENS", 25)
    batch = _batch(tiny_lm, 1)
    batch.put(0, 0, IDS)
    (held,) = _run(batch)
    assert held.num_tokens in (25, 12, 6, 3, 1) and held.steps > packing.PATIENCE


def test_a_row_without_one_token_right_says_so(tiny_lm, short, monkeypatch):
    monkeypatch.setattr(packing, "PATIENCE", 3)
    batch = _batch(tiny_lm, 1, margin=100.0)
    batch.put(0, 0, IDS)
    (held,) = _run(batch)
    assert held.num_tokens == 0 and bool(torch.isfinite(held.mem).all())


def test_thorough_rows_hold_no_less(tiny_lm, short):
    held = []
    for thorough in (False, True):
        batch = _batch(tiny_lm, 1, thorough=thorough)
        batch.put(0, 0, IDS)
        held += _run(batch)
    assert held[1].num_tokens >= held[0].num_tokens and held[1].steps > held[0].steps


def test_a_limit_can_come_nearer_but_not_within_what_is_tried(tiny_lm, short):
    batch = _batch(tiny_lm, 1)
    batch.put(0, 0, IDS)
    batch.shorten(0, 6)
    (held,) = _run(batch)
    assert held.num_tokens <= 6
    batch.put(0, 0, IDS)
    with pytest.raises(AssertionError):
        batch.shorten(0, 3)


def test_tensors_live_where_the_loop_does(tiny_lm):
    assert _batch(tiny_lm, 1).mem.device == loop_device(tiny_lm.device)
