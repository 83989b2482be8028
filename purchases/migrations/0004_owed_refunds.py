"""What was owed, or sent back, before refunds had rows of their own gets its row."""

from django.db import migrations
from django.utils import timezone


def give_each_its_row(apps, schema_editor):
    Purchase = apps.get_model("purchases", "Purchase")
    Refund = apps.get_model("purchases", "Refund")
    now = timezone.now()
    for purchase in Purchase.objects.filter(status__in=["refund_due", "refunded"], total_price__gt=0):
        back = purchase.status == "refunded"
        if back:
            state = "succeeded"
        elif purchase.problem:
            state = "failed"  # with a person, who may have paid it back in another way by now
        else:
            state = "pending" if purchase.refund_id else "requested"
        Refund.objects.create(
            purchase=purchase,
            payment_intent_id=purchase.payment_intent_id,
            amount=purchase.total_price,
            cause="late_payment",
            state=state,
            error=purchase.problem,
            stripe_refund_id=purchase.refund_id or None,
            due_at=now,
            created_at=purchase.paid_at or purchase.created_at,
            settled_at=purchase.refunded_at or (now if state == "failed" else None),
        )


class Migration(migrations.Migration):
    dependencies = [("purchases", "0003_refunds_disputes_emails")]

    operations = [migrations.RunPython(give_each_its_row, migrations.RunPython.noop)]
