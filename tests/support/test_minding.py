"""A server of the tests does not outlive the process that started it, however that went."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import sys
from pathlib import Path
from tests.support.servers.base import Server

server = Server(["sleep", "300"], lambda: None, log=Path(sys.argv[1]))
print(server.process.pid, flush=True)
{then}
"""


def started(place: Path, then: str) -> tuple["subprocess.Popen[str]", int]:
    command = [sys.executable, "-c", PROGRAM.format(then=then), str(place / "log")]
    process = subprocess.Popen(command, cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    return process, int(process.stdout.readline())


def is_over(pid: int) -> bool:
    for _ in range(600):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        if ") Z " in Path(f"/proc/{pid}/stat").read_text():  # nobody waits for it where no init does
            return True
        time.sleep(0.05)
    return False


def test_a_server_dies_with_a_killed_test_process(tmp_path: Path) -> None:
    process, pid = started(tmp_path, "sys.stdin.read()")
    with process:
        process.send_signal(signal.SIGKILL)
    assert is_over(pid)


def test_what_ended_before_is_not_killed_again(tmp_path: Path) -> None:
    then = """
server.kill()
server._minder._process.wait(30)
print(server._minder._process.returncode, flush=True)
"""
    process, _ = started(tmp_path, then)
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "0\n"
        assert process.wait(30) == 0
