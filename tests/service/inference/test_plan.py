"""What ``serving.json`` says of a model's versions, and what it must not say."""

from pathlib import Path

import pytest

from service.inference.plan import SERVING_FILE, InvalidPlan, Latest, Plan, plan_of, read_plan, with_label, write_plan


def test_without_a_file_the_newest_answers(tmp_path: Path) -> None:
    """One version is loaded, the newest, and nothing is named."""
    plan = read_plan(tmp_path)
    assert (plan.versions, plan.newest, plan.named) == (Latest(1), 1, set())


def test_what_is_written_is_read(tmp_path: Path) -> None:
    """The file is whole, has what was set and no defaults, and nothing is left beside it."""
    plan = Plan(Latest(2), {"stable": 3, "canary": 4}, {"stable": 90, "canary": 10}, "canary")
    write_plan(tmp_path, plan)
    assert read_plan(tmp_path) == plan
    assert [file.name for file in tmp_path.iterdir()] == [SERVING_FILE]
    write_plan(tmp_path, Plan(labels={"stable": 3}))
    assert (tmp_path / SERVING_FILE).read_text().split() == ["{", '"labels":', "{", '"stable":', "3", "}", "}"]


@pytest.mark.parametrize(
    ("text", "newest", "named"),
    [
        ('{"versions": {"latest": 3}}', 3, set()),
        ('{"versions": "all"}', float("inf"), set()),
        ('{"versions": [2, 7]}', 0, {2, 7}),
        ('{"labels": {"stable": 5}, "shadow": "9"}', 1, {5, 9}),
        ('{"traffic": {"4": 1, "6": 1.5}}', 1, {4, 6}),
        ('{"versions": []}', 0, set()),
    ],
)
def test_policies(text: str, newest: float, named: set[int]) -> None:
    """The newest ones, these, or all; what labels, traffic and shadow name is loaded as well."""
    plan = plan_of(text.encode())
    assert (plan.newest, plan.named) == (newest, named)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "truncated"),
        ("[]", "Expected `object`, got `array`"),
        ('{"version": 3}', "unknown field `version`"),
        ('{"versions": {"latest": 0}}', "`int` >= 1"),
        ('{"versions": "newest"}', "$.versions"),
        ('{"versions": [0]}', "`int` >= 1"),
        ('{"labels": {"3": 3}}', "'3' is no label"),
        ('{"labels": {"a b": 3}}', "'a b' is no label"),
        ('{"labels": {"stable": -1}}', "`int` >= 1"),
        ('{"traffic": {"canary": 1}}', "traffic names 'canary', which is neither a number nor one of the labels"),
        ('{"traffic": {"3": 0}}', "add up to nothing"),
        ('{"traffic": {"3": -1}}', "`float` >= 0"),
        ('{"traffic": {"3": 1e308, "4": 1e308}}', "add up to nothing, or to no number"),
        ('{"shadow": "next"}', "shadow names 'next'"),
        ("\ufeff{}", "malformed"),
    ],
)
def test_what_cannot_be_followed(text: str, told: str) -> None:
    """Each fault is told by its place or its name."""
    with pytest.raises(InvalidPlan) as raised:
        plan_of(text.encode())
    assert told in str(raised.value)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    """A folder in its place, or a file without end, is a fault and not a default."""
    (tmp_path / SERVING_FILE).mkdir()
    with pytest.raises(InvalidPlan, match="cannot be read"):
        read_plan(tmp_path)
    (tmp_path / SERVING_FILE).rmdir()
    (tmp_path / SERVING_FILE).symlink_to("/dev/zero")
    with pytest.raises(InvalidPlan, match="cannot be read"):
        read_plan(tmp_path)


def test_labels_are_moved() -> None:
    """A label goes from one version to another; one that traffic goes by cannot be taken away."""
    plan = Plan(labels={"stable": 3, "canary": 4}, traffic={"stable": 1, "canary": 1})
    assert with_label(plan, "stable", 4).labels == {"canary": 4, "stable": 4}
    with pytest.raises(InvalidPlan, match="traffic names 'canary'"):
        with_label(plan, "canary", None)
    assert with_label(Plan(labels={"old": 1}), "old", None) == Plan()
