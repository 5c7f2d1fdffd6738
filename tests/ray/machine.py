"""A machine for `ray up` that is a folder: what its launcher and its set-up call, acted out in it.

    python tests/ray/machine.py FOLDER COMMAND ARGUMENT...

Ray's launcher, its quoting of commands and the shells that they run in are real, and so are Ray,
the building of the package and its installation from what was copied. Acted out: `ssh` runs the
command on this machine, in the folder's home; `rsync` copies into it; `sudo` and `mountpoint` do
nothing; of `pip install` it is only checked that what it is to install is there. `ray stop` ends
the Ray of this folder and no other one.
"""

from __future__ import annotations

import contextlib
import fnmatch
import itertools
import os
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import psutil

NAMES = ("ssh", "rsync", "sudo", "mountpoint", "python3.12")
TAKES_A_VALUE = ("-i", "-o", "-L")
ENDS_S = 60.0


def build(folder: Path) -> Path:
    """Make the folder; returns the folder of the commands that `ray up` is to find first."""
    commands, home = folder / "bin", folder / "home"
    commands.mkdir(parents=True)
    home.mkdir()
    for name in NAMES:
        _command(commands, folder, name)
    # Login shells set PATH anew, and read this when they are interactive.
    (home / ".bashrc").write_text(f"export PATH={commands}:$PATH RAY_TMPDIR={folder}/tmp\n")
    return commands


def _command(place: Path, folder: Path, name: str) -> None:
    path = place / name
    path.write_text(f'#!/bin/sh\nexec {sys.executable} {__file__} {folder} {name} "$@"\n')
    path.chmod(0o755)


def ssh(folder: Path, arguments: list[str]) -> int:
    """Run what follows `user@host`, as the shell of that user would."""
    rest = iter(arguments)
    for argument in rest:
        if argument in TAKES_A_VALUE:
            next(rest)
        elif "@" in argument:
            break
    clean = {"HOME": str(folder / "home"), "PATH": "/usr/bin:/bin", "USER": "ubuntu"}
    return subprocess.run(["bash", "-c", " ".join(rest)], env=clean, cwd=folder / "home").returncode


def rsync(folder: Path, arguments: list[str]) -> int:
    """Copy a file, or what is in a folder, to `user@host:target`."""
    *options, source, target = arguments
    excluded = [value for key, value in itertools.pairwise(options) if key == "--exclude"]
    place = Path(target.partition(":")[2].replace("~", str(folder / "home"), 1))
    if not source.endswith("/"):
        shutil.copyfile(source, place)
        return 0

    def ignored(_: str, names: list[str]) -> set[str]:
        return {name for name in names for pattern in excluded if fnmatch.fnmatch(name, pattern)}

    shutil.copytree(source, place, ignore=ignored, dirs_exist_ok=True)
    return 0


def python(folder: Path, arguments: list[str]) -> int:
    """Make an environment, install into it, or be its Python."""
    if arguments[:2] == ["-m", "venv"]:
        commands = Path(arguments[2]) / "bin"
        commands.mkdir(parents=True, exist_ok=True)
        for name in ("python", "ray"):
            _command(commands, folder, name)
        return 0
    if arguments[:3] == ["-m", "pip", "install"]:
        return install(folder, arguments[3:])
    installed = folder / "site"
    return subprocess.run(
        [sys.executable, *arguments], env={**os.environ, "PYTHONPATH": str(installed)}
    ).returncode


def install(folder: Path, arguments: list[str]) -> int:
    """Check a list of requirements; build and install a project; leave what a registry has."""
    *_, what = arguments
    if "--requirement" in arguments:
        pinned = [line for line in Path(what).read_text().splitlines() if "==" in line]
        return 0 if pinned else 1
    if not Path(what).is_dir():
        return 0
    built = folder / "built"
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(built)],
        cwd=what,
        check=True,
    )
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return 0


def ray(folder: Path, arguments: list[str]) -> int:
    """Start a head that stays, or end it; whatever else Ray's own command does."""
    real = str(Path(sys.executable).parent / "ray")
    note = folder / "head.pid"
    if arguments[0] == "stop":
        end(note)
        return 0
    environment = {**os.environ, "PYTHONPATH": str(folder / "site")}
    if arguments[0] != "start":
        return subprocess.run([real, *arguments], env=environment).returncode
    with (folder / "head.log").open("w") as said:
        head = subprocess.Popen(
            [real, *arguments, "--block"],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    note.write_text(str(head.pid))
    while head.poll() is None:
        if "Ray runtime started" in (folder / "head.log").read_text():
            return 0
        time.sleep(0.2)
    return 1


def end(note: Path) -> None:
    """End the head whose number a file holds, and all that came of it; none is fine."""
    with contextlib.suppress(FileNotFoundError, psutil.NoSuchProcess):
        head = psutil.Process(int(note.read_text()))
        family = [head, *head.children(recursive=True)]
        head.terminate()
        psutil.wait_procs([head], ENDS_S)
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(family, ENDS_S)
    note.unlink(missing_ok=True)


def main() -> int:
    """Act a command out, and note that it was called."""
    folder, name, *arguments = Path(sys.argv[1]), *sys.argv[2:]
    with (folder / "called").open("a") as called:
        called.write(" ".join([name, *arguments]).replace("\n", " ") + "\n")
    act = {"ssh": ssh, "rsync": rsync, "ray": ray, "python": python, "python3.12": python}
    return act[name](folder, arguments) if name in act else int(name == "mountpoint")


if __name__ == "__main__":
    sys.exit(main())
