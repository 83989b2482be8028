"""The sweep that sends letters, which beat starts, and which a page's nudge starts sooner."""

from celery import shared_task
from django.utils import timezone

from offers import row_queue
from offers_project.accounts import letters


@shared_task(name="accounts.send_letters")
def send_letters() -> int:
    return letters.send_due(now=timezone.now(), until=row_queue.end_of_sweep())
