"""The commands, and what becomes of their errors."""

from __future__ import annotations

from collections.abc import Sequence

from cyclopts import App, CycloptsError, Parameter
from cyclopts.config import Env

import flowrun
from flowrun.cli import terminal
from flowrun.cli.check import check
from flowrun.cli.demo import demo
from flowrun.cli.doctor import doctor
from flowrun.cli.exits import USAGE, code_of
from flowrun.cli.failing import failed
from flowrun.cli.job_types import types
from flowrun.cli.looking import explain, flows, gates, jobs, show, workers
from flowrun.cli.many import delete, prune
from flowrun.cli.migrate import migrate
from flowrun.cli.operating import cancel, dispatch, queues, resolve, retry, signal, skip
from flowrun.cli.roles import roles
from flowrun.cli.schedules import schedules
from flowrun.cli.serve import serve
from flowrun.errors import FlowrunError

app = App(
    name="flowrun",
    help="Jobs and flows on PostgreSQL. Each option has a twin in the environment: FLOWRUN_DSN for --dsn.",
    version=flowrun.__version__,
    config=Env("FLOWRUN_", command=False),
    default_parameter=Parameter(negative=""),
    result_action="return_value",
    print_error=False,
    exit_on_error=False,
    help_on_error=False,
)
LOOKING = (flows, show, jobs, gates, explain, workers, queues, types, schedules)
OPERATING = (cancel, retry, failed, resolve, skip, signal, dispatch, delete, prune)
for command in (demo, serve, check, migrate, roles, doctor, *LOOKING, *OPERATING):
    app.command(command)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; ``arguments`` default to those of the process."""
    try:
        return app(None if arguments is None else list(arguments)) or 0
    except CycloptsError as error:
        terminal.complain(f"{error} (flowrun --help)")
        return USAGE
    except FlowrunError as error:
        terminal.complain(str(error))
        return code_of(error)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        terminal.mute()
        return 0
