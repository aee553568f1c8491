"""A process that holds a handle: ``python holder.py DIRECTORY [ephemeral|fork|exec]``.

It prints the address and the directory, then waits for its standard input to be closed.

``fork``  a child made by os.fork goes on holding when this process has closed and ended; prints the child's pid
``exec``  leaves a running program behind that inherited every inheritable file; prints its pid
"""

import os
import subprocess
import sys
import time

from flowrun.embedded import EmbeddedPostgres


def main() -> None:
    directory, *mode = sys.argv[1:]
    postgres = EmbeddedPostgres(None if directory == "-" else directory, ephemeral="ephemeral" in mode)
    child = 0
    print(postgres.start(), flush=True)
    print(postgres.directory, flush=True)
    if "fork" in mode:
        child = os.fork()
        if not child:
            time.sleep(60)
            os._exit(0)
        print(child, flush=True)
    if "exec" in mode:
        sleeper = [sys.executable, "-c", "import time; time.sleep(60)"]
        program = subprocess.Popen(sleeper, close_fds=False, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        print(program.pid, flush=True)
    sys.stdin.read()
    postgres.close()
    os._exit(0)


if __name__ == "__main__":
    main()
