"""Packing, shipping, addresses and countries, as staff do it in admin."""

import csv
import io
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from fulfillment import delivery
from fulfillment.models import Fulfillment
from fulfillment.shipping import addresses, orders, packing, stages
from fulfillment.shipping.models import ShippingOrder
from fulfillment.shipping.stages import STAGES, Stage
from fulfillment.states import Status
from offers.models import Membership, Offer
from purchases.models import Email, Purchase
from purchases.states import Status as PurchaseStatus
from tests.conftest import deliver_now
from tests.factories import EventFactory, MembershipFactory, OfferFactory, UserFactory
from tests.test_admin_pages import opened, save
from tests.test_shipping import (
    ADDRESS,
    again,
    collected,
    occasions,
    packed,
    paid,
    placed,
    refund,
    ship,
)

pytestmark = pytest.mark.django_db


def url(name: str, *args: Any) -> str:
    return reverse(f"admin:fulfillment_shippingorder_{name}", args=args)


@pytest.fixture
def offer() -> Offer:
    offer: Offer = OfferFactory(title="Hoodie", shipping_countries=["DE"], inventory_total=None)
    return offer


@pytest.fixture
def staff(offer: Offer) -> Client:
    return member(offer, Membership.Role.MANAGER)


def member(offer: Offer, role: str) -> Client:
    user = UserFactory(is_staff=True)
    MembershipFactory(organization=offer.event.organization, user=user, role=role)
    browser = Client()
    browser.force_login(user)
    return browser


def act(browser: Client, action: str, *chosen: ShippingOrder, follow: bool = True) -> Any:
    form = {"action": action, "_selected_action": [order.pk for order in chosen]}
    return browser.post(url("changelist"), form, follow=follow)


def rows(*given: tuple[ShippingOrder, str, str], **shared: str) -> dict[str, Any]:
    form: dict[str, Any] = {"order": [order.pk for order, _, _ in given], **shared}
    for order, carrier, number in given:
        form |= {f"{order.pk}-carrier": carrier, f"{order.pk}-tracking_number": number}
    return form


def upload(browser: Client, text: str | bytes) -> Any:
    content = text if isinstance(text, bytes) else text.encode()
    file = SimpleUploadedFile("numbers.csv", content)
    return browser.post(url("tracking"), {"file": file}, follow=True)


# -- The packing list -----------------------------------------------------------------------------


def test_packing_list_has_a_row_for_each_order_that_is_to_be_packed(
    staff: Client, offer: Offer
) -> None:
    parcel = placed(paid(offer=offer, quantity=2))
    bag = placed(collected(offer=offer))
    ship(placed(paid(offer=offer, shipping_address=ADDRESS | {"name": "Sent Already"})))
    gone = paid(offer=offer, shipping_address=ADDRESS | {"name": "Refunded"})
    placed(gone)
    refund(gone)
    leaving = placed(paid(offer=offer, shipping_address=ADDRESS | {"name": "Refunding"}))
    Purchase.objects.filter(fulfillment=leaving.fulfillment_id).update(
        status=PurchaseStatus.REFUNDING
    )
    placed(paid(shipping_address=ADDRESS | {"name": "Somebody else's"}))
    everything = list(ShippingOrder.objects.all())

    for page in (
        staff.get(url("packing_list")),
        act(staff, "print_list", *everything),
        staff.get(url("packing_list"), {"stage": "to_pack"}),
    ):
        text = page.content.decode()
        assert "Unter den Linden 1<br>10117 Berlin<br>GERMANY" in text
        assert "<strong>2 ×</strong> Hoodie" in text
        assert str(parcel.fulfillment.purchase_id)[:8] in text
        for absent in ("Sent Already", "Refunded", "Refunding", "Somebody else", "<style"):
            assert absent not in text
        assert ("collected at the event" in text) == ("stage" not in page.request["QUERY_STRING"])
        assert str(bag.pickup_code) not in text


def test_csv_is_what_the_filters_leave_and_can_be_read_by_excel(
    staff: Client, offer: Offer
) -> None:
    elsewhere = OfferFactory(event=EventFactory(organization=offer.event.organization))
    purchase = paid(offer=offer)
    placed(purchase)
    placed(paid(offer=elsewhere))
    answer = staff.get(
        url("packing_csv"), {"fulfillment__purchase__event__id__exact": str(offer.event_id)}
    )
    assert answer.headers["Content-Type"] == "text/csv; charset=utf-8"
    assert "attachment" in answer.headers["Content-Disposition"]
    assert answer.content.startswith(b"\xef\xbb\xbf")
    assert [row["purchase"] for row in packed(answer.content.decode())] == [str(purchase.pk)]
    chosen = act(staff, "download_list", *ShippingOrder.objects.all())
    assert len(packed(chosen.content.decode())) == 2


@pytest.mark.parametrize("evil", ["=1+1", "+1", "-1", "@SUM(A1)", "=cmd|' /C calc'!A0"])
def test_no_cell_of_the_csv_is_a_formula(evil: str) -> None:
    offer = OfferFactory(title=evil, event__title=evil)
    placed(paid(offer=offer, shipping_address=ADDRESS | {"name": evil, "line2": evil}))
    [row] = packed()
    assert [row[field] for field in ("name", "line2", "offer", "event")] == [f"'{evil}"] * 4
    ShippingOrder.objects.update(name=f"Anna;{evil}")
    assert packed()[0]["name"] == f"Anna;'{evil}"


def test_packing_list_takes_as_many_queries_for_many_orders(
    staff: Client, offer: Offer, django_assert_max_num_queries: Any
) -> None:
    for _ in range(20):
        placed(paid(offer=offer))
    for name in ("packing_list", "packing_csv", "changelist"):
        with django_assert_max_num_queries(18):
            assert staff.get(url(name)).status_code == 200


@pytest.mark.parametrize(
    ("country", "town"),
    [
        ("US", ["Springfield OR 49007"]),
        ("GB", ["Springfield", "OR", "49007"]),
        ("DE", ["49007 Springfield", "OR"]),
    ],
)
def test_label_has_the_town_as_the_country_writes_it(country: str, town: list[str]) -> None:
    order = ShippingOrder(
        name="Ada", line1="1 Road", city="Springfield", state="OR", postal_code="49007",
        country=country,
    )  # fmt: skip
    assert addresses.label(order)[2:-1] == town


# -- Shipping -------------------------------------------------------------------------------------


def test_right_rows_are_shipped_and_wrong_ones_shown_again(staff: Client, offer: Offer) -> None:
    one, two, three, four = (placed(paid(offer=offer)) for _ in range(4))
    page = act(staff, "ship", one, two, three, four, placed(collected(offer=offer)))
    assert "1 left out: they are collected" in page.content.decode()
    assert page.request["PATH_INFO"] == url("ship")
    assert page.content.decode().count('name="order"') == 4
    Purchase.objects.filter(fulfillment=four.fulfillment_id).update(status=PurchaseStatus.REFUNDING)

    form = rows((one, "", "001"), (two, "UPS", "002"), (three, "", ""), (four, "", "004"))
    answer = staff.post(url("ship"), form | {"carrier": "DHL"})

    text = answer.content.decode()
    assert "2 marked as shipped" in text
    assert "Enter the number" in text
    assert "isn&#x27;t paid (any more)" in text
    assert [row.order.pk for row in answer.context["rows"]] == [three.pk, four.pk]
    assert (again(one).carrier, again(one).tracking_number) == ("DHL", "001")
    assert (again(two).carrier, again(two).tracking_number) == ("UPS", "002")
    assert again(three).shipped_at is again(four).shipped_at is None
    assert Email.objects.filter(occasion="shipped").count() == 2

    answer = staff.post(url("ship"), rows((three, "DHL", ""), untracked="on"))
    assert answer.url == url("changelist")
    assert again(three).shipped_at is not None


def test_wrong_carrier_or_link_is_said_beside_the_field(staff: Client, offer: Offer) -> None:
    order = placed(paid(offer=offer))
    form = rows((order, "", "1")) | {f"{order.pk}-tracking_url": "http://x.example"}
    text = staff.post(url("ship"), form).content.decode()
    assert "Say who carries it" in text
    form |= {"carrier": "DHL"}
    assert "starts with https://" in staff.post(url("ship"), form).content.decode()
    assert again(order).shipped_at is None


@pytest.mark.parametrize("typed", ["", "Post"], ids=["untouched", "with a carrier"])
def test_number_that_a_colleague_entered_meanwhile_is_not_erased(
    staff: Client, offer: Offer, typed: str
) -> None:
    theirs, mine = placed(paid(offer=offer)), placed(paid(offer=offer))
    ship(theirs, "001")
    sent = rows((theirs, typed, ""), (mine, "", ""), carrier="DHL", untracked="on")
    answer = staff.post(url("ship"), sent, follow=True)
    assert again(theirs).tracking_number == "001"
    assert again(theirs).carrier == (typed or "DHL")
    assert again(mine).shipped_at is not None
    said = answer.content.decode()
    assert "1 marked as shipped." in said
    assert ("1 shipped before, and not changed here: left as they are." in said) == (not typed)


def test_number_that_was_shown_can_be_taken_away(staff: Client, offer: Offer) -> None:
    order = placed(paid(offer=offer))
    ship(order, "001")
    page = staff.get(url("ship"), {"order": order.pk}).content.decode()
    name = f"initial-{order.pk}-tracking_number"
    assert f'<input type="hidden" name="{name}" value="001"' in page
    staff.post(url("ship"), rows((order, "DHL", ""), untracked="on") | {name: "001"})
    assert again(order).tracking_number == ""


def test_untouched_row_that_is_shipped_before_its_turn_comes_is_left_alone(offer: Offer) -> None:
    order = placed(paid(offer=offer))
    ship(order, "001")
    orders.mark_shipped(
        order.pk, carrier="DHL", tracking_number="", corrects=False, now=timezone.now(), source=""
    )
    assert again(order).tracking_number == "001"


def test_number_is_corrected_on_the_same_page(staff: Client, offer: Offer) -> None:
    order = placed(paid(offer=offer))
    ship(order)
    assert 'value="00340"' in staff.get(url("ship"), {"order": order.pk}).content.decode()
    staff.post(url("ship"), rows((order, "DHL", "00341")))
    assert again(order).tracking_number == "00341"
    assert Email.objects.filter(occasion="shipped").count() == 1


def test_ship_page_without_orders_leads_back(staff: Client) -> None:
    for query in ({}, {"order": "x"}, {"order": "99999"}, {"order": "9" * 40}):
        assert staff.get(url("ship"), query).status_code == 302


def test_delivered_handed_over_and_came_back_are_one_click(staff: Client, offer: Offer) -> None:
    parcel, bag = placed(paid(offer=offer)), placed(collected(offer=offer))
    text = act(staff, "mark_delivered", parcel, bag).content.decode()
    assert "was not shipped yet" in text
    assert "hand it over instead" in text
    ship(parcel)
    assert "1 delivered." in act(staff, "mark_delivered", parcel).content.decode()
    assert "1 handed over." in act(staff, "hand_over", bag).content.decode()
    assert "handed over on" in act(staff, "hand_over", bag).content.decode()
    refund(parcel.fulfillment.purchase)
    assert "1 came back." in act(staff, "mark_returned", parcel).content.decode()
    assert stages.stage(again(parcel)) == Stage.CAME_BACK


def test_stages_of_the_filter_are_those_of_the_list(staff: Client, offer: Offer) -> None:
    """Each order is at exactly one of them, by the query as by the property."""
    found: dict[str, ShippingOrder] = {}
    found[Stage.TO_PACK] = placed(paid(offer=offer))
    found[Stage.TO_COLLECT] = placed(collected(offer=offer))
    found[Stage.SHIPPED] = ship(placed(paid(offer=offer)))
    found[Stage.DELIVERED] = ship(placed(paid(offer=offer)))
    act(staff, "mark_delivered", found[Stage.DELIVERED])
    found[Stage.HANDED_OVER] = placed(collected(offer=offer))
    act(staff, "hand_over", found[Stage.HANDED_OVER])
    found[Stage.DONE] = placed(paid(offer=offer))
    by: dict[str, Any] = {
        "reason": "",
        "source": "tests",
        "now": again(found[Stage.DONE]).created_at,
    }
    delivery.mark_done(found[Stage.DONE].fulfillment_id, **by)
    found[Stage.HELD] = placed(paid(offer=offer))
    Purchase.objects.filter(fulfillment=found[Stage.HELD].fulfillment_id).update(
        status=PurchaseStatus.REFUNDING
    )
    for stage, before in ((Stage.CANCELLED, placed), (Stage.COMES_BACK, lambda p: ship(placed(p)))):
        purchase = paid(offer=offer)
        found[stage] = before(purchase)
        refund(purchase)
    purchase = paid(offer=offer)
    found[Stage.CAME_BACK] = ship(placed(purchase))
    refund(purchase)
    act(staff, "mark_returned", found[Stage.CAME_BACK])

    assert set(found) == set(Stage)
    for stage, order in found.items():
        assert list(ShippingOrder.objects.filter(STAGES[stage])) == [order], stage
        assert stages.stage(again(order)) == stage
        shown = staff.get(url("changelist"), {"stage": stage}).context["cl"].queryset
        assert list(shown) == [order]


# -- Tracking numbers from a file -----------------------------------------------------------------


def test_packing_list_comes_back_with_numbers_in_it(staff: Client, offer: Offer) -> None:
    for _ in range(3):
        placed(paid(offer=offer))
    listed = packed(staff.get(url("packing_csv")).content.decode())
    listed[0] |= {"carrier": "DHL", "tracking_number": "001"}
    listed[1] |= {"carrier": "DHL", "tracking_number": "3,4E+11"}
    text = io.StringIO()
    writer = csv.DictWriter(text, packing.COLUMNS, delimiter=";")
    writer.writeheader()
    writer.writerows(listed)

    page = upload(staff, "\ufeff" + text.getvalue()).content.decode()

    assert "1 marked as shipped" in page
    assert "has rounded this number" in page
    done = ShippingOrder.objects.exclude(shipped_at=None).get()
    assert str(done.fulfillment.purchase_id) == listed[0]["purchase"]
    assert (done.carrier, done.tracking_number) == ("DHL", "001")


def test_lines_of_a_file_without_a_number_are_left_alone(staff: Client, offer: Offer) -> None:
    today, tomorrow, before = (placed(paid(offer=offer)) for _ in range(3))
    ship(before, "000")
    sent = occasions(before.fulfillment.purchase)
    lines = [
        f"{today.fulfillment.purchase_id},DHL,001,",
        f"{tomorrow.fulfillment.purchase_id},DHL,,https://dhl.example/",
        f"{before.fulfillment.purchase_id},DHL, ,",
    ]

    header = "purchase,carrier,tracking_number,tracking_url"
    page = upload(staff, "\n".join([header, *lines])).content.decode()

    assert "1 marked as shipped" in page
    assert again(today).tracking_number == "001"
    assert again(tomorrow).shipped_at is None
    assert "shipped" not in occasions(tomorrow.fulfillment.purchase)
    assert again(before).tracking_number == "000"
    assert occasions(before.fulfillment.purchase) == sent


def test_number_in_a_file_without_its_carrier_is_refused(staff: Client, offer: Offer) -> None:
    order = placed(paid(offer=offer))
    line = f"{order.fulfillment.purchase_id},,001"
    page = upload(staff, f"purchase,carrier,tracking_number\n{line}\n").content.decode()
    assert "Say who carries it" in page
    assert again(order).shipped_at is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "may be empty|is empty|submitted file"),
        ("purchase,carrier\n", "tracking_number missing"),
        (b"\xff\xfe\x00", "UTF-8"),
        ("purchase,carrier,tracking_number\nx,DHL,1\n", "no such order"),
        ("purchase,carrier,tracking_number\n\x00,DHL,1\n", "no such order|no CSV"),
        ("purchase,carrier,tracking_number\n,,\n", "0 marked"),
    ],
    ids=["empty", "columns", "encoding", "unknown", "NUL", "nothing"],
)
def test_file_that_makes_no_sense_is_told_so(staff: Client, text: str | bytes, said: str) -> None:
    page = upload(staff, text).content.decode()
    assert any(part in page for part in said.split("|")), page


def test_file_ships_nothing_of_another_organization(staff: Client) -> None:
    foreign = placed(paid())
    line = f"{foreign.fulfillment.purchase_id},DHL,1"
    page = upload(staff, f"purchase,carrier,tracking_number\n{line}\n").content.decode()
    assert "no such order" in page
    assert again(foreign).shipped_at is None


# -- Addresses ------------------------------------------------------------------------------------


def test_missing_address_is_entered_and_the_order_placed(staff: Client, offer: Offer) -> None:
    purchase = paid(offer=offer, shipping_address=None)
    fulfillment = deliver_now(purchase.pk)
    address = url("address", fulfillment.pk)
    assert "Without address: 1" in staff.get(url("changelist")).content.decode()
    assert address in staff.get(url("without_address")).content.decode()
    page = staff.post(address, ADDRESS | {"line1": "", "country": "AQ"}).content.decode()
    assert "Say which street" in page
    assert staff.post(address, ADDRESS).status_code == 302
    assert placed(purchase).city == "Berlin"
    assert "Without address" not in staff.get(url("changelist")).content.decode()


def test_address_is_corrected_in_admin_until_it_is_shipped(staff: Client, offer: Offer) -> None:
    order = placed(paid(offer=offer))
    address = url("address", order.fulfillment_id)
    assert address in staff.get(url("change", order.pk)).content.decode()
    staff.post(address, ADDRESS | {"line1": "Allee 2"})
    assert again(order).line1 == "Allee 2"
    ship(order)
    assert address not in staff.get(url("change", order.pk)).content.decode()
    assert "has left already" in staff.post(address, ADDRESS).content.decode()
    assert again(order).line1 == "Allee 2"


# -- Who may --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("who", "looks", "changes"),
    [
        ("owner", 200, True), ("manager", 200, True), ("support", 200, False),
        ("rival", 200, False), ("nobody", 403, False), ("attendee", 302, False),
    ],
)  # fmt: skip
def test_pages_are_for_whom_they_should(offer: Offer, who: str, looks: int, changes: bool) -> None:
    parcel, bag = placed(paid(offer=offer)), placed(collected(offer=offer))
    waiting = deliver_now(paid(offer=offer, shipping_address=None).pk)
    browser = Client()
    if who in Membership.Role.values:
        browser = member(offer, who)
    elif who == "rival":
        browser = member(OfferFactory(), "owner")
    else:
        browser.force_login(UserFactory(is_staff=who == "nobody"))

    for name in ("packing_list", "packing_csv", "without_address"):
        answer = browser.get(url(name))
        assert answer.status_code == looks, name
        if who == "rival":
            assert "Hoodie" not in answer.content.decode()
    browser.post(url("ship"), rows((parcel, "DHL", "1")))
    upload(browser, f"purchase,carrier,tracking_number\n{parcel.fulfillment.purchase_id},DHL,1\n")
    browser.post(url("address", waiting.pk), ADDRESS)
    act(browser, "hand_over", bag, follow=False)
    act(browser, "mark_delivered", parcel, follow=False)
    assert (again(parcel).delivered_at is not None) == changes
    assert (again(bag).delivered_at is not None) == changes
    assert (again(parcel).shipped_at is not None) == changes
    waiting.refresh_from_db()
    assert (waiting.status == Status.PENDING) == changes
    assert len(occasions(parcel.fulfillment.purchase)) == 1 + changes


def test_pickup_codes_are_not_shown_to_staff_but_can_be_looked_up(
    staff: Client, offer: Offer
) -> None:
    order = placed(collected(offer=offer))
    code = str(order.pickup_code)
    for page in (staff.get(url("changelist")), staff.get(url("change", order.pk))):
        assert code not in page.content.decode()
    found = staff.get(url("changelist"), {"q": code}).context["cl"].queryset
    assert list(found) == [order]


# -- Countries of an offer ------------------------------------------------------------------------


@pytest.fixture
def superuser() -> Client:
    browser = Client()
    browser.force_login(UserFactory(is_staff=True, is_superuser=True))
    return browser


@pytest.mark.parametrize(
    ("typed", "stored"),
    [
        ("DE, AT", ["DE", "AT"]),
        ("de;at; DE,", ["DE", "AT"]),
        ("Germany, united states\nSwitzerland", ["DE", "US", "CH"]),
        ("", []),
    ],
)
def test_countries_are_typed_as_codes_or_names(
    superuser: Client, typed: str, stored: list[str]
) -> None:
    offer = OfferFactory(shipping_countries=["FR"])
    assert opened(superuser, offer)["shipping_countries"] == "FR"
    assert save(superuser, offer, opened(superuser, offer) | {"shipping_countries": typed}) == {}
    offer.refresh_from_db()
    assert offer.shipping_countries == stored
    page = superuser.get(reverse("admin:offers_offer_change", args=[offer.pk])).content.decode()
    assert "<summary>All of them</summary>AF Afghanistan, AL Albania" in page


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("UK", "UK"),
        ("Germny", "Germny (did you mean DE?)"),
        ("DE AT", "DE AT"),
        ("ZZ, XX", "ZZ, XX"),
    ],
)
def test_country_that_is_none_is_told_so(superuser: Client, typed: str, said: str) -> None:
    offer = OfferFactory()
    errors = save(superuser, offer, opened(superuser, offer) | {"shipping_countries": typed})
    assert set(errors) == {"shipping_countries"}
    assert f"no address for {said}" in errors["shipping_countries"][0]


def test_offer_that_reaches_nobody_is_told_so_in_admin(superuser: Client) -> None:
    offer = OfferFactory()
    form = opened(superuser, offer)
    del form["allows_collection"]
    assert set(save(superuser, offer, form)) == {"allows_collection"}
    assert save(superuser, offer, form | {"shipping_countries": "DE"}) == {}
    assert Fulfillment.objects.count() == 0


def test_file_of_numbers_asks_for_its_own_orders_only(
    offer: Offer, django_assert_num_queries: Any
) -> None:
    orders_there = [placed(paid(offer=offer)) for _ in range(2)]
    named = str(orders_there[0].fulfillment.purchase_id)
    lines = packing.read_tracking(
        f"purchase,carrier,tracking_number\n{named},DHL,'1\nnonsense,DHL,2\n".encode()
    )
    assert lines[0].tracking_number == "'1"
    shipped: list[int] = []
    with django_assert_num_queries(1) as asked:
        refused = list(
            packing.apply_tracking(
                lines,
                among=ShippingOrder.objects.all(),
                ship=lambda pk, line: shipped.append(pk),
            )
        )
    assert (shipped, [line.number for line, _ in refused]) == ([orders_there[0].pk], [3])
    assert named.replace("-", "") in asked.captured_queries[0]["sql"].replace("-", "")
