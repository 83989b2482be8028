from celery import shared_task
from django.utils import timezone

from offers import catalog, heartbeat, impressions


@shared_task(name="offers.expire_offers")
def expire_offers() -> int:
    return catalog.expire(now=timezone.now())


@shared_task(name="offers.flush_impressions")
def flush_impressions() -> int:
    """Keep what was counted of showings; every minute, and so a sign that the worker lives."""
    heartbeat.beat(now=timezone.now())
    return impressions.flush()
