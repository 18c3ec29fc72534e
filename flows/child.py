"""A Python program as a child that dies with the process that started it.

    python -m flows.child MODULE ARGUMENTS...

Does what `python -m MODULE ARGUMENTS...` does. Where POCKETBERT_WORKER is set (flows and `make up` set it), the
kernel ends it when its parent is killed, so that no `dvc` or server is left behind as an orphan.
"""

import runpy
import sys

from pocketbert.process import die_with_parent

if __name__ == "__main__":
    die_with_parent()
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
