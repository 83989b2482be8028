"""The composition root: wires the apps together; no app imports it."""

from offers_project.celery import app as celery_app

__all__ = ["celery_app"]
