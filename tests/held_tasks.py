"""Our Celery application, with a task that lasts as long as a test likes.

For workers that tests start: `celery --app=tests.held_tasks worker`.
"""

import os
import time

from django.core.cache import caches

from offers_project.celery import app

if "KILLED_WORKERS_SECONDS" in os.environ:
    # What a killed worker had is somebody else's after so long, and not after half an hour.
    app.conf.broker_transport_options = {
        **app.conf.broker_transport_options,
        "visibility_timeout": float(os.environ["KILLED_WORKERS_SECONDS"]),
        "unacked_restore_interval": 0.5,
        "unacked_restore_throttle": 1,
    }


@app.task(name="tests.hold")
def hold(name: str, began: str, may_end: str) -> None:
    """Add the name to the list ``began``, and keep the thread until there is a key ``may_end``."""
    redis = caches["default"].client.get_client()
    redis.rpush(began, name)
    while not redis.exists(may_end):
        time.sleep(0.02)
