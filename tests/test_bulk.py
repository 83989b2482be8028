"""Jobs over many rows: each item once, whoever works at it, dies, or is away."""

import time
import uuid
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import OperationalError, connection
from django.utils import timezone

from offers import row_queue
from offers.models import Membership
from purchases import holds, refund_requests, refunds
from purchases.bulk import jobs, kinds, running
from purchases.bulk.errors import AskedForAlready, SeveralOrganizations, TooManyChosen
from purchases.bulk.kinds import Kind, Task
from purchases.bulk.models import BulkItem, BulkJob
from purchases.errors import HoldIsEnding, IdempotencyKeyInUse, NotRefundable
from purchases.models import Purchase, Refund
from purchases.states import Status
from tests.conftest import Sandbox, at_once, buy, counters
from tests.factories import (
    MembershipFactory,
    OfferFactory,
    OrganizationFactory,
    PurchaseFactory,
    UserFactory,
)

State = BulkItem.State
REFUND = {"amount": None, "restock": True, "reason": "called off"}


def member(purchase: Purchase, role: str = "manager") -> User:
    user: User = MembershipFactory(
        organization=purchase.event.organization, role=role, user__username=f"{role} {uuid.uuid4()}"
    ).user
    return user


def paid(number: int, **more: Any) -> list[Purchase]:
    offer = OfferFactory(price=Decimal(20), inventory_total=None)
    return [PurchaseFactory(offer=offer, status=Status.PAID, **more) for _ in range(number)]


def started(
    actor: User, *chosen: Purchase, kind: str = "refund", parameters: Any = None
) -> BulkJob:
    keys = [purchase.pk for purchase in chosen]
    rows = kinds.of(kind).objects().filter(pk__in=keys)
    job = jobs.draft(kinds.of(kind), rows, actor=actor, now=timezone.now())
    jobs.start(job, parameters=REFUND if parameters is None else parameters, now=timezone.now())
    return job


def run() -> int:
    return running.run_due(now=timezone.now())


def states(job: BulkJob) -> dict[str, int]:
    return {state: number for state, number in jobs.counted(job).items() if number}


def reasons(job: BulkJob) -> list[str]:
    return list(job.items.order_by("pk").values_list("reason", flat=True))


def put_forward(job: BulkJob) -> None:
    """As if the pauses and leases were over."""
    job.items.filter(state=State.WAITING).update(due_at=timezone.now() - timedelta(seconds=1))
    BulkJob.objects.filter(pk=job.pk).update(due_at=timezone.now() - timedelta(seconds=1))


# -- Choosing and starting ------------------------------------------------------------------------


@pytest.mark.django_db
def test_nothing_happens_before_the_question_is_answered() -> None:
    (purchase,) = paid(1)
    rows = Purchase.objects.filter(pk=purchase.pk)
    job = jobs.draft(kinds.of("refund"), rows, actor=member(purchase), now=timezone.now())
    assert run() == 0
    assert states(job) == {"waiting": 1}


@pytest.mark.django_db
def test_refunds_are_asked_for_once_with_who_and_why() -> None:
    purchases = paid(3)
    actor = member(purchases[0])
    job = started(actor, *purchases)
    assert run() == 3
    job.refresh_from_db()
    assert (job.done, job.state) == (3, "finished")
    for refund in Refund.objects.all():
        assert (refund.requested_by, refund.reason, refund.amount) == (
            actor, "called off", Decimal(20),
        )  # fmt: skip
    assert run() == 0
    assert Refund.objects.count() == 3


@pytest.mark.django_db
def test_starting_twice_starts_once_and_keeps_the_first_answers() -> None:
    (purchase,) = paid(1)
    job = started(member(purchase), purchase)
    jobs.start(job, parameters=REFUND | {"reason": "second click"}, now=timezone.now())
    run()
    assert Refund.objects.get().reason == "called off"


@pytest.mark.django_db
def test_refusals_are_final_and_tell_why() -> None:
    (good,) = paid(1)
    held = PurchaseFactory(offer=good.offer)
    job = started(member(good), good, held)
    run()
    assert states(job) == {"done": 1, "refused": 1}
    assert job.items.get(object_id=held.pk).reason == NotRefundable.message
    put_forward(job)
    assert run() == 0


@pytest.mark.django_db
def test_part_of_each_is_sent_back_and_the_units_stay_sold() -> None:
    purchases = paid(2)
    job = started(member(purchases[0]), *purchases, parameters=REFUND | {"amount": "5.00"})
    run()
    assert states(job) == {"done": 2}
    assert list(Refund.objects.values_list("amount", flat=True)) == [Decimal(5)] * 2
    assert set(Purchase.objects.values_list("status", flat=True)) == {Status.PAID}


@pytest.mark.django_db
def test_too_many_are_refused_before_anything_is_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    purchases = paid(3)
    monkeypatch.setattr(jobs, "LARGEST", 2)
    with pytest.raises(TooManyChosen):
        started(member(purchases[0]), *purchases)
    assert not BulkJob.objects.exists()


@pytest.mark.django_db
def test_rows_of_several_organizations_are_a_superusers_only() -> None:
    (mine,), (other,) = paid(1), paid(1)
    actor = member(mine)
    MembershipFactory(user=actor, organization=other.event.organization)
    with pytest.raises(SeveralOrganizations):
        started(actor, mine, other)
    job = started(UserFactory(is_superuser=True), mine, other)
    assert job.organization is None
    run()
    assert states(job) == {"done": 2}


@pytest.mark.django_db
def test_drafts_are_forgotten_after_a_day_and_jobs_never() -> None:
    purchases = paid(2)
    actor = member(purchases[0])
    job = started(actor, purchases[0])
    rows = Purchase.objects.filter(pk=purchases[1].pk)
    jobs.draft(kinds.of("refund"), rows, actor=actor, now=timezone.now())
    jobs.forget_drafts(now=timezone.now() + timedelta(hours=23))
    assert BulkJob.objects.count() == 2
    jobs.forget_drafts(now=timezone.now() + timedelta(hours=25))
    assert list(BulkJob.objects.all()) == [job]
    assert BulkItem.objects.count() == 1


@pytest.mark.django_db
def test_items_are_forgotten_after_ninety_days_and_their_figures_are_not() -> None:
    (good, waiting) = paid(2)
    held = PurchaseFactory(offer=good.offer)
    job = started(member(good), good, held)
    run()
    unfinished = started(member(waiting), waiting)
    now = timezone.now()
    BulkItem.objects.filter(job=unfinished).update(due_at=now + timedelta(days=900))
    running.sweep(now=now + timedelta(days=89))
    assert BulkItem.objects.count() == 3
    running.sweep(now=now + timedelta(days=91))
    assert [item.job_id for item in BulkItem.objects.all()] == [unfinished.pk]
    job.refresh_from_db()
    assert jobs.progress(job).text == "2 of 2, 1 refused"


def test_name_of_an_action_that_is_taken_is_refused() -> None:
    with pytest.raises(ValueError, match="already"):
        kinds.register(kinds.of("refund"))


@pytest.mark.django_db
def test_what_is_asked_for_of_an_action_that_is_no_more_is_not_done() -> None:
    (purchase,) = paid(1)
    job = started(member(purchase), purchase)
    BulkJob.objects.filter(pk=job.pk).update(kind="long gone")
    run()
    assert (states(job), reasons(job)) == (
        {"refused": 1}, ["This action is no more: nothing was done."],
    )  # fmt: skip


# -- The same choice twice ------------------------------------------------------------------------

PART = REFUND | {"amount": "5"}


@pytest.mark.django_db
@pytest.mark.parametrize("is_done", [False, True])
def test_same_part_of_the_same_purchase_is_refunded_once(is_done: bool) -> None:
    """Back, and Go again: two drafts of one choice, and the second one told another reason."""
    both, only_second = paid(2)
    first = started(member(both), both, parameters=PART)
    if is_done:
        run()
    with pytest.raises(AskedForAlready, match="to 1 of these") as caught:
        started(member(both), both, only_second, parameters=PART | {"reason": "again"})
    assert caught.value.job_id == first.pk
    run()
    assert Refund.objects.count() == 1


@pytest.mark.django_db
def test_another_amount_or_the_same_one_later_is_another_refund() -> None:
    (purchase,) = paid(1)
    actor = member(purchase)
    started(actor, purchase, parameters=PART)
    run()
    started(actor, purchase, parameters=PART | {"amount": "4"})
    run()
    assert Refund.objects.count() == 2
    earlier = timezone.now() - refund_requests.REPEATED_WITHIN - timedelta(seconds=1)
    BulkItem.objects.update(settled_at=earlier)
    Refund.objects.update(created_at=earlier)
    started(actor, purchase, parameters=PART)
    run()
    assert sorted(Refund.objects.values_list("amount", flat=True)) == [4, 5, 5]


@pytest.mark.django_db
def test_part_that_a_person_sent_back_just_now_is_not_sent_again() -> None:
    (purchase,) = paid(1)
    actor = member(purchase)
    refund_requests.request(
        purchase.pk,
        actor=actor,
        source="admin",
        now=timezone.now(),
        **PART | {"amount": Decimal(5)},
    )
    job = started(actor, purchase, parameters=PART)
    run()
    assert (states(job), reasons(job)) == ({"refused": 1}, ["This was asked for before."])


@pytest.mark.django_db(transaction=True)
def test_of_two_starts_at_once_one_is_refused() -> None:
    (purchase,) = paid(1)
    actor, now = member(purchase), timezone.now()
    kind = kinds.of("refund")
    drafts = [jobs.draft(kind, Purchase.objects.all(), actor=actor, now=now) for _ in range(4)]

    def start(job: BulkJob) -> bool:
        try:
            jobs.start(job, parameters=PART, now=now)
        except AskedForAlready:
            return False
        return True

    assert sorted(at_once([lambda job=job: start(job) for job in drafts])) == [False] * 3 + [True]


# -- Rights, when an item's turn comes ------------------------------------------------------------


@pytest.mark.django_db
@pytest.mark.parametrize("change", ["demoted", "removed", "closed", "deleted", "moved"])
def test_who_lost_the_right_meanwhile_has_nothing_more_done(change: str) -> None:
    (purchase,) = paid(1)
    actor = member(purchase)
    job = started(actor, purchase)
    match change:
        case "demoted":
            actor.memberships.update(role=Membership.Role.SUPPORT)
        case "removed":
            actor.memberships.all().delete()
        case "closed":
            User.objects.filter(pk=actor.pk).update(is_active=False)
        case "deleted":
            actor.delete()
        case "moved":
            purchase.event.organization = OrganizationFactory()
            purchase.event.save()
    run()
    assert states(job) == {"refused": 1}
    assert "may not do this" in reasons(job)[0] or "is closed" in reasons(job)[0]
    assert not Refund.objects.exists()


@pytest.mark.django_db
def test_demotion_in_the_middle_stops_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    purchases = paid(5)
    actor = member(purchases[0])
    job = started(actor, *purchases)
    monkeypatch.setattr(running, "BATCH", 2)
    do = kinds.of("refund").do

    def demoting(task: Task) -> str:
        if Refund.objects.count() == 2:
            actor.memberships.update(role=Membership.Role.SUPPORT)
        return do(task)

    replace(monkeypatch, "refund", do=demoting)
    run()
    # The domain's own check refuses the third, ours the others.
    assert states(job) == {"done": 2, "refused": 3}


@pytest.mark.django_db
def test_support_releases_holds_and_refunds_nothing() -> None:
    hold = PurchaseFactory(offer__price=0)
    support = member(hold, "support")
    job = started(support, hold)
    run()
    assert reasons(job) == [f"{support} may not do this (any more)."]


def replace(monkeypatch: pytest.MonkeyPatch, name: str, **changes: Any) -> None:
    kind = kinds.of(name)
    changed = Kind(**{field: getattr(kind, field) for field in kind.__dataclass_fields__} | changes)
    monkeypatch.setitem(kinds._kinds, name, changed)


# -- What goes wrong ------------------------------------------------------------------------------


@pytest.mark.django_db
def test_unforeseen_error_is_logged_and_told_in_a_sentence(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    purchases = paid(2)
    job = started(member(purchases[0]), *purchases)
    do = kinds.of("refund").do
    bad = BulkItem.objects.order_by("pk")[0].object_id

    def failing(task: Task) -> str:
        if task.object_id == bad:
            raise ZeroDivisionError("secret of a row")
        return do(task)

    replace(monkeypatch, "refund", do=failing)
    run()
    assert states(job) == {"done": 1, "failed": 1}
    assert running.UNFORESEEN in reasons(job)
    assert "ZeroDivisionError" in caplog.text


@pytest.mark.django_db
def test_item_whose_worker_never_comes_back_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """As one that kills its worker each time; the others are done all the same."""
    purchases = paid(2)
    job = started(member(purchases[0]), *purchases)
    poison = job.items.order_by("pk")[0]
    for _ in range(running.MOST_ATTEMPTS):
        due = BulkItem.objects.filter(pk=poison.pk)
        row_queue.claim(due, clock=timezone.now(), lease=running.LEASE, limit=1)
    run()
    assert states(job) == {"done": 1, "waiting": 1}  # the lease isn't over
    put_forward(job)
    run()
    assert states(job) == {"done": 1, "failed": 1}
    assert "Given up after 6 tries" in job.items.get(pk=poison.pk).reason


@pytest.mark.django_db
def test_what_is_in_somebodys_hands_is_tried_again_and_given_up_in_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (purchase,) = paid(1)
    job = started(member(purchase), purchase)

    def ending(task: Task) -> str:
        raise HoldIsEnding

    replace(monkeypatch, "refund", do=ending)
    for attempt in range(1, running.MOST_ATTEMPTS):
        assert run() == 1
        assert run() == 0  # put off
        assert (states(job), job.items.get().attempts) == ({"waiting": 1}, attempt)
        put_forward(job)
    run()
    assert states(job) == {"failed": 1}
    assert reasons(job) == [f"Given up after 6 tries. {HoldIsEnding.message}"]


@pytest.mark.django_db
def test_guard_against_a_second_click_is_not_waited_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such a refusal says when to ask again, too: that is for people."""
    (purchase,) = paid(1)
    job = started(member(purchase), purchase)

    def guarded(task: Task) -> str:
        raise IdempotencyKeyInUse

    replace(monkeypatch, "refund", do=guarded)
    run()
    assert (states(job), reasons(job)) == ({"refused": 1}, [IdempotencyKeyInUse.message])


@pytest.mark.django_db
def test_stopping_leaves_what_is_not_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    purchases = paid(6)
    actor = member(purchases[0])
    job = started(actor, *purchases)
    do = kinds.of("refund").do

    def stopping(task: Task) -> str:
        if Refund.objects.count() == 3:
            assert jobs.stop(job.pk, actor=actor, now=timezone.now())
        return do(task)

    replace(monkeypatch, "refund", do=stopping)
    run()
    # The one at hand is finished, and counted, though it was pressed in its middle.
    assert states(job) == {"done": 4, "left": 2}
    job.refresh_from_db()
    assert (job.state, job.done, job.stopped_by) == ("stopped", 4, actor)
    assert jobs.progress(job).text == "4 of 6, 2 not begun"
    assert run() == 0
    assert not jobs.stop(job.pk, actor=actor, now=timezone.now())


@pytest.mark.django_db
def test_small_job_is_not_kept_waiting_by_a_large_one(monkeypatch: pytest.MonkeyPatch) -> None:
    large, (small,) = paid(60), paid(1)
    job = started(member(large[0]), *large)
    short = started(member(small), small)
    seen: list[dict[str, int]] = []
    do = kinds.of("refund").do

    def watching(task: Task) -> str:
        if task.job_id == short.pk:
            seen.append(states(job))
        return do(task)

    replace(monkeypatch, "refund", do=watching)
    run()
    assert seen == [{"done": running.BATCH, "waiting": 60 - running.BATCH}]
    assert states(job) == {"done": 60}


@pytest.mark.django_db
def test_sweep_ends_in_time_and_the_next_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    purchases = paid(4)
    job = started(member(purchases[0]), *purchases)
    clock = iter(range(0, 1000, 4))
    with monkeypatch.context() as patched:
        patched.setattr(time, "monotonic", lambda: float(next(clock)))
        assert running.sweep(now=timezone.now()) == 1
    assert states(job) == {"done": 1, "waiting": 3}
    # What was claimed and not begun is anybody's at once, and no attempt of it is used up.
    assert running.sweep(now=timezone.now()) == 3
    assert states(job) == {"done": 4}
    assert set(job.items.values_list("attempts", flat=True)) == {1}


# -- Many workers, and dead ones ------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_two_thousand_items_are_done_once_each_by_four_workers() -> None:
    owner = MembershipFactory()
    offer = OfferFactory(price=0, inventory_total=None, event__organization=owner.organization)
    buyer = UserFactory()
    now = timezone.now()
    Purchase.objects.bulk_create(
        PurchaseFactory.build_batch(
            2000, offer=offer, user=buyer, event=offer.event, status=Status.RESERVED, created_at=now
        )
    )
    calls: list[uuid.UUID] = []
    kind = Kind(
        name="counted", title="Count", button="Count", explanation="", model="purchases.Purchase",
        organization="event__organization", about=lambda chosen: [],
        do=lambda task: calls.append(task.object_id) or "",  # type: ignore[func-returns-value]
    )  # fmt: skip
    kinds.register(kind)
    try:
        job = jobs.draft(kind, Purchase.objects.all(), actor=owner.user, now=now)
        jobs.start(job, parameters={}, now=now)
        tried = at_once([run] * 4)
    finally:
        del kinds._kinds["counted"]
    assert sum(tried) == 2000
    assert len(calls) == len(set(calls)) == 2000
    job.refresh_from_db()
    assert (job.done, job.state) == (2000, "finished")
    assert jobs.progress(job).text == "2,000 of 2,000"


@pytest.mark.django_db(transaction=True)
def test_slow_worker_whose_lease_ran_out_does_nothing_that_another_did() -> None:
    """Both have claimed the same item: the second one's claim counts, whoever comes first."""
    (purchase,) = paid(1)
    job = started(member(purchase), purchase, parameters=REFUND | {"amount": "5.00"})
    claims = []
    for _ in range(2):
        put_forward(job)
        due = BulkItem.objects.filter(job=job, state=State.WAITING)
        claims += row_queue.claim(due, clock=timezone.now(), lease=running.LEASE, limit=1)
    now = timezone.now()
    at_once([lambda claim=claim: running._attempt(claim, now=now) for claim in claims])
    assert Refund.objects.count() == 1
    assert states(job) == {"done": 1}


@pytest.mark.django_db(transaction=True)
def test_same_claim_in_two_hands_is_done_once() -> None:
    """The item's lock is what keeps them apart: without it both would refund a part."""
    (purchase,) = paid(1)
    job = started(member(purchase), purchase, parameters=REFUND | {"amount": "5.00", "reason": "x"})
    due = BulkItem.objects.filter(job=job)
    (claim,) = row_queue.claim(due, clock=timezone.now(), lease=running.LEASE, limit=1)
    calls: list[uuid.UUID] = []

    def slow(task: Task) -> str:
        calls.append(task.object_id)
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_sleep(0.2)")
        return ""

    kind = kinds.of("refund")
    patched = Kind(**{f: getattr(kind, f) for f in kind.__dataclass_fields__} | {"do": slow})
    kinds._kinds["refund"] = patched
    try:
        at_once([lambda: running._attempt(claim, now=timezone.now())] * 3)
    finally:
        kinds._kinds["refund"] = kind
    assert len(calls) == 1
    assert states(job) == {"done": 1}


# -- With Stripe ----------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_hold_that_was_paid_meanwhile_is_a_sale(sandbox: Sandbox, client_of: Any) -> None:
    offer = OfferFactory(inventory_total=5)
    bought = [buy(client_of(UserFactory()), offer).json() for _ in range(3)]
    purchases = list(Purchase.objects.all())
    sandbox.act(bought[1]["checkout_session_id"], "pay")
    job = started(member(purchases[0], "support"), *purchases, kind="release_holds", parameters={})
    run()
    assert states(job) == {"done": 2, "refused": 1}
    item = job.items.get(object_id=bought[1]["id"])
    assert item.reason == "Stripe says that it was paid meanwhile: it is paid now."
    assert counters(offer) == (0, 1)


@pytest.mark.django_db(transaction=True)
def test_while_stripe_is_away_the_job_rests_and_asks_once_each_time(
    sandbox: Sandbox, client_of: Any
) -> None:
    offer = OfferFactory(inventory_total=9)
    for _ in range(4):
        buy(client_of(UserFactory()), offer)
    purchases = list(Purchase.objects.all())
    job = started(member(purchases[0]), *purchases, kind="release_holds", parameters={})
    sandbox.faults(error_rate=1.0, error_status=500)
    assert run() == 1
    job.refresh_from_db()
    assert (job.state, states(job)) == ("paused", {"waiting": 4})
    assert set(job.items.values_list("attempts", flat=True)) == {0}
    assert run() == 0  # it rests
    sandbox.faults()
    put_forward(job)
    Purchase.objects.update(ending_until=None)
    assert run() == 4
    job.refresh_from_db()
    assert (job.state, job.setbacks, states(job)) == ("finished", 0, {"done": 4})
    assert counters(offer) == (0, 0)


@pytest.mark.django_db(transaction=True)
def test_job_gives_up_when_stripe_stays_away(sandbox: Sandbox, client_of: Any) -> None:
    offer = OfferFactory(inventory_total=9)
    for _ in range(2):
        buy(client_of(UserFactory()), offer)
    purchases = list(Purchase.objects.all())
    job = started(member(purchases[0]), *purchases, kind="release_holds", parameters={})
    BulkJob.objects.filter(pk=job.pk).update(setbacks=running.MOST_SETBACKS)
    sandbox.faults(error_rate=1.0, error_status=500)
    run()
    job.refresh_from_db()
    assert (job.state, states(job)) == ("finished", {"failed": 2})
    assert reasons(job)[0].startswith("Stripe could not be reached. Given up")


@pytest.mark.django_db(transaction=True)
def test_release_that_a_killed_worker_had_done_counts_as_done(
    sandbox: Sandbox, client_of: Any
) -> None:
    """Killed between the release and its mark: the only kind where the two are two steps."""
    offer = OfferFactory()
    buy(client_of(UserFactory()), offer)
    purchase = Purchase.objects.get()
    job = started(member(purchase), purchase, kind="release_holds", parameters={})
    due = BulkItem.objects.filter(job=job)
    (claim,) = row_queue.claim(due, clock=timezone.now(), lease=running.LEASE, limit=1)
    mine = BulkItem.objects.select_related("job__asked_by").get(pk=claim.pk)
    running._mine(mine).update(is_begun=True)
    running._do(kinds.of("release_holds"), mine, now=timezone.now())
    put_forward(job)
    run()
    assert states(job) == {"done": 1}
    assert Purchase.objects.get().transitions.filter(to_status=Status.RELEASED).count() == 1


@pytest.mark.django_db(transaction=True)
def test_release_whose_answer_was_lost_counts_as_done(
    sandbox: Sandbox, client_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection breaks after the commit: the item is given back with no attempt used up."""
    buy(client_of(UserFactory()), OfferFactory())
    purchase = Purchase.objects.get()
    job = started(member(purchase), purchase, kind="release_holds", parameters={})
    release = holds.release

    def unheard(*args: Any, **how: Any) -> Purchase:
        release(*args, **how)
        raise OperationalError("server closed the connection unexpectedly")

    with monkeypatch.context() as patched:
        patched.setattr(holds, "release", unheard)
        run()
    assert (states(job), job.items.get().attempts) == ({"waiting": 1}, 0)
    put_forward(job)
    run()
    assert states(job) == {"done": 1}


@pytest.mark.django_db(transaction=True)
def test_refund_of_a_job_arrives_at_stripe_once(sandbox: Sandbox, client_of: Any) -> None:
    offer = OfferFactory()
    bought = buy(client_of(UserFactory()), offer).json()
    sandbox.act(bought["checkout_session_id"], "pay")
    sandbox.deliver()
    purchase = Purchase.objects.get()
    job = started(member(purchase), purchase)
    at_once([run] * 3)
    refunds.send_due(now=timezone.now())
    sandbox.deliver()
    assert states(job) == {"done": 1}
    assert len(sandbox.requests("POST", "/v1/refunds")) == 1
    assert Purchase.objects.get().status == Status.REFUNDED
