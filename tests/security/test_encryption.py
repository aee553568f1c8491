"""Encryption at rest: what a program gives is nowhere to be read in the database, and opened only where it belongs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from flowrun import ConfigurationError, Flowrun, InvalidArguments, InvalidFlow, Job, JobError, JobFailed, NotReadable
from flowrun.encryption import Encryption, _ExtendedNonces
from flowrun.sealing import Sealing

MARK = "mk7f3a9"
"""In every value that a program gives here."""
OLD, NEW = Encryption.new_key(), Encryption.new_key()


async def leaks(connection: asyncpg.Connection) -> list[str]:
    """The tables in any column of which the mark can be read."""
    found = []
    for (table,) in await connection.fetch(
        "select table_name from information_schema.tables where table_schema = 'flowrun' and table_type = 'BASE TABLE'"
    ):
        rows = await connection.fetch(f'select t::text from flowrun."{table}" t where t::text like $1', f"%{MARK}%")
        found += [f"{table}: {row[0][:300]}" for row in rows]
    return found


class Refused(Exception):
    def __init__(self, what: str) -> None:
        super().__init__(f"refused {what}")
        self.detail = {"what": what}
        self.add_note(f"a note on {what}")


def program(dsn: str, codec: Encryption | None) -> Flowrun:
    """The same program, with one codec or another."""
    app = Flowrun(dsn, codec=codec, poll=0.2)

    @app.handler
    async def echo(value: Any, more: Any = None) -> Any:
        return value

    @app.handler(attempts=1)
    async def refuse(value: str) -> str:
        if value.startswith("bad"):
            raise Refused(value)
        return value

    return app


def codec(**keys: str) -> Encryption:
    return Encryption(keys)


@pytest.fixture
def app(dsn: str) -> Flowrun:
    return program(dsn, codec(k1=OLD))


async def test_what_a_program_gives_is_nowhere_to_be_read(
    app: Flowrun, connection: asyncpg.Connection, until: Callable[..., Awaitable[None]]
) -> None:
    heard: list[JobError] = []
    told: list[Any] = []
    seen: dict[str, Any] = {}
    go_on = asyncio.Event()
    refuse = app.registry.get("refuse")

    def job(name: str, **args: Any) -> Any:
        return app.job(name, args)

    @app.handler
    async def failed(error: JobError, why: str) -> str:
        heard.append(error)
        return f"{why} {error.message}"

    @app.handler(attempts=2)
    async def works(job: Job, value: str) -> dict[str, Any]:
        remembered = await job.step(f"step {job.type}", lambda: {"kept": value})
        await job.progress(0.5, f"at {value}")
        if job.attempt == 1:
            await asyncio.wait_for(go_on.wait(), 40)
            raise Refused(value)
        await app.job("echo", {"value": f"buffered {value}"}).dispatch()
        job.spawn(app.job("echo", {"value": f"spawned {value}"}), name="spawned", detached=True)
        return {"deep": [remembered["kept"]], "items": [f"{value}-{number}" for number in range(3)]}

    @app.handler
    async def child(job: Job, part: str) -> str:
        seen["parent"] = job.parents["works"].result
        seen["bad"] = job.parents["bad"].error
        return f"child of {part}"

    @app.handler
    async def completes(job: Job, value: str) -> None:
        async with job.transaction() as tx:
            await tx.complete({"completed": value})

    @app.handler(process=False)
    def in_thread(job: Job, value: str) -> str:
        job.progress(0.25, f"thread {value}")
        return value

    @app.on("job_failed")
    async def hook(error: JobError | None) -> None:
        if error is not None:
            told.append((error.args, error.message))

    flow = app.flow("rich")
    works_node = flow.add(job("works", value=MARK), name="works")
    bad = flow.add(
        job("refuse", value=f"bad {MARK}").options(on_failure=job("failed", why=f"why {MARK}"), optional=True),
        name="bad",
    )
    flow.add(job("child", part=works_node.result["deep"][0]), after=[works_node, bad.finished], name="child")
    mapped = flow.map(job("echo", more=MARK), over=works_node.result["items"], argument="value", name="mapped")
    literal = flow.map(job("echo"), over=[f"a {MARK}", f"b {MARK}"], argument="value", name="literal")
    gate = flow.wait_for("approved", answers=[f"yes {MARK}", f"no {MARK}"], name="gate")
    late = flow.wait_for("never", timeout=0.2, default={"late": MARK}, name="late")
    inner = app.flow("inner", output="last")
    inner.add(job("echo", value=f"inner {MARK}"), name="last")
    nested = flow.add(inner, after=works_node, name="nested")
    done = flow.add(job("completes", value=MARK), name="completes")
    flow.add(job("in_thread", value=MARK), name="thread")
    flow.add(
        job("echo", value=[mapped.result, literal.result, gate.result, late.result, nested.result, done.result]),
        name="all",
    )
    flow.on_finish(job("echo", value=f"callback {MARK}"))

    async with app, app.worker(concurrency=10):
        run = await flow.dispatch()
        await until(lambda: heard)
        await until(lambda: told)
        await app.schedules.put("s", every=86_400.0, spec=job("echo", value=f"schedule {MARK}"))
        assert not await app.schedules.put("s", every=86_400.0, spec=job("echo", value=f"schedule {MARK}"))
        assert await app.schedules.put("s", every=86_400.0, spec=job("echo", value=f"other {MARK}"))
        tick = await app.schedules.trigger("s")
        assert await tick.result(timeout=40) == f"other {MARK}"
        status = await run["works"].status()
        await until(lambda: run["works"].status())
        assert status.progress_message in (None, f"at {MARK}")
        assert await leaks(connection) == []

        [gate_open] = [one for one in await app.gates.list() if one.node == "gate"]
        assert gate_open.answers == [f"yes {MARK}", f"no {MARK}"]
        assert MARK in str(await run.explain("gate"))
        with pytest.raises(InvalidArguments):
            await run.signal("approved", "something else")
        assert await run.signal("approved", f"yes {MARK}")
        added = await run.add(job("echo", value=f"added {MARK}"), name="added")
        go_on.set()
        result = await run["all"].result(timeout=40)
        items = [f"{MARK}-{number}" for number in range(3)]
        inside = [
            items,
            [f"a {MARK}", f"b {MARK}"],
            f"yes {MARK}",
            {"late": MARK},
            f"inner {MARK}",
            {"completed": MARK},
        ]
        assert result == inside
        status = await run.wait(timeout=40)
        assert status.state == "succeeded"
        assert (await run.result(timeout=40))["all"] == inside
        assert await run["child"].result(timeout=40) == f"child of {MARK}"
        assert seen == {"parent": {"deep": [MARK], "items": items}, "bad": f"refused bad {MARK}"}
        assert status["bad"].error == f"refused bad {MARK}"
        assert status["thread"].progress_message == f"thread {MARK}"
        assert await added.result(timeout=40) == f"added {MARK}"
        [entry] = [one for one in await run.audit() if one.verb == "signal"]
        assert entry.detail["value"] == f"yes {MARK}"
        messages = {(event.kind, event.name): event.message async for event in run.events()}
        assert messages["job_failed", "bad"] == messages["attempt_failed", "bad"] == f"refused bad {MARK}"

        [attempt] = await run["bad"].attempts()
        assert attempt.message == f"refused bad {MARK}"
        assert attempt.detail == {"notes": [f"a note on bad {MARK}"], "detail": {"what": f"bad {MARK}"}}
        assert "raise Refused(value)" in (attempt.traceback or "")
        [error] = heard
        assert (error.args, error.message, error.detail) == (
            {"value": f"bad {MARK}"}, f"refused bad {MARK}", attempt.detail,
        )  # fmt: skip
        assert told == [({"value": f"bad {MARK}"}, f"refused bad {MARK}")]
        callbacks = [one for one in await app.jobs.list(type="failed") if one.state == "succeeded"]
        assert await (await app.get_job(callbacks[0].id)).result() == f"why {MARK} refused bad {MARK}"
        echoes = [
            await (await app.get_job(one.id)).result(timeout=40) for one in await app.jobs.list(type="echo", limit=100)
        ]
        assert {f"buffered {MARK}", f"spawned {MARK}", f"callback {MARK}"} <= {
            one for one in echoes if isinstance(one, str)
        }

        # The dead letter: seen, edited, retried; and decided by hand.
        single = await app.job(refuse.type, {"value": f"bad again {MARK}"}).dispatch()
        with pytest.raises(JobFailed, match=f"refused bad again {MARK}"):
            await single.result(timeout=40)
        [dead] = [one for one in await app.failed.list(type="refuse") if one.id == single.id]
        assert (dead.args, dead.message) == ({"value": f"bad again {MARK}"}, f"refused bad again {MARK}")
        assert "raise Refused(value)" in (dead.traceback or "")
        await app.failed.retry(single.id, args={"value": f"good {MARK}"})
        assert await single.result(timeout=40) == f"good {MARK}"
        other = await app.job(refuse.type, {"value": "bad"}).dispatch()
        await other.wait(timeout=40)
        await other.resolve({"by hand": MARK})
        assert await other.result(timeout=40) == {"by hand": MARK}
        waiting = await app.job("echo", {"value": MARK}).options(delay=3600.0).dispatch()
        assert (await waiting.status()).state == "scheduled"
        assert await leaks(connection) == []


async def test_keys_are_changed_in_two_steps(dsn: str, connection: asyncpg.Connection) -> None:
    before = program(dsn, codec(k1=OLD))
    async with before:
        first = await before.job("echo", {"value": 1}).dispatch()
    both = program(dsn, codec(k2=NEW, k1=OLD))
    async with both, both.worker(concurrency=2):
        assert await (await both.get_job(first.id)).result(timeout=40) == 1
        second = await both.job("echo", {"value": 2}).dispatch()
        await second.wait(timeout=40)
    keys = dict(await connection.fetch("select id, split_part(args #>> '{}', ':', 4) from flowrun.jobs"))
    assert keys == {first.id: "k1", second.id: "k2"}
    after = program(dsn, codec(k2=NEW))
    async with after:
        assert await (await after.get_job(first.id)).result(timeout=40) == 1  # its result was sealed by the new key
        assert await (await after.get_job(second.id)).result(timeout=40) == 2


async def test_what_was_stored_before_is_read(dsn: str, connection: asyncpg.Connection) -> None:
    plain = program(dsn, None)
    async with plain:
        flow = plain.flow("f")
        first = flow.add(plain.job("refuse", {"value": "x"}), name="first")
        flow.add(plain.job("echo", {"value": first.result}), name="second")
        run = await flow.dispatch()
    sealing = program(dsn, codec(k1=OLD))
    async with sealing, sealing.worker(concurrency=2):
        assert await (await sealing.get_flow(run.id)).result(timeout=40) == "x"
    assert await connection.fetchval(
        "select bool_and(result #>> '{}' like 'flowrun:sealed:1:k1:%') from flowrun.finished"
    )


@pytest.mark.parametrize("keys", [None, {"k9": NEW}, {"k1": NEW}])
async def test_without_the_key_a_job_fails_once_and_can_be_retried(
    dsn: str, connection: asyncpg.Connection, keys: dict[str, str] | None
) -> None:
    with_key = program(dsn, codec(k1=OLD))
    async with with_key:
        single = await with_key.job("echo", {"value": MARK}).dispatch()
        flow = with_key.flow("f")
        first = flow.add(with_key.job("echo", {"value": {"x": MARK}}), name="first")
        flow.add(with_key.job("echo", {"value": first.result["x"]}), name="second")
        run = await flow.dispatch()
    without = program(dsn, None if keys is None else Encryption(keys))
    async with without, without.worker(concurrency=2):
        stranger = await without.get_job(single.id)
        with pytest.raises(JobFailed, match=r"encrypted \(key id k1\)") as caught:
            await stranger.result(timeout=40)
        assert caught.value.error_type == "flowrun.errors.NotReadable"
        assert (await stranger.status()).attempt == 1
        assert (await (await without.get_flow(run.id)).wait(timeout=40)).state == "failed"
        [dead] = [one for one in await without.failed.list() if one.id == single.id]
        assert dead.args == {"...": "encrypted (key id k1)"}
        if keys is None:
            with pytest.raises(NotReadable, match="this app has no codec"):
                await without.failed.retry(single.id, args={"value": 1})
        healthy = await without.job("echo", {"value": "well"}).dispatch()
        assert await healthy.result(timeout=40) == "well"  # the worker lives on
    async with with_key, with_key.worker(concurrency=2):
        await with_key.failed.retry(single.id)
        assert await single.result(timeout=40) == MARK
        await (await with_key.get_flow(run.id)).retry()
        assert await (await with_key.get_flow(run.id)).result(timeout=40) == MARK


async def test_no_reference_brings_a_sealed_result_to_a_worker_without_the_key(dsn: str) -> None:
    with_key, without = program(dsn, codec(k1=OLD)), program(dsn, None)
    async with with_key, without:
        flow = without.flow("f")
        first = flow.add(without.job("echo", {"value": MARK}), name="first")
        flow.add(without.job("echo", {"value": first.result}), name="second")
        run = await flow.dispatch()
        await run["first"].resolve(MARK)  # in plain: it has no codec
        async with without.worker(concurrency=2):
            assert await run.result(timeout=40) == MARK
        again = await flow_of_two(without)
        await (await with_key.get_flow(again.id))["first"].resolve(MARK)
        async with without.worker(concurrency=2):
            assert (await again.wait(timeout=40))["second"].error_type == "flowrun.errors.NotReadable"
            with pytest.raises(NotReadable, match="no codec"):
                await again["first"].result(timeout=40)


async def flow_of_two(app: Flowrun) -> Any:
    flow = app.flow("f")
    first = flow.add(app.job("echo", {"value": MARK}), name="first")
    flow.add(app.job("echo", {"value": first.result}), name="second")
    return await flow.dispatch()


async def test_what_was_moved_or_changed_is_not_opened(app: Flowrun, connection: asyncpg.Connection) -> None:
    async with app:
        one, two, three, four, five = [await app.job("echo", {"value": number}).dispatch() for number in range(5)]
        args = await connection.fetchval("select args::text from flowrun.jobs where id = $1", one.id)
        changed = {
            two.id: args,  # of another job
            three.id: json.dumps("gASVBQAAAAAAAACMAXiULg=="),  # something else altogether
            four.id: args.replace("sealed:1:", "sealed:7:"),
            five.id: args[:-9] + ("A" if args[-9] != "A" else "B") + args[-8:],
        }
        for id, value in changed.items():
            await connection.execute("update flowrun.jobs set args = $2::text::jsonb where id = $1", id, value)
        async with app.worker(concurrency=2):
            assert await one.result(timeout=40) == 0
            wanted = (
                (two, "moved here"),
                (three, "unknown encoding"),
                (four, "unknown encoding"),
                (five, "was changed"),
            )
            for run, why in wanted:
                with pytest.raises(JobFailed, match=why):
                    await run.result(timeout=40)
                assert (await run.status()).attempt == 1
            # From one field to another of the same job.
            await connection.execute(
                "update flowrun.finished set result = args from flowrun.jobs where jobs.id = finished.id and jobs.id = $1",
                one.id,
            )
            with pytest.raises(NotReadable, match="moved here"):
                await one.result(timeout=40)
            assert await (await app.job("echo", {"value": "well"}).dispatch()).result(timeout=40) == "well"


@pytest.mark.parametrize("broken", ['"gASVBQAAAAAAAACMAXiULg=="', "[1, 2]", "7", "null", "true"])
async def test_arguments_that_flowrun_did_not_write(dsn: str, connection: asyncpg.Connection, broken: str) -> None:
    app = program(dsn, None)
    async with app:
        run = await app.job("echo", {"value": 1}).dispatch()
        await connection.execute("update flowrun.jobs set args = $1::text::jsonb", broken)
        async with app.worker(concurrency=2):
            with pytest.raises(JobFailed, match="unknown encoding"):
                await run.result(timeout=40)
            assert (await run.status()).attempt == 1


async def test_the_database_is_asked_nothing_it_cannot_know(app: Flowrun, connection: asyncpg.Connection) -> None:
    flow = app.flow("f")
    first = flow.add(app.job("echo", {"value": "yes"}), name="first")
    flow.add(app.job("echo", {"value": 1}), after=first.when("yes"), name="second")
    gated = app.flow("g")
    gate = gated.wait_for("ok", answers=["yes"])
    gated.add(app.job("echo", {"value": 1}), after=gate.when("yes"), name="then")
    async with app:
        for one, name in ((flow, "second"), (gated, "then")):
            with pytest.raises(InvalidFlow, match=f"'{name}'.*encrypted"):
                await one.dispatch()
            with pytest.raises(InvalidFlow, match=f"'{name}'.*encrypted"):
                await app.schedules.put("s", every=60.0, spec=one)
    assert await connection.fetchval("select count(*) from flowrun.jobs") == 0


async def test_a_schedule_whose_key_is_missing_waits_for_who_has_it(
    dsn: str, connection: asyncpg.Connection, until: Callable[..., Awaitable[None]], caplog: pytest.LogCaptureFixture
) -> None:
    with_key, without = program(dsn, codec(k1=OLD)), program(dsn, None)
    async with with_key, without:
        await with_key.schedules.put("s", every=3600.0, spec=with_key.job("echo", {"value": MARK}), catchup="last")
        await connection.execute("update flowrun.schedules set next_at = date_trunc('hour', now())")
        async with without.worker(concurrency=1):
            await until(lambda: "schedule 's' cannot tick here" in caplog.text)
            with pytest.raises(NotReadable):
                await without.schedules.trigger("s")
        assert await connection.fetchval("select count(*) from flowrun.jobs") == 0
        async with with_key.worker(concurrency=1):
            await until(lambda: connection.fetchval("select count(*) = 1 from flowrun.finished where outcome = 1"))
        assert await leaks(connection) == []


class Refuses:
    """A codec whose key service is gone."""

    def __init__(self) -> None:
        self.works = True

    def seal(self, plain: bytes, context: bytes) -> tuple[str, bytes]:
        if not self.works:
            raise OSError(f"no service for {plain!r}")
        return "k", plain[::-1]

    def open(self, key: str, sealed: bytes, context: bytes) -> bytes:
        if not self.works:
            raise OSError("no service")
        return sealed[::-1]


async def test_a_codec_that_fails_loses_nothing_and_tells_nothing(dsn: str, connection: asyncpg.Connection) -> None:
    codec = Refuses()
    app = Flowrun(dsn, codec=codec)

    @app.handler
    async def breaks(value: str) -> str:
        codec.works = False
        return value

    async with app, app.worker(concurrency=1):
        run = await breaks.dispatch(MARK)
        status = await run.wait(timeout=40)
        assert (status.state, status.error_type) == ("failed", "flowrun.ResultNotStorable")
        with pytest.raises(OSError, match="no service"):
            await breaks.dispatch(MARK)
        codec.works = True
        assert await leaks(connection) == []
        await app.failed.retry(run.id)
        assert (await run.wait(timeout=40)).state == "failed"


async def test_the_command_line_says_what_it_cannot_show(dsn: str, shell: Any, tmp_path: Path) -> None:
    app = program(dsn, codec(k1=OLD))
    async with app, app.worker(concurrency=1):
        run = await app.job("refuse", {"value": f"bad {MARK}"}).dispatch()
        await run.wait(timeout=40)
    for words in (("show", str(run.id)), ("failed", "--json")):
        code, out, _ = await shell.run(*words, "--dsn", dsn)
        assert (code, MARK in out, "encrypted (key id k1)" in out) == (0, False, True)
    (tmp_path / "sealed.py").write_text(
        f"from flowrun import Flowrun\nfrom flowrun.encryption import Encryption\n"
        f"app = Flowrun({dsn!r}, codec=Encryption({{'k1': {OLD!r}}}))\n"
    )
    code, out, err = await shell.run("show", str(run.id), "--app", "sealed:app")
    assert (code, f"refused bad {MARK}" in out) == (0, True), err


def test_the_cipher_is_the_one_that_was_specified(monkeypatch: pytest.MonkeyPatch) -> None:
    """The vectors of C2SP's XAES-256-GCM."""
    nonce = b"ABCDEFGHIJKLMNOPQRSTUVWX"
    monkeypatch.setattr("flowrun.encryption.os.urandom", lambda size: nonce[:size])
    for key, context, wanted in (
        (1, b"", "ce546ef63c9cc60765923609b33a9a1974e96e52daf2fcf7075e2271"),
        (3, b"c2sp.org/XAES-256-GCM", "986ec1832593df5443a179437fd083bf3fdb41abd740a21f71eb769d"),
    ):
        cipher = _ExtendedNonces(bytes([key]) * 32)
        sealed = cipher.encrypt(b"XAES-256-GCM", context)
        assert sealed == nonce + bytes.fromhex(wanted)
        assert cipher.decrypt(sealed, context) == b"XAES-256-GCM"


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        ({}, "one key at least"),
        ({"k1": "hunter2"}, "not 32 bytes"),
        ({"k1": b"hunter2"}, "not 32 bytes"),
        ({"k:1": OLD}, "id of a key"),
        ({"": OLD}, "id of a key"),
    ],
)
def test_keys_that_are_none(keys: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigurationError, match=why) as caught:
        Encryption(keys)
    assert "hunter2" not in str(caught.value)
    assert OLD not in repr(codec(k1=OLD))


def test_a_codec_is_looked_at() -> None:
    with pytest.raises(ConfigurationError, match="seal"):
        Flowrun("postgresql://localhost/x", codec="key")  # type: ignore[arg-type]


def test_a_token_never_says_more_than_its_key(app: Flowrun) -> None:
    sealing = Sealing(codec(k1=OLD))
    token = sealing.json(f'"{MARK}"', "job", "args")
    assert json.loads(token).startswith("flowrun:sealed:1:k1:")
    assert sealing.json(f'"{MARK}"', "job", "args") != token
    assert sealing.opened_json(token, "job", "args") == f'"{MARK}"'
    for owner, field in (("other", "args"), ("job", "result")):
        with pytest.raises(NotReadable, match="moved"):
            sealing.opened_json(token, owner, field)
