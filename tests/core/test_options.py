"""What each option allows, and which of two wins."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from flowrun import ConfigurationError, backoff
from flowrun.core.job import JobSpec
from flowrun.core.options import check, check_name, merge, stored_backoff, to_stored

NOW = datetime.now(UTC)
NAN, INF = float("nan"), float("inf")

ALLOWED = {
    "queue": ["default", "a", "q" * 200, 'odd "; drop table', "größe", "📮"],
    "priority": [0, 5, 9],
    "attempts": [1, 32_000],
    "backoff": [backoff.constant(1.0), lambda attempt: 1.0, [1, 5.0, 30], (0.5,)],
    "retention": [0, 60.0, INF, {"failed": INF}, {"succeeded": 0, "failed": 1.5, "cancelled": 2, "skipped": 3}],
    "debounce": [("k", 5.0), ["k", 1]],
    "throttle": [("k" * 500, 0.1)],
    "timeout": [0.001, 30, 30.0],
    "delay": [0, 0.0, 5],
    "run_at": [NOW, datetime(1970, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC)],
    "optional": [True, False],
    "start_by": [NOW, 0.5, 60],
    "tags": [[], ["a", "b"], ("a",)],
    "key": ["a", " a b ", "k" * 500, "größe/1", "📮" * 450],
    "on_conflict": ["existing", "replace", "raise"],
    "key_ttl": [0.001, 30, 1e9],
    "on_lost": ["retry", "fail"],
}
REFUSED = {
    "queue": ["", " a", "a ", "a\n", "a\x00", "q" * 201, 5, "flowrun", "\ud800"],
    "priority": [-1, 10, 5.0, True, "5"],
    "attempts": [0, -1, 32_001, 2.0, True, "3"],
    "backoff": [5, "exponential", [], [1, -1], [1, "2"], [True]],
    "retention": [-1, NAN, "7d", True, {}, {"done": 1}, {"failed": -1}, {"failed": "x"}, [1]],
    "debounce": ["k", ("k",), ("k", 0), ("", 5.0), (5, "k"), ("k", INF), ("k", 5.0, 1)],
    "throttle": [5.0, ("k", -1), {"k": 5}],
    "timeout": [0, 0.0, -1, NAN, INF, 1e12, True, "30"],
    "delay": [-1, NAN, INF, 1e12, True, "5"],
    "run_at": [NOW.replace(tzinfo=None), "2030-01-01", 5, NOW.date()],
    "retry_on": ["ValueError", ValueError(), [], [ValueError, "x"], int],
    "give_up_on": ["ValueError", (), [5], object],
    "optional": [1, 0, "yes"],
    "start_by": ["x", 0, -1, True, NOW.replace(tzinfo=None)],
    "key": ["", "a\n", "a\x00", "a\x7f", "k" * 501, "📮" * 451, "\ud800", 5, b"a", ["a"]],
    "on_conflict": ["", "ignore", "Raise", 5, ["raise"]],
    "limit": [0, -1, True, "k", ("k",), ("k", 0), ("", 1), ("a\x1f", 1), ("k", 1.5), (5, "k")],
    "sequence": ["", "a\n", "s" * 201, 5],
    "fair_key": ["", "a\n", "s" * 201, 5],
    "on_failure": ["send_problem", 5, {}],
    "on_lost": ["", "Fail", "never", True, 5, ["fail"]],
    "key_ttl": [0, -1, NAN, INF, 1e12, True, "5"],
    "tags": ["abc", [1], [""], ["a\n"], {"a"}, [" a"]],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in ALLOWED.items() for value in values])
def test_allowed(name: str, value: Any) -> None:
    assert check({name: value}, "job 'x'").keys() & {name, "key"}


@pytest.mark.parametrize(
    ("name", "value"),
    [pytest.param(name, value, id=f"{name}-{value!a:.20}") for name, values in REFUSED.items() for value in values],
)
def test_refused(name: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=rf"^job 'x': {name}= must be .+; got "):
        check({name: value}, "job 'x'")


def test_every_option_has_a_refused_value() -> None:
    with pytest.raises(ConfigurationError, match="unknown option 'retries'; the options are (.+)") as error:
        check({"retries": 3}, "job 'x'")
    listed = str(error.value).split("the options are ")[1].split(", ")
    assert sorted(listed) == sorted(REFUSED)


@pytest.mark.parametrize("name", ["connection"])
def test_options_of_later_versions_are_refused_clearly(name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"option {name}= .+ is not built yet"):
        check({name: "x"}, "job 'x'")


def test_so_many_tags() -> None:
    assert len(check({"tags": ["a"] * 100}, "job 'x'")["tags"]) == 100
    with pytest.raises(
        ConfigurationError, match=r"job 'x': tags= must be a list of at most 100 texts, these are 1,000,000"
    ) as error:
        check({"tags": ["a"] * 1_000_000}, "job 'x'")
    assert len(str(error.value)) < 300


def test_none_is_not_given() -> None:
    assert check({"timeout": None, "queue": None}, "job 'x'") == {}


def test_a_refusal_does_not_print_a_novel() -> None:
    with pytest.raises(ConfigurationError) as error:
        check({"queue": "x" * 1_000_000}, "job 'x'")
    assert len(str(error.value)) < 400


def test_exception_types() -> None:
    assert check({"retry_on": ValueError}, "x")["retry_on"] == (ValueError,)
    assert check({"retry_on": [ValueError, OSError]}, "x")["retry_on"] == (ValueError, OSError)


def test_debounce_and_throttle_are_keys() -> None:
    assert check({"throttle": ("k", 60)}, "x") == {"key": "k", "on_conflict": "existing", "key_ttl": 60.0}
    wanted = {"key": "k", "on_conflict": "debounce", "key_ttl": None, "delay": 5.0}
    assert check({"debounce": ["k", 5]}, "x") == wanted
    for options in (
        {"debounce": ("k", 5), "delay": 1}, {"debounce": ("k", 5), "run_at": NOW}, {"throttle": ("k", 5), "key": "k"},
        {"debounce": ("k", 5), "throttle": ("k", 5)}, {"throttle": ("k", 5), "on_conflict": "raise"},
    ):  # fmt: skip
        with pytest.raises(ConfigurationError, match=r"exclude each other"):
            check(options, "x")
    assert check({"throttle": ("k", 5), "delay": 1}, "x")["delay"] == 1
    with pytest.raises(ConfigurationError, match="on_conflict= must be 'existing', 'replace' or 'raise'"):
        check({"on_conflict": "debounce"}, "x")


def test_retention_is_stored_as_json_has_it_and_postgres_reads_it() -> None:
    kept = check({"retention": {"failed": INF, "succeeded": 5}}, "x")
    assert to_stored(kept, "x") == {"retention": {"failed": "Infinity", "succeeded": 5.0}}
    assert to_stored(check({"retention": INF}, "x"), "x") == {"retention": "Infinity"}


def test_the_first_layer_wins() -> None:
    assert merge({"priority": 1}, {"priority": 2, "queue": "a"}, {"queue": "b", "attempts": 3}) == {
        "priority": 1,
        "queue": "a",
        "attempts": 3,
    }


def test_stored_options_survive_json() -> None:
    options = check(
        {"attempts": 2, "timeout": 5, "tags": ["a"], "retry_on": OSError, "give_up_on": [KeyError], "queue": "q",
         "backoff": backoff.linear(3.0)}, "x",
    )  # fmt: skip
    stored = json.loads(json.dumps(to_stored(options, "x")))
    assert stored_backoff(stored) == backoff.linear(3.0)
    del stored["backoff"]
    assert stored == {
        "attempts": 2,
        "timeout": 5.0,
        "tags": ["a"],
        "retry_on": ["builtins.OSError"],
        "give_up_on": ["builtins.KeyError"],
    }
    assert stored_backoff({}) is None


def test_a_function_as_backoff_belongs_on_the_handler() -> None:
    with pytest.raises(ConfigurationError, match="set it on the handler"):
        to_stored({"backoff": lambda attempt: 1.0}, "job 'x'")


@pytest.mark.parametrize("name", ["a", "x" * 200, "ä-1/2", "a b"])
def test_names(name: str) -> None:
    assert check_name("a node's name", name) == name


@pytest.mark.parametrize("name", ["", " ", "x" * 201, "a\tb", "a\x7f", " a", "a\u00a0", None, 5, b"a", "\udcff"])
def test_refused_names(name: object) -> None:
    with pytest.raises(ConfigurationError, match="^a node's name must be a text of 1 to 200 characters"):
        check_name("a node's name", name)


def test_options_on_a_spec_add_up_and_leave_the_first_alone() -> None:
    first = JobSpec("a").options(priority=1, delay=2.0)
    second = first.options(priority=3)
    assert first.overrides == {"priority": 1, "delay": 2.0}
    assert second.overrides == {"priority": 3, "delay": 2.0}


def test_a_spec_does_not_show_its_arguments() -> None:
    assert "secret" not in repr(JobSpec("a", ["secret"], {"token": "secret"}).options(priority=1))
