"""What is typed wrongly, and what is said about it."""

from __future__ import annotations

import asyncpg
import pytest

import flowrun
from tests.cli.conftest import Shell


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nonsense"], 'Unknown command "nonsense"'),
        (["serve"], "requires an argument"),
        (["serve", "shop"], "'shop' is not MODULE:APP; write for example shop:app"),
        (["serve", "./shop.py:app"], "write for example shop:app"),
        (["serve", "shup:app"], "no module 'shup'"),
        (["serve", "shup:app"], "did you mean 'shop'?"),
        (["serve", "shop.inner:app"], "no module 'shop.inner'"),
        (["serve", "shop:ap"], "module 'shop' has no 'ap'; did you mean shop:app?"),
        (["serve", "shop:number"], "shop:number is an int, not a Flowrun; did you mean shop:app?"),
        (["serve", "shop:create_later"], "shop:create_later is a function, not a Flowrun; did you mean shop:app?"),
        (["serve", "shop:app", "--concurrency", "many"], 'unable to convert "many" into int'),
        (["serve", "shop:app", "--concurrency", "0"], "concurrency must be"),
        (["serve", "shop:app", "--processes", "0"], "--processes must be"),
        (["serve", "shop:app", "--grace", "nan"], "--grace must be"),
        (["serve", "shop:app", "--queue", "bills=many"], "after = comes how many"),
        (["serve", "shop:app", "--queue", "bills=101"], "can have 1 to 100"),
        (["serve", "shop:app", "--queue", ""], "queue"),
        (["serve", "shop:app", "--embedded", "--dsn", "postgresql://x/y"], "give one"),
        (["serve", "shop:app", "--again"], "Unknown option"),
        (["migrate", "--dsn", "host=x password=s3cret"], "the DSN cannot be read"),
        (["migrate", "--dsn", "postgresql://u:s3cret/x"], "the DSN cannot be read"),
        (["demo", "--fail", "nobody"], "there is no such node; the flow has charge_payment, send_confirmation"),
    ],
)
async def test_usage_errors_are_one_line_and_exit_2(shell: Shell, arguments: list[str], said: str) -> None:
    code, out, err = await shell.run(*arguments)
    assert (code, out) == (2, "")
    assert said in err
    assert err.startswith("flowrun: ")
    assert err.count("\n") == 1
    assert "s3cret" not in err


async def test_an_error_in_the_users_module_shows_where(shell: Shell) -> None:
    (shell.directory / "broken.py").write_text("import shop\n\n1 / 0\n")
    (shell.directory / "lacking.py").write_text("import surely_not_installed\n")
    code, _, err = await shell.run("serve", "broken:app")
    assert code == 1
    assert 'broken.py", line 3' in err
    assert "importlib" not in err
    assert "flowrun/cli" not in err
    assert err.endswith("flowrun: importing 'broken' failed: ZeroDivisionError: division by zero\n")
    code, _, err = await shell.run("serve", "lacking:app")
    assert code == 1
    assert 'lacking.py", line 1' in err
    assert "No module named 'surely_not_installed'" in err


async def test_a_database_out_of_reach_is_3_and_tables_missing_is_4(
    shell: Shell, connection: asyncpg.Connection
) -> None:
    code, _, err = await shell.run("migrate", FLOWRUN_DSN="postgresql://u:s3cret@127.0.0.1:1/x")
    assert code == 3
    assert err.startswith("flowrun: cannot reach PostgreSQL at 127.0.0.1:1/x")
    code, _, err = await shell.run("serve", "shop:app", SHOP_DSN=shell.dsn.rpartition("/")[0] + "/nodatabase")
    assert code == 3
    await connection.execute("drop schema flowrun cascade")
    code, _, err = await shell.run("serve", "shop:app")
    assert code == 4
    assert err.splitlines()[-1] == "flowrun: schema 'flowrun' has no flowrun tables; run `flowrun migrate`"


async def test_version_and_help_go_to_stdout(shell: Shell) -> None:
    assert await shell.run("--version") == (0, flowrun.__version__ + "\n", "")
    code, out, err = await shell.run("serve", "--help", COLUMNS="120")
    assert (code, err) == (0, "")
    assert "FLOWRUN_CONCURRENCY" in out
    assert "--parent" not in out
