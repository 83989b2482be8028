from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):
    # Offers are sold while the index is built.
    atomic = False

    dependencies = [("offers", "0007_description")]

    operations = [
        AddIndexConcurrently(
            model_name="offer",
            index=models.Index(
                fields=["event", "-created_at", "-id"],
                condition=models.Q(is_active=True, is_archived=False),
                name="offer_newest_on_sale",
            ),
        ),
    ]
