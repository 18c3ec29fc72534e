"""The MLflow record: one run a stage execution, live while it runs, and one parent run a pipeline state.

The only package that imports mlflow, and it does so in a process of its own or in `publish`: a stage never
waits for it.

    stage_run.py  what a stage sees               spool.py     events on the local disk first
    sender.py     starts the process that         delivery.py  a spool into the store, exactly once
    forward.py    delivers them                   store.py     a connected MLflow store
    publish.py, state.py, registry.py  the parent run
"""

from pocketbert.tracking.publish import publish_pipeline
from pocketbert.tracking.stage_run import StageRun, open_stage_run

__all__ = ["StageRun", "open_stage_run", "publish_pipeline"]
