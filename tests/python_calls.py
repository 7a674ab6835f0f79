"""Counts of the Python functions of the package that a piece of code calls."""

import gc
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import oryxstate as ox

PACKAGE = str(Path(ox.__file__).parent)
GENERATED = "<string>"  # the flatten function of a class, and its `__init__`


def python_calls(run: Callable[[], object]) -> Counter:
    """How often each function of ours is called, once what is done only once has been done.

    Comprehensions are not counted, which are functions before Python 3.12.
    """
    run()
    found: Counter = Counter()

    def count(frame, event, _):
        code = frame.f_code
        ours = code.co_filename == GENERATED or code.co_filename.startswith(PACKAGE)
        if event == "call" and ours and not code.co_name.startswith("<"):
            found[f"{Path(code.co_filename).stem}.{code.co_qualname}"] += 1

    gc.collect()
    gc.disable()  # what it finalizes is none of `run`'s
    before = sys.getprofile()
    sys.setprofile(count)
    try:
        run()
    finally:
        sys.setprofile(before)
        gc.enable()
    return found
