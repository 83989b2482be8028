import django.db.models.deletion
import django.utils.timezone
import uuid
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('offers', '0001_initial'),
        ('purchases', '0002_purchases_switch'),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name='Dispute',
            fields=[
                ('id', models.CharField(max_length=255, primary_key=True, serialize=False)),
                ('payment_intent_id', models.CharField(max_length=255)),
                ('amount', models.DecimalField(decimal_places=3, max_digits=15)),
                ('currency', models.CharField(max_length=3)),
                ('reason', models.CharField(max_length=100)),
                ('status', models.CharField(max_length=50)),
                ('evidence_due_by', models.DateTimeField(blank=True, help_text='Until then evidence can be handed in at Stripe.', null=True)),
                ('funds_withdrawn_at', models.DateTimeField(blank=True, null=True)),
                ('funds_reinstated_at', models.DateTimeField(blank=True, null=True)),
                ('created_at', models.DateTimeField()),
                ('updated_at', models.DateTimeField(help_text="Of the newest event, by Stripe's clock.")),
            ],
            options={
                'ordering': ['evidence_due_by', 'created_at'],
            },
        ),
        migrations.CreateModel(
            name='Email',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('occasion', models.CharField(choices=[('late_payment', 'paid too late, money on its way back')], max_length=30)),
                ('state', models.CharField(choices=[('waiting', 'Waiting'), ('sent', 'Sent'), ('given_up', 'Given Up')], default='waiting', max_length=10)),
                ('attempts', models.PositiveIntegerField(default=0)),
                ('due_at', models.DateTimeField()),
                ('error', models.TextField(blank=True)),
                ('created_at', models.DateTimeField()),
                ('sent_at', models.DateTimeField(blank=True, null=True)),
            ],
        ),
        migrations.CreateModel(
            name='Refund',
            fields=[
                ('id', models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                ('payment_intent_id', models.CharField(help_text='The payment it is of: maybe not the one the purchase is paid by.', max_length=255)),
                ('amount', models.DecimalField(decimal_places=3, max_digits=15)),
                ('state', models.CharField(choices=[('requested', 'Requested'), ('pending', 'Pending'), ('succeeded', 'Succeeded'), ('failed', 'Failed')], default='requested', max_length=10)),
                ('cause', models.CharField(choices=[('staff', 'asked for by staff'), ('late_payment', 'paid too late, nothing left'), ('second_payment', 'paid a second time'), ('stripe', 'made at Stripe')], max_length=20)),
                ('reason', models.CharField(blank=True, max_length=500)),
                ('idempotency_key', models.CharField(max_length=255, null=True)),
                ('request_fingerprint', models.CharField(blank=True, max_length=64)),
                ('stripe_refund_id', models.CharField(max_length=255, null=True)),
                ('stripe_attempt', models.PositiveSmallIntegerField(default=1, help_text='Part of the idempotency key sent to Stripe.')),
                ('attempts', models.PositiveIntegerField(default=0)),
                ('due_at', models.DateTimeField(help_text='Sent or looked at again, but not before.')),
                ('error', models.TextField(blank=True)),
                ('created_at', models.DateTimeField()),
                ('settled_at', models.DateTimeField(blank=True, null=True)),
            ],
            options={
                'ordering': ['created_at'],
            },
        ),
        migrations.RemoveIndex(
            model_name='stripeevent',
            name='stripe_event_unprocessed',
        ),
        migrations.RemoveField(
            model_name='stripeevent',
            name='retry_after',
        ),
        migrations.AddField(
            model_name='purchase',
            name='restock_on_refund',
            field=models.BooleanField(default=True, editable=False, help_text='Whether a full refund puts the units back on sale, or writes them off.'),
        ),
        migrations.AddField(
            model_name='stripeevent',
            name='due_at',
            field=models.DateTimeField(default=django.utils.timezone.now, help_text='Claimed, or put off after a failure, until then.'),
            preserve_default=False,
        ),
        migrations.AlterField(
            model_name='stripeevent',
            name='state',
            field=models.CharField(choices=[('stored', 'Stored'), ('processed', 'Processed'), ('ignored', 'Ignored'), ('failed', 'Failed'), ('dead', 'Dead')], default='stored', max_length=10),
        ),
        migrations.AddIndex(
            model_name='purchase',
            index=models.Index(condition=models.Q(('payment_intent_id', ''), _negated=True), fields=['payment_intent_id'], name='purchase_by_payment'),
        ),
        migrations.AddIndex(
            model_name='stripeevent',
            index=models.Index(condition=models.Q(('state__in', ['stored', 'failed'])), fields=['due_at'], name='stripe_event_unprocessed'),
        ),
        migrations.AddField(
            model_name='dispute',
            name='purchase',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='disputes', to='purchases.purchase'),
        ),
        migrations.AddField(
            model_name='email',
            name='purchase',
            field=models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='emails', to='purchases.purchase'),
        ),
        migrations.AddField(
            model_name='refund',
            name='purchase',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='refunds', to='purchases.purchase'),
        ),
        migrations.AddField(
            model_name='refund',
            name='requested_by',
            field=models.ForeignKey(null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='+', to=settings.AUTH_USER_MODEL),
        ),
        migrations.AddIndex(
            model_name='email',
            index=models.Index(condition=models.Q(('state', 'waiting')), fields=['due_at'], name='email_unsent'),
        ),
        migrations.AddConstraint(
            model_name='email',
            constraint=models.UniqueConstraint(fields=('purchase', 'occasion'), name='email_once_an_occasion'),
        ),
        migrations.AddIndex(
            model_name='refund',
            index=models.Index(condition=models.Q(('state__in', ['requested', 'pending'])), fields=['due_at'], name='refund_unsettled'),
        ),
        migrations.AddIndex(
            model_name='refund',
            index=models.Index(fields=['payment_intent_id'], name='refund_by_payment'),
        ),
        migrations.AddConstraint(
            model_name='refund',
            constraint=models.CheckConstraint(condition=models.Q(('amount__gt', 0)), name='refund_amount_positive'),
        ),
        migrations.AddConstraint(
            model_name='refund',
            constraint=models.UniqueConstraint(fields=('stripe_refund_id',), name='refund_by_stripe_id'),
        ),
        migrations.AddConstraint(
            model_name='refund',
            constraint=models.UniqueConstraint(fields=('purchase', 'idempotency_key'), name='refund_once_per_idempotency_key'),
        ),
    ]
