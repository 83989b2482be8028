"""Make the kill switch, so that `waffle_switch purchases off` finds it."""

from django.db import migrations


def add_switch(apps, schema_editor):
    apps.get_model("waffle", "Switch").objects.get_or_create(
        name="purchases",
        defaults={"active": True, "note": "Off: new purchases answer 503 purchases_disabled."},
    )


class Migration(migrations.Migration):
    dependencies = [
        ("purchases", "0001_initial"),
        ("waffle", "0004_update_everyone_nullbooleanfield"),
    ]

    operations = [migrations.RunPython(add_switch, migrations.RunPython.noop)]
