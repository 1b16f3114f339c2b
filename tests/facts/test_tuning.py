"""The search for a learning rate: extended at its edge, resumed after a kill, recorded whole."""

import json

import pytest

from normwise.experiments.tuning import Search, Try, Tuning, search

RATES = (1e-3, 3e-3, 1e-2)


def peak(at, asked=None):
    """Accuracy that is highest at one rate; keeps what was asked."""

    def attempt(rate):
        if asked is not None:
            asked.append(rate)
        return Try(rate, 1 / (1 + abs(rate - at) / at), 1.0, forwards=100, backwards=10, seconds=1.0)

    return attempt


@pytest.mark.parametrize(
    ("at", "chosen", "edge", "tried"),
    [
        (3e-3, 3e-3, False, 3),
        (3e-2, 3e-2, False, 5),  # 0.03 is tried, chosen, and then no longer at the edge
        (1e-4, 1.11e-4, False, 6),
        (10.0, 0.27, True, 6),  # the cap
    ],
)
def test_the_list_grows_by_thirds_while_its_edge_is_chosen(at, chosen, edge, tried, tmp_path):
    found = search(RATES, peak(at), tmp_path / "search.json", Tuning())
    assert (found.rate, found.edge, len(found.tries)) == (pytest.approx(chosen, rel=0.05), edge, tried)


def test_finished_tries_are_not_made_again(tmp_path):
    asked, file = [], tmp_path / "search.json"

    def dies(rate):
        if rate == 1e-2:
            raise KeyboardInterrupt
        return peak(3e-3, asked)(rate)

    with pytest.raises(KeyboardInterrupt):
        search(RATES, dies, file, Tuning())
    assert asked == [1e-3, 3e-3]
    found = search(RATES, peak(3e-3, asked), file, Tuning())
    assert asked == [1e-3, 3e-3, 1e-2]
    assert found == search(RATES, dies, file, Tuning())  # all is there: nothing is asked
    assert [one["rate"] for one in json.loads(file.read_text())] == asked


def test_of_equal_accuracies_the_one_that_learned_most_is_taken_and_a_diverged_one_never():
    tries = [Try(1e-3, 0.0, 3.0), Try(3e-3, 0.0, 2.0), Try(1e-2, 0.0, None)]
    assert max(tries, key=lambda one: one.rank).rate == 3e-3


def test_the_record_keeps_every_try_and_the_cost_of_all(tmp_path):
    record = search(RATES, peak(3e-3), tmp_path / "search.json", Tuning()).to_record()
    assert {key: record[key] for key in ("rate", "edge", "forwards", "backwards", "seconds")} == {
        "rate": 3e-3,
        "edge": False,
        "forwards": 300,
        "backwards": 30,
        "seconds": 3.0,
    }
    assert [one["rate"] for one in record["tries"]] == list(RATES)


def test_a_try_trains_a_third_of_the_schedule_at_least():
    assert [Tuning().epochs(whole) for whole in (1, 2, 10, 15, 20)] == [1, 1, 4, 5, 7]
    assert not Search((), 1e-3, edge=False).to_record()["tries"]


def test_rates_within_chance_are_told_apart_by_their_loss(tmp_path):
    """A newcomer's case: 0.7875, 0.7875 and 0.7375 of 80 rows, and the last had learned most by far."""
    seen = {1e-3: (0.7875, 0.40), 3e-3: (0.7875, 0.34), 1e-2: (0.7375, 0.24), 3e-2: (0.5, 0.20)}

    def attempt(rate):
        return Try(rate, *seen[rate])

    for rows, chosen in ((80, 1e-2), (8000, 3e-3)):
        how = Tuning(rows=rows, chance=True)
        assert search(tuple(seen), attempt, tmp_path / f"{rows}.json", how).rate == chosen
    assert search(tuple(seen), attempt, tmp_path / "none.json", Tuning()).rate == 3e-3
