"""Tests of an application with afterwards' helpers. pytest loads the plugin automatically.

pytest test_payments.py
"""

from datetime import timedelta
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from afterwards.testing import (
    assert_enqueued,
    assert_not_enqueued,
    clock,
    crash_at,
    drain,
    fire_schedules,
    run_twice,
)
from payments import app, charge, paid, remind


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TestClient:
    monkeypatch.chdir(tmp_path)
    return TestClient(app)


def mails() -> list[str]:
    return Path("mails.txt").read_text().splitlines() if Path("mails.txt").exists() else []


def test_an_order_is_paid_when_its_request_returns(client: TestClient) -> None:
    client.post("/orders/1?cents=250")
    assert paid() == 250
    assert_enqueued(charge, order=1, cents=250, delay=0)
    assert_not_enqueued(charge, order=2)


def test_an_order_is_paid_once_though_its_task_runs_twice(client: TestClient) -> None:
    with run_twice():
        client.post("/orders/1?cents=250")
    assert paid() == 250


def test_an_order_is_paid_though_the_process_dies_before(client: TestClient) -> None:
    with crash_at(charge, "start"):
        client.post("/orders/1?cents=250")
    assert paid() == 250
    assert assert_enqueued(charge).attempt == 2


def test_customers_are_reminded_after_three_days(client: TestClient) -> None:
    client.post("/orders/1?cents=250")
    assert_enqueued(remind, order=1, delay=timedelta(days=3))
    clock().advance(timedelta(days=3))
    drain()
    assert mails() == ["Order 1: are you content?"]


def test_nobody_is_reminded_twice(client: TestClient) -> None:
    client.post("/orders/1?cents=250")
    with crash_at(remind, "end"):
        drain(scheduled=True)
    assert mails() == ["Order 1: are you content?"]
    assert assert_enqueued(remind).state == "failed"


def test_the_report_is_made_every_day(client: TestClient) -> None:
    client.post("/orders/1?cents=250")
    clock().advance(timedelta(days=1))
    fire_schedules()
    drain()
    assert mails() == ["Paid so far: 250"]
