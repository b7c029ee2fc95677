"""What a command shows on a terminal."""

import os
import pty
import subprocess
import sys


def on_a_terminal(*arguments, **environment):
    """Run `servegrpc` with stderr a terminal; returns what it wrote to stdout, and what the terminal shows."""
    terminal, side = pty.openpty()
    command = [sys.executable, "-c", "from servegrpc.cli import main; main()", *arguments]
    environment = os.environ | {"TERM": "xterm"} | environment
    stdout = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=side, env=environment).stdout
    os.write(side, b"\n<end>\n")
    seen = b""
    while b"<end>" not in seen:
        seen += os.read(terminal, 65536)
    os.close(side)
    os.close(terminal)
    return stdout, seen
