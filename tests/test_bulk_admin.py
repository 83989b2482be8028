"""The pages of bulk actions: chosen in a list, asked about, watched, stopped; and by whom."""

import csv
import io
from decimal import Decimal
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from offers.models import Membership
from purchases.bulk import jobs, kinds, running
from purchases.bulk.models import BulkItem, BulkJob
from purchases.models import Purchase, Refund
from purchases.states import Status
from tests.factories import MembershipFactory, OfferFactory, PurchaseFactory, UserFactory
from tests.test_permissions import browser_of
from tests.two_organizations import CALLERS, World

pytestmark = pytest.mark.django_db

LIST = reverse("admin:purchases_purchase_changelist")
JOBS = reverse("admin:purchases_bulkjob_changelist")


def address(name: str, job: BulkJob) -> str:
    return reverse(f"admin:purchases_bulkjob_{name}", args=[job.pk])


def staff(purchase: Purchase, role: str = "manager") -> User:
    user: User = MembershipFactory(organization=purchase.event.organization, role=role).user
    return user


def paid(number: int, **more: Any) -> list[Purchase]:
    offer = OfferFactory(price=Decimal(20), inventory_total=None, **more)
    return [PurchaseFactory(offer=offer, status=Status.PAID) for _ in range(number)]


def choose(client: Client, action: str, *chosen: Purchase, url: str = LIST, **more: str) -> Any:
    """Choose rows of a list and an action; answers with the page that one sees then."""
    keys = [str(purchase.pk) for purchase in chosen]
    sent = {"action": action, "_selected_action": keys, "index": "0", **more}
    answer = client.post(url, sent, follow=True)
    assert answer.status_code == 200
    return answer


def confirm(client: Client, page: Any, **answers: Any) -> Any:
    """Answer the question of the page."""
    return client.post(page.redirect_chain[-1][0], answers, follow=True)


def text(page: Any) -> str:
    content: str = page.content.decode()
    return content


def run() -> None:
    running.run_due(now=timezone.now())


# -- From the list to the result ------------------------------------------------------------------


def test_refund_asks_with_number_and_sum_and_then_runs() -> None:
    purchases = paid(3)
    held = PurchaseFactory(offer=purchases[0].offer)
    manager = staff(purchases[0])
    client = browser_of(manager)
    asked = choose(client, "refund", *purchases, held)
    assert "Refund: 4 purchases" in text(asked)
    assert "3 are paid in USD: 60.00 USD are left to be sent back." in text(asked)
    assert "1 will be refused, since they are something else: 1 reserved." in text(asked)
    run()
    assert not Refund.objects.exists()

    shown = confirm(client, asked, restock="on", reason="Called off")
    job = BulkJob.objects.get()
    assert shown.redirect_chain[-1][0] == address("change", job)
    assert "0 of 4" in text(shown)
    assert "Reason: Called off" in text(shown)
    run()
    done = text(client.get(address("change", job)))
    assert "4 of 4, 1 refused" in done
    assert f'href="{reverse("admin:purchases_purchase_change", args=[held.pk])}"' in done
    assert "Only a purchase that is paid can be refunded." in done
    assert Refund.objects.filter(requested_by=manager, reason="Called off").count() == 3


def test_everything_on_all_pages_is_chosen_and_the_filter_counts() -> None:
    purchases = paid(130)
    PurchaseFactory(offer=purchases[0].offer)
    client = browser_of(staff(purchases[0]))
    url = f"{LIST}?status__exact=paid"
    asked = choose(client, "refund", purchases[0], url=url, select_across="1")
    assert "Refund: 130 purchases" in text(asked)
    confirm(client, asked, restock="on")
    run()
    assert BulkJob.objects.get().done == 130


def test_what_was_chosen_stays_chosen_while_the_question_is_open() -> None:
    purchases = paid(2)
    client = browser_of(staff(purchases[0]))
    asked = choose(client, "refund", purchases[0], select_across="1")
    paid_later = PurchaseFactory(offer=purchases[0].offer, status=Status.PAID)
    confirm(client, asked, restock="on")
    run()
    assert Refund.objects.count() == 2
    assert not paid_later.refunds.exists()


def test_double_click_starts_one_job() -> None:
    purchases = paid(1)
    client = browser_of(staff(purchases[0]))
    asked = choose(client, "refund", *purchases)
    for _ in range(2):
        confirm(client, asked, amount="5.00")
    run()
    assert Refund.objects.get().amount == 5


@pytest.mark.parametrize(
    ("amount", "said"), [("0", "more than 0"), ("1.005", "more digits"), ("x", "Enter a number")]
)
def test_amount_that_cannot_be_meant_is_refused_beside_its_field(amount: str, said: str) -> None:
    purchases = paid(1)
    client = browser_of(staff(purchases[0]))
    shown = confirm(client, choose(client, "refund", *purchases), amount=amount)
    assert said in text(shown)
    assert BulkJob.objects.get().started_at is None


def test_one_amount_for_several_currencies_is_refused() -> None:
    (dollars,) = paid(1)
    (euros,) = paid(1, currency="EUR", event=dollars.event)
    client = browser_of(staff(dollars))
    asked = choose(client, "refund", dollars, euros)
    assert "1 are paid in EUR: 20.00 EUR" in text(asked)
    assert "paid in EUR, USD" in text(confirm(client, asked, amount="5"))


def test_rows_that_are_only_looked_at_are_left_out_and_counted() -> None:
    (mine,), (seen,) = paid(1), paid(1)
    user = staff(mine)
    MembershipFactory(user=user, organization=seen.event.organization, role="support")
    client = browser_of(user)
    asked = choose(client, "refund", mine, seen)
    assert "1 left as they are: this takes a manager" in text(asked)
    assert [item.object_id for item in BulkItem.objects.all()] == [mine.pk]


def test_rows_of_two_organizations_are_chosen_one_at_a_time() -> None:
    (mine,), (other,) = paid(1), paid(1)
    user = staff(mine)
    MembershipFactory(user=user, organization=other.event.organization)
    assert "belong to several organizations" in text(
        choose(browser_of(user), "refund", mine, other)
    )
    assert not BulkJob.objects.exists()


def test_too_many_are_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "LARGEST", 1)
    purchases = paid(2)
    page = choose(browser_of(staff(purchases[0])), "refund", *purchases)
    assert "At most 1 at once" in text(page)


def test_same_question_answered_twice_leads_to_the_first_job() -> None:
    purchases = paid(2)
    client = browser_of(staff(purchases[0]))
    first, second = (choose(client, "refund", *purchases) for _ in range(2))
    confirm(client, first, amount="5.00", reason="Late")
    job = BulkJob.objects.get(started_at__isnull=False)
    page = text(confirm(client, second, amount="5", reason="Late"))
    assert "The same is being done to 2 of these" in page
    assert f'<a href="{address("change", job)}"' in page
    run()
    assert Refund.objects.count() == 2


def test_pages_of_a_job_whose_action_is_no_more_open() -> None:
    (purchase,) = paid(1)
    client = browser_of(staff(purchase))
    asked = choose(client, "refund", purchase)
    draft = BulkJob.objects.get()
    BulkJob.objects.update(kind="long gone")
    assert confirm(client, asked).status_code == 404
    BulkJob.objects.update(started_at=timezone.now(), parameters={"amount": "5"})
    run()
    page = text(client.get(address("change", draft)))
    assert "long gone" in page
    assert "This action is no more" in page
    assert str(purchase.pk) in text(client.get(address("results", draft)))
    assert client.get(address("progress", draft)).json()["is_over"]
    assert client.post(address("stop", draft)).status_code == 302
    assert "long gone" in text(client.get(JOBS))


def test_page_of_a_job_whose_rows_are_forgotten_tells_its_figures() -> None:
    purchases = paid(2)
    client = browser_of(staff(purchases[0]))
    confirm(client, choose(client, "refund", *purchases), restock="on")
    run()
    job = BulkJob.objects.get()
    job.items.all().delete()
    page = text(client.get(address("change", job)))
    assert "2 of 2" in page
    assert "What became of each is kept for 90 days." in page


def test_page_of_a_running_job_is_asked_for_its_progress() -> None:
    purchases = paid(2)
    client = browser_of(staff(purchases[0]))
    confirm(client, choose(client, "refund", *purchases), restock="on")
    job = BulkJob.objects.get()
    page = text(client.get(address("change", job)))
    assert f'data-url="{address("progress", job)}"' in page
    assert '<noscript><meta http-equiv="refresh"' in page
    assert "<progress" in page
    assert client.get(address("progress", job)).json() == {
        "total": 2, "settled": 0, "text": "0 of 2", "state": "running", "is_over": False,
    }  # fmt: skip
    run()
    answer = client.get(address("progress", job))
    assert answer.json()["is_over"] is True
    assert "no-store" in answer["Cache-Control"]
    page = text(client.get(address("change", job)))
    assert "data-url" not in page
    assert "refresh" not in page


def test_stop_leaves_the_rest_and_says_who() -> None:
    purchases = paid(2)
    manager = staff(purchases[0])
    client = browser_of(manager)
    confirm(client, choose(client, "refund", *purchases), restock="on")
    job = BulkJob.objects.get()
    assert client.get(address("stop", job)).status_code == 405
    page = text(client.post(address("stop", job), follow=True))
    assert "0 of 2, 2 not begun" in page
    assert f"Stopped by {manager}" in page
    assert "It was over already." in text(client.post(address("stop", job), follow=True))
    run()
    assert not Refund.objects.exists()


def test_results_are_a_file_for_spreadsheets() -> None:
    (purchase,) = paid(1, title="=SUM(A1)")
    held = PurchaseFactory(offer=purchase.offer)
    client = browser_of(staff(purchase))
    confirm(client, choose(client, "refund", purchase, held), restock="on")
    run()
    answer = client.get(address("results", BulkJob.objects.get()))
    assert "no-store" in answer["Cache-Control"]
    rows = list(csv.DictReader(io.StringIO(answer.content.decode("utf-8-sig"))))
    assert {row["id"]: row["result"] for row in rows} == {
        str(purchase.pk): "Done", str(held.pk): "Refused",
    }  # fmt: skip
    assert {row["reason"] for row in rows} == {"", "Only a purchase that is paid can be refunded."}


def test_many_that_were_not_done_are_listed_page_by_page(
    django_assert_max_num_queries: Any,
) -> None:
    purchases = paid(1)
    others = [PurchaseFactory(offer=purchases[0].offer) for _ in range(60)]
    client = browser_of(staff(purchases[0]))
    confirm(client, choose(client, "refund", *others), restock="on")
    run()
    job = BulkJob.objects.get()
    with django_assert_max_num_queries(20):
        page = text(client.get(address("change", job)))
    assert "Not done: 60" in page
    assert "Page 1 of 2" in page
    assert "Page 2 of 2" in text(client.get(address("change", job), {"page": "2"}))


# -- Who may --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("role", "actions"),
    [
        ("owner", {"release_holds", "refund"}),
        ("manager", {"release_holds", "refund"}),
        ("support", {"release_holds"}),
    ],
)
def test_roles_are_offered_what_they_may(role: str, actions: set[str]) -> None:
    (purchase,) = paid(1)
    page = text(browser_of(staff(purchase, role)).get(LIST))
    offered = {name for name in ("release_holds", "refund") if f'value="{name}"' in page}
    assert offered == actions


def test_support_cannot_refund_by_sending_what_a_manager_would() -> None:
    (purchase,) = paid(1)
    client = browser_of(staff(purchase, "support"))
    choose(client, "refund", purchase)
    assert not BulkJob.objects.exists()


def test_another_organizations_rows_are_not_chosen() -> None:
    (purchase,) = paid(1)
    (own,) = paid(1)
    rival = staff(own)
    choose(browser_of(rival), "refund", own, purchase)
    assert [item.object_id for item in BulkItem.objects.all()] == [own.pk]
    BulkJob.objects.all().delete()
    choose(browser_of(rival), "release_holds", purchase)
    assert not BulkJob.objects.exists()


def test_manager_who_was_demoted_before_the_answer_starts_nothing() -> None:
    (purchase,) = paid(1)
    manager = staff(purchase)
    client = browser_of(manager)
    asked = choose(client, "refund", purchase)
    manager.memberships.update(role=Membership.Role.SUPPORT)
    assert confirm(client, asked, restock="on").status_code == 403
    assert BulkJob.objects.get().started_at is None


def test_question_is_answered_by_who_chose_the_rows() -> None:
    (purchase,) = paid(1)
    asked = choose(browser_of(staff(purchase)), "refund", purchase)
    for other in (staff(purchase, "owner"), UserFactory(is_superuser=True)):
        assert confirm(browser_of(other), asked, restock="on").status_code == 404
    assert BulkJob.objects.get().started_at is None


@pytest.mark.parametrize("who", CALLERS)
def test_addresses_of_a_job_open_for_its_organization(who: str) -> None:
    world = World()
    job = world.home.objects[BulkJob]
    client = browser_of(world.people[who])
    inside = who in ("owner", "manager", "support", "superuser")
    for name in ("change", "progress", "results"):
        answer = client.get(address(name, job))
        assert (answer.status_code == 200) == inside, name
        assert inside or "Home" not in answer.content.decode()
    # A refund's, so that support only watches.
    stopped = client.post(address("stop", job))
    job.refresh_from_db()
    may_stop = inside and who != "support"
    assert (job.stopped_at is not None) == may_stop, stopped.status_code
    assert client.get(address("confirm", job)).status_code in (302, 404)


@pytest.mark.parametrize("who", ["owner", "rival", "superuser"])
def test_job_over_several_organizations_is_the_superusers(who: str) -> None:
    world = World()
    job = jobs.draft(
        kinds.of("refund"), Purchase.objects.all(), actor=world["superuser"], now=timezone.now()
    )
    # Another part than the World's own job, which is over some of the same.
    jobs.start(job, parameters={"amount": "1"}, now=timezone.now())
    client = browser_of(world[who])
    for name in ("change", "progress", "results"):
        assert (client.get(address(name, job)).status_code == 200) == (who == "superuser")
    listed = str(job.pk) in client.get(JOBS).content.decode()
    assert listed == (who == "superuser")
