"""The benchmark harness itself: what it calls met, how it pairs rounds, what it writes."""

import json

import pytest

from benches import measure, report
from benches.groups import GROUPS
from benches.peers import ROWS, own_row
from benches.report import ROOT, Budget, Row


def row(**changes):
    fields = {"group": "g", "what": "w", "ours": 50.0, "unit": "us", "peer_name": "p", "peer": 100.0, "ratio": 0.5}
    return Row(**{**fields, **changes})


@pytest.mark.parametrize(
    ("budget", "met"),
    [
        (Budget("<=", 0.5), True),
        (Budget("<=", 0.49), False),
        (Budget(">=", 0.5), True),
        (Budget(">=", 0.51), False),
        (Budget("<=", 50, "ours"), True),
        (Budget("<=", 49, "ours"), False),
        (None, None),
    ],
)
def test_a_budget_judges_the_ratio_or_our_figure(budget, met):
    assert row(budget=budget).met is met


@pytest.mark.parametrize("missing", [None, float("nan")])
def test_what_could_not_be_measured_is_not_met(missing):
    assert row(ratio=missing, budget=Budget("<=", 1)).met is False
    assert row(ours=None).met is False
    assert "failed" in row(ours=None).cells()


def test_the_table_has_a_line_for_each_row():
    lines = report.table(
        [row(budget=Budget("<=", 0.6)), row(ours=1_234_567.0, unit="/s", ratio=None, peer=None)]
    ).split("\n")
    assert [cell.strip() for cell in lines[0].split("|")[1:-1]] == report.HEADER
    assert [cell.strip() for cell in lines[2].split("|")[1:-1]] == [
        "w",
        "50 us",
        "100 us p",
        "0.50 x",
        "<= 0.6 x",
        "yes",
    ]
    assert [cell.strip() for cell in lines[3].split("|")[1:-1]] == ["w", "1,234,567 /s", "-", "-", "-", "-"]
    assert len({len(line) for line in lines}) == 1


def test_the_report_is_json_with_every_row(tmp_path):
    path = tmp_path / "report.json"
    rows = [row(budget=Budget("<=", 0.1)), row(ours=float("nan"))]
    report.write(path, rows, report.environment(tmp_path), {"rounds": 1})
    written = json.loads(path.read_text())
    assert [entry["met"] for entry in written["rows"]] == [False, None]
    assert written["rows"][1]["ours"] is None
    assert written["environment"]["cores"] >= 1


def test_the_readme_gets_the_table_between_its_marks():
    env = report.environment(ROOT)
    text = report.put_into((ROOT / "README.md").read_text(), [row(budget=Budget("<=", 0.1))], env)
    assert "0 of 1 budgets met; missed: w." in text
    assert report.put_into(text, [row()], env).count(report.MARKS[0]) == 1
    with pytest.raises(ValueError, match="expected the marks"):
        report.put_into("nothing", [], env)


def test_rounds_take_turns_and_the_first_one_warms_up():
    order = []
    slots = {name: lambda name=name: order.append(name) for name in "abc"}
    results = measure.interleave(slots, 3)
    assert "".join(order) == "abcbcacababc"
    assert {name: len(values) for name, values in results.items()} == {"a": 3, "b": 3, "c": 3}


def test_a_ratio_is_the_median_of_those_within_a_round():
    assert measure.paired_ratio([10, 100, 30], [10, 50, 10]) == 2


def test_a_sample_summarises_latencies():
    sample = measure.Sample.of([n * 1_000 for n in range(100, 0, -1)], 2.0)
    assert (sample.rate, sample.p50_us, sample.p99_us, sample.count) == (50, 51, 100, 100)
    assert measure.Sample.of([], 1.0).rate == 0


def test_an_error_in_a_thread_is_raised_by_the_one_who_measures():
    def fail(n):
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        measure.run_threads([fail, lambda n: None], 0.01)


def test_threads_never_meet_on_a_row():
    for threads in (1, 3, 16):
        rows = [{own_row(thread, threads, n) for n in range(3 * ROWS)} for thread in range(threads)]
        assert sum(map(len, rows)) == len(set.union(*rows))
        assert max(map(max, rows)) < ROWS


def test_every_group_is_a_module():
    assert {path.stem for path in (ROOT / "benches/groups").glob("*.py")} == {*GROUPS, "__init__"}
