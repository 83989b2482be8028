from celery import shared_task
from django.utils import timezone

from offers import catalog


@shared_task(name="offers.expire_offers")
def expire_offers() -> int:
    return catalog.expire(now=timezone.now())
