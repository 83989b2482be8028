"""Celery tasks: the sweep, which beat starts, and the nudge that follows a payment."""

import uuid

from celery import shared_task
from django.utils import timezone

from fulfillment import queue
from fulfillment.bookings import following, reminders
from offers import row_queue


@shared_task(name="fulfillment.deliver")
def deliver() -> int:
    """Take in what no message reached, and deliver what is due."""
    return queue.sweep(now=timezone.now())


@shared_task(name="fulfillment.deliver_purchase")
def deliver_purchase(purchase_id: str) -> None:
    queue.deliver_one(uuid.UUID(purchase_id), now=timezone.now())


@shared_task(name="fulfillment.follow_slots")
def follow_slots() -> int:
    """Take the bookings of a slot that was moved or called off along with it."""
    return following.follow(now=timezone.now(), until=row_queue.end_of_sweep())


@shared_task(name="fulfillment.remind")
def remind() -> int:
    """Remind of what is booked for the next day, as it is by now."""
    now, until = timezone.now(), row_queue.end_of_sweep()
    following.follow(now=now, until=until)
    return reminders.remind(now=now, until=until)
