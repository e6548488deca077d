import pytest

from prerank.training import progress
from prerank.training.progress import Rate


def test_the_rate_leaves_out_what_an_epoch_waits_for(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    rate = Rate()

    def step(number, seconds):
        now[0] += seconds
        return rate(number, 100)

    assert step(1, 20.0) == pytest.approx(100 / 20)  # all that is known yet
    assert step(2, 0.1) == pytest.approx(1000)
    assert step(3, 0.3) == pytest.approx(100 / 0.2)  # the mean of the first steps
    assert step(1, 50.0) == pytest.approx(100 / 0.2)  # validation came before it
    for number in range(2, 400):
        found = step(number, 0.05)
    assert found == pytest.approx(2000, rel=0.01)  # and the last ones count in the end
