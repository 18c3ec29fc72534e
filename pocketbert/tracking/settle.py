"""Close what killed processes left open in the store, now and without waiting for the next stage.

    python -m pocketbert.tracking.settle

Unsent events are sent, the runs of killed stages end as KILLED. Where the store does not answer all is kept for later.
"""

import logging
import sys
import time
from typing import Any

from pocketbert.errors import PocketBertError
from pocketbert.params import PublishParams, load_params
from pocketbert.redaction import hide_secrets
from pocketbert.tracking.delivery import deliver_left_behind
from pocketbert.tracking.location import spool_folder, tracking_uri
from pocketbert.tracking.store import Store, import_mlflow, patience

_REQUEST_TIMEOUT_S = 10
# A living `publish` leaves the state RUNNING in a moment.
_PUBLISHING_S = 60

_log = logging.getLogger("pocketbert.tracking")


def settle(params: PublishParams) -> tuple[int, int]:
    """(spools settled, parent runs closed); raises what mlflow and its drivers raise."""
    with patience(_REQUEST_TIMEOUT_S, 0):
        store = Store(params)
        return deliver_left_behind(spool_folder(), store), _close_parents(store)


def _close_parents(store: Store) -> int:
    """Parent runs whose `publish` was killed in the moment between their creation and their first status."""
    before = time.time_ns() // 1_000_000 - _PUBLISHING_S * 1000
    found: list[Any] = store.client.search_runs(
        [store.experiment_id],
        f"attributes.status = 'RUNNING' and tags.`pocketbert.state` != '' and attributes.start_time < {before}",
    )
    for run in found:
        store.end(run.info.run_id, "KILLED", run.info.start_time)
    return len(found)


def main() -> int:
    """Settle the store of params.yaml; 1 where it does not answer."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s", stream=sys.stderr)
    _log.setLevel(logging.INFO)
    import_mlflow()
    try:
        params = load_params().publish
    except PocketBertError as error:
        _log.error("%s", error)
        return error.exit_code
    try:
        spools, parents = settle(params)
    # Whatever mlflow or a driver raises; what was not sent stays in the spool.
    except Exception as error:  # noqa: BLE001
        reason = hide_secrets(next(iter(str(error).splitlines()), type(error).__name__))
        _log.warning("MLflow at %s does not take what is left: %s", hide_secrets(tracking_uri(params)), reason)
        return 1
    if spools or parents:
        _log.info("%d records of killed stages are sent, %d unfinished parent runs closed", spools, parents)
    return 0


if __name__ == "__main__":
    sys.exit(main())
