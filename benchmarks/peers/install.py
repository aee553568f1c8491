"""Making environments: a virtual one for Python, a folder of node_modules for Node. Never inside the repository."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from benchmarks.peers.catalogue import Peer


class CannotInstallError(Exception):
    """A program that is needed is not there; says which."""


def install(peer: Peer) -> None:
    """Make the environment of ``peer`` anew. Raises CannotInstallError, CalledProcessError."""
    if peer.home.exists():
        shutil.rmtree(peer.home)
    peer.home.mkdir(parents=True)
    if peer.language == "node":
        npm = _found("npm", "Node 20 or newer")
        (peer.home / "package.json").write_text("{}")
        subprocess.run(
            [npm, "install", "--silent", "--no-fund", "--no-audit", *peer.packages], cwd=peer.home, check=True
        )
    else:
        subprocess.run([_python(peer.python), "-m", "venv", str(peer.home)], check=True)
        pip = [str(peer.home / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, *peer.packages], check=True)
    (peer.home / "installed").touch()


def _python(least: tuple[int, int]) -> str:
    if sys.version_info[:2] >= least:
        return sys.executable
    for minor in range(least[1], least[1] + 4):
        name = f"python{least[0]}.{minor}"
        candidates = [shutil.which(name), *Path.home().glob(f".pyenv/versions/{least[0]}.{minor}.*/bin/python")]
        for candidate in candidates:
            if candidate and subprocess.run([str(candidate), "--version"], capture_output=True).returncode == 0:
                return str(candidate)
    raise CannotInstallError(f"it needs Python {least[0]}.{least[1]} or newer")


def _found(program: str, what: str) -> str:
    if found := shutil.which(program):
        return found
    raise CannotInstallError(f"it needs {what}: there is no {program}")
