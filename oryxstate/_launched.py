"""The start of a program in one of several processes; `oryxstate.launch` runs this file.

An exception ends the process at once. Without this, Python would call JAX's shutdown at the exit,
which waits minutes for the other processes, and these wait for this one.
"""

from __future__ import annotations

import os
import runpy
import sys
from types import TracebackType

# Nothing of this package is imported: the program decides what is set before JAX is imported.


def main() -> None:
    """Run the program that the arguments name as Python itself would."""
    sys.argv.pop(0)
    if is_module := sys.argv[0] == "-m":
        sys.argv.pop(0)
    if not sys.flags.safe_path:  # in place of the folder of this file
        file = os.path.realpath(sys.argv[0])
        sys.path[0] = os.getcwd() if is_module else os.path.dirname(file)
    try:
        if is_module:
            runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as end:
        if end.code:
            _end_now(end.code)
        raise
    except BaseException as error:
        error = error.with_traceback(_of_program(error.__traceback__))
        sys.excepthook(type(error), error, error.__traceback__)
        _end_now(1)


def _of_program(trace: TracebackType | None) -> TracebackType | None:
    """Return a traceback without the frames of this file and of runpy."""
    own = (__file__, "<frozen runpy>", runpy.__file__)
    inner = trace
    while inner is not None and inner.tb_frame.f_code.co_filename in own:
        inner = inner.tb_next
    return inner or trace  # the program itself was not found


def _end_now(code: object) -> None:
    """End the process with the status that `sys.exit(code)` gives, without handlers of the exit."""
    if not isinstance(code, int):
        print(code, file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code & 0xFF if isinstance(code, int) else 1)


if __name__ == "__main__":
    main()
