from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("purchases", "0004_owed_refunds")]

    operations = [
        migrations.RemoveField(model_name="purchase", name="refund_attempt"),
        migrations.RemoveField(model_name="purchase", name="refund_id"),
    ]
