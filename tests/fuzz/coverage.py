"""One target under atheris: ``python -m tests.fuzz.coverage TARGET [libFuzzer's options]``."""

from __future__ import annotations

import sys

import atheris


def main() -> None:
    name, *options = sys.argv[1:]
    with atheris.instrument_imports(include=["flowrun", "cronsim"]):
        from tests.fuzz.targets import TARGETS
    from hypothesis import HealthCheck, given, settings

    values, check = TARGETS[name]
    test = settings(deadline=None, database=None, suppress_health_check=list(HealthCheck))(given(values)(check))
    atheris.Setup([sys.argv[0], *options], test.hypothesis.fuzz_one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
