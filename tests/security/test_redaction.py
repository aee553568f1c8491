"""No secret that looks like one is kept, nor logged; and payloads are never logged."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import asyncpg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowrun import ConfigurationError, Discard, Flowrun, JobFailed, Settings
from flowrun.redaction import Redactor, guarded, inside, redact

from .corpus import HARMLESS, SECRET, SECRETS


@pytest.mark.parametrize("text", SECRETS)
def test_what_looks_secret_is_masked(text: str) -> None:
    masked = Redactor(["iban"])(text)
    assert SECRET not in masked
    assert "***" in masked


@pytest.mark.parametrize("text", HARMLESS)
def test_what_does_not_stays(text: str) -> None:
    assert redact(text) == text


@settings(max_examples=200, deadline=None)
@given(
    before=st.text(max_size=40),
    key=st.sampled_from(["password", "api_key", "TOKEN"]),
    sign=st.sampled_from(["=", ": "]),
)
def test_a_secret_is_found_behind_anything(before: str, key: str, sign: str) -> None:
    assert SECRET not in redact(f"{before} {key}{sign}{SECRET}")


def test_long_texts_take_no_longer_than_their_length() -> None:
    """Catastrophic backtracking would take hours; the test's time limit is a minute."""
    for part in (
        "a",
        "token",
        "://",
        "password:",
        "'",
        '"',
        "authorization ",
        "-----BEGIN PRIVATE KEY-----",
        "://@",
        "eyJa.",
        "://a:",
        "postgresql://a@",
        "--password ",
        "<password>",
        "('token', '",
        "\\",
        "password='\\",
        "&quot;",
        "bearer ",
        "-u a:",
    ):
        redact(part * 50_000)


def test_data_is_masked_by_name() -> None:
    held = {"password": SECRET, "deep": [{"token": 5, "url": f"x://a:{SECRET}@h", "n": 1}], "none": None}
    assert inside(held, redact) == {
        "password": "***",
        "deep": [{"token": "***", "url": "x://***@h", "n": 1}],
        "none": None,
    }


def test_what_has_a_secrets_name_is_masked_whole() -> None:
    held = {
        "password": f"two words {SECRET}",
        "credentials": {"user": "ann", "word": SECRET},
        "headers": [["Authorization", f"ApiKey {SECRET}"], ["Accept", "x"]],
        "cookie": f"a=1; session={SECRET}",
    }
    assert inside(held, redact) == {
        "password": "***",
        "credentials": "***",
        "headers": [["Authorization", "***"], ["Accept", "x"]],
        "cookie": "***",
    }


def test_a_hook_that_breaks_keeps_nothing() -> None:
    assert guarded(lambda text: 1 / 0)(SECRET) == "<not kept: redact raised ZeroDivisionError>"
    assert guarded(lambda text: None)(SECRET) == "<not kept: redact returned NoneType>"
    assert guarded(None)(SECRET) == SECRET
    with pytest.raises(ConfigurationError, match="redact must be a function"):
        Settings(redact="x")


def test_a_dsn_is_not_in_a_repr() -> None:
    app = Flowrun(f"postgresql://ann:{SECRET}@db/shop", listen_dsn=f"postgresql://ann:{SECRET}@db/shop")
    for thing in (app, app.settings, app.client, app.client.database):
        assert SECRET not in repr(thing)


class Refused(Exception):
    detail = {"url": f"postgresql://ann:{SECRET}@db", "order": 7}


@pytest.mark.parametrize("hook", ["default", "own", "none"])
async def test_errors_are_masked_before_they_are_stored_or_logged(
    dsn: str, connection: asyncpg.Connection, caplog: pytest.LogCaptureFixture, hook: str
) -> None:
    given = {"default": {}, "own": {"redact": lambda text: text.replace(SECRET, "~")}, "none": {"redact": None}}[hook]
    app = Flowrun(dsn, **given)
    caplog.set_level(logging.DEBUG, "flowrun")

    @app.handler(attempts=1)
    async def fails(way: str, card: str) -> None:
        if way == "discard":
            raise Discard(f"password={SECRET}")
        error = Refused(f"no connection to postgresql://ann:{SECRET}@db/shop")
        error.add_note(f"Authorization: Bearer {SECRET}{SECRET}")
        raise error from ValueError(f"api_key={SECRET}")

    @app.on("job_failed")
    async def tell(error) -> None:
        raise RuntimeError(f"cannot tell with token={SECRET}: {error.message}")

    async with app.worker():
        for way in ("raise", "discard"):
            run = await fails.dispatch(way=way, card="4111-1111")
            with pytest.raises(JobFailed) as failed:
                await run.result(timeout=20)
            assert (SECRET in str(failed.value)) is (hook == "none")
            (attempt,) = await run.attempts()
            assert attempt.message
            if way == "raise":
                assert attempt.detail["detail"]["order"] == 7
                assert "Refused" in attempt.traceback
    stored = await connection.fetchval(
        "select string_agg(t::text, '') from (select a::text from flowrun.attempts a union select f::text from flowrun.finished f) t"
    )
    assert (SECRET in stored) is (hook == "none")
    assert "a hook of job_failed raised" in caplog.text
    assert (SECRET in caplog.text) is (hook == "none")
    assert "4111-1111" not in caplog.text


async def test_what_the_database_refuses_is_not_quoted(app: Flowrun, caplog: pytest.LogCaptureFixture) -> None:
    from flowrun.store.pool import reason

    async with app, app.client.database.acquire() as connection:
        await connection.execute("create table public.cards (number text check (length(number) < 5), n integer)")
        for statement, args in (
            ("insert into cards values ($1, $2)", ("4111-1111", 1)),
            ("insert into cards values ($1, $2)", ("4", "4111-1111")),
        ):
            with pytest.raises((asyncpg.PostgresError, asyncpg.DataError)) as refused:
                await connection.execute(statement, *args)
            assert "4111-1111" in str(refused.value)
            assert reason(refused.value)
            assert "4111" not in reason(refused.value)


async def test_the_processes_of_serve_do_not_show_the_dsn(shell, dsn: str) -> None:
    serving = await shell.start(
        "serve", "shop:app", "--processes=2", f"--dsn={dsn}", SHOP_DSN="postgresql://localhost:1/x"
    )
    await serving.says("runs 4 type(s)", 2)
    children = Path(f"/proc/{serving.process.pid}/task/{serving.process.pid}/children").read_text().split()
    assert len(children) >= 2
    for pid in children:
        assert dsn.encode() not in Path(f"/proc/{pid}/cmdline").read_bytes()
    serving.send(15)
    assert await serving.code() == 0


async def test_errors_of_the_command_line_are_masked(shell) -> None:
    wrong = f"postgresql://ann:{SECRET}@localhost:1/x"
    for arguments in (
        ["jobs", "--dsn", wrong],
        ["jobs", "--dns", wrong],
        ["serve", "shop:app", f"--dsm={wrong}"],
        ["doctor", "--dsn", wrong[:-2] + "?a b"],
    ):
        code, out, err = await shell.run(*arguments)
        assert code in {2, 3}
        assert err
        assert SECRET not in out + err
    (shell.directory / "broken.py").write_text(f"raise RuntimeError('no {wrong}')")
    _, out, err = await shell.run("serve", "broken:app")
    assert "RuntimeError" in err
    assert SECRET not in out + err


def test_nothing_is_pickled() -> None:
    """Nor otherwise turned into code or objects from what is stored."""
    import ast

    import flowrun

    for file in Path(os.path.dirname(flowrun.__file__)).rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [one.name for one in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            assert not {"pickle", "marshal", "shelve", "dill", "cloudpickle", "yaml"} & {
                name.split(".")[0] for name in names
            }, file
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in {"eval", "exec"}, file
