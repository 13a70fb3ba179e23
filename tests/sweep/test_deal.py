"""Who does which job, without a launcher and where the others cannot be reached; test_run.py has two real processes."""

from __future__ import annotations

import socket

import pytest

from cramdemo.errors import ModelError
from cramdemo.sweep import deal


def test_without_a_launcher_one_process_does_all(monkeypatch):
    for name in deal.LAUNCHED:
        monkeypatch.delenv(name, raising=False)
    worker = deal.join()
    assert (worker.rank, worker.count, worker.device) == (0, 1, None)
    assert [worker.take() for _ in range(3)] == [0, 1, 2]


def test_others_that_cannot_be_reached_are_one_sentence(monkeypatch):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    for name, value in zip(deal.LAUNCHED, ("1", "2", "127.0.0.1", str(port)), strict=True):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(deal, "CONNECT_SECONDS", 1.0)
    with pytest.raises(ModelError, match="cannot be reached"):
        deal.join()


def test_a_store_that_dies_is_one_sentence(monkeypatch):
    class Store:
        def add(self, key, amount):
            raise RuntimeError("Connection reset by peer")

    for name, value in zip(deal.LAUNCHED, ("1", "2", "127.0.0.1", "1"), strict=True):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(deal, "rendezvous", lambda *args, **kwargs: iter([(None, 1, 2)]))
    monkeypatch.setattr(deal, "PrefixStore", lambda prefix, store: Store())
    worker = deal.join()
    assert (worker.rank, worker.count) == (1, 2)
    with pytest.raises(ModelError, match="start the same command again"):
        worker.take()
