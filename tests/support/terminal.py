"""Runs a command in a pseudo terminal of the size asked for, and writes what it draws to a file as it comes.

terminal.py COLUMNS ROWS FILE COMMAND...: presses Ctrl-C when its standard input ends, and ends as the command does.
"""

import fcntl
import os
import pty
import select
import struct
import sys
import termios
import time

columns, rows, file, command = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4:]
child, terminal = pty.fork()
if child == 0:
    # The size is set before the command looks.
    time.sleep(0.3)
    os.execv(command[0], command)
fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

inputs = [terminal, sys.stdin]
with open(file, "wb", buffering=0) as drawn:
    while terminal in inputs:
        ready, _, _ = select.select(inputs, [], [])
        if sys.stdin in ready:
            os.write(terminal, b"\x03")
            inputs.remove(sys.stdin)
        if terminal in ready:
            try:
                chunk = os.read(terminal, 65536)
            except OSError:
                chunk = b""
            drawn.write(chunk)
            if not chunk:
                inputs.remove(terminal)
_, status = os.waitpid(child, 0)
sys.exit(os.waitstatus_to_exitcode(status))
