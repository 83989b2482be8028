"""Room in each page of the offers for the next versions of their rows.

Each purchase of a rush writes a new version of one offer's row. Where its page is full, the version
goes to another page and into every index of the table; where there is room, into none, and the old
one makes room again as soon as nobody sees it (a heap-only tuple:
https://www.postgresql.org/docs/current/storage-hot.html). New pages only are left so; an old one's
rows come to such a page with their first new version. Takes no lock that anybody else waits for.
"""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("offers", "0008_newest_on_sale")]

    operations = [
        migrations.RunSQL(
            "ALTER TABLE offers_offer SET (fillfactor = 70)",
            "ALTER TABLE offers_offer RESET (fillfactor)",
        ),
    ]
