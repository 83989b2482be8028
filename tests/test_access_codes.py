"""Pools of access codes and files, as organizers fill them in admin."""

import csv
import html
import io
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from fulfillment import delivery
from fulfillment.admin import INLINES
from fulfillment.digital import codes
from fulfillment.digital.errors import CodesRefused
from fulfillment.digital.models import AccessCode, DigitalContent
from fulfillment.models import Fulfillment
from fulfillment.states import Status
from offers.models import Membership, Offer
from offers.scoped_admin import ScopedInline
from tests.conftest import at_once, deliver_now
from tests.digital_content import content_offer, delivered, fill_pool, given, offer_with_file
from tests.factories import MembershipFactory, OfferFactory, UserFactory
from tests.test_admin_permissions import filled

pytestmark = pytest.mark.django_db(transaction=True)


def member(offer: Offer, role: Any = Membership.Role.MANAGER) -> Client:
    user = UserFactory(is_staff=True)
    MembershipFactory(organization=offer.event.organization, user=user, role=role)
    client = Client()
    client.force_login(user)
    return client


def address(name: str, offer: Offer) -> str:
    return reverse(f"admin:offers_offer_{name}", args=[offer.pk])


def shown(answer: Any) -> str:
    return html.unescape(answer.content.decode())


# -- What is read ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("A1\nB2\n", [(1, "A1"), (2, "B2")]),
        ("A1\r\nB2", [(1, "A1"), (2, "B2")]),
        ("Access code,note\nA1,first\n B2 ,second\n\n  \n", [(2, "A1"), (3, "B2")]),
        ("CODE\nCODE2", [(2, "CODE2")]),
        ('"A,1"\n"B""2"', [(1, "A,1"), (2, 'B"2')]),
        ("\ufeffcode\nÄ-1 x", [(2, "Ä-1 x")]),
        ("\ufeffcode\nÄ-1".encode(), [(2, "Ä-1")]),
        ("a" * 200, [(1, "a" * 200)]),
        ("=1+1\n-2", [(1, "=1+1"), (2, "-2")]),
    ],
    ids=range(9),
)
def test_codes_are_read_with_their_lines(text: Any, found: list[tuple[int, str]]) -> None:
    assert codes.read(text) == found


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        ("", ["There is no code in it."]),
        ("code\n", ["There is no code in it."]),
        ("A\n\nB", ["Line 2: no code."]),
        ("A,x\n,y\nB,z", ["Line 2: no code."]),
        ("A\nB\nA\n A ", [f"Line {n}: the same code as in line 1." for n in (3, 4)]),
        ("A\n" + "b" * 201, ["Line 2: longer than 200 characters."]),
        ("A;first\nB", ["Line 1: a semicolon or a tab in the code: separate columns by commas."]),
        ("A\nB\x00C", ["Line 2: characters that can't be seen."]),
        ("A\nB\u200bC", ["Line 2: characters that can't be seen."]),
        ('"A\nB"', ["Line 2: characters that can't be seen."]),
        ('A\n"B', ["Line 2: this isn't CSV (unexpected end of data)."]),
        ("A\nÄ".encode("latin-1"), ["Line 2: this isn't UTF-8. Save the file as “CSV UTF-8”."]),
        ("A\nB".encode("utf-16"), ["Line 1: this isn't UTF-8. Save the file as “CSV UTF-8”."]),
        ("\n" * 3 + "A", [f"Line {n}: no code." for n in (1, 2, 3)]),
    ],
    ids=range(14),
)  # fmt: skip
def test_codes_that_make_no_sense_are_refused_line_by_line(text: Any, problems: list[str]) -> None:
    with pytest.raises(CodesRefused) as refused:
        codes.read(text)
    assert refused.value.problems == problems


def test_many_problems_are_named_and_the_rest_counted() -> None:
    with pytest.raises(CodesRefused) as refused:
        codes.read("A\n" * 1_000)
    assert len(refused.value.problems) == 21
    assert refused.value.problems[-1] == "… and 979 more."


def test_hundred_thousand_codes_go_in_at_once_and_no_more() -> None:
    lines = "\n".join(f"CODE-{number:06}" for number in range(codes.MOST))
    offer = content_offer()
    assert codes.take_in(offer.pk, codes.read(lines)) == codes.MOST
    assert codes.counted(offer.pk)["free"] == codes.MOST
    with pytest.raises(CodesRefused, match="more than 100,000"):
        codes.read(f"{lines}\nONE-MORE")


def test_code_that_the_pool_has_had_refuses_the_whole_import() -> None:
    offer = content_offer()
    fill_pool(offer, 2)
    delivered(offer)  # one of them is given
    with pytest.raises(CodesRefused) as refused:
        codes.take_in(offer.pk, codes.read("NEW\nCODE-00000\nCODE-00001"))
    assert refused.value.problems == [
        "Line 2: the pool has had this code already.",
        "Line 3: the pool has had this code already.",
    ]
    assert AccessCode.objects.count() == 2
    other = content_offer()
    assert fill_pool(other, 1) == ["CODE-00000"]  # another pool is another one


def test_same_file_imported_twice_at_once_goes_in_once() -> None:
    offer = content_offer()
    DigitalContent.objects.create(offer=offer)
    lines = codes.read("\n".join(f"C{number}" for number in range(500)))
    answers = at_once([lambda: codes.take_in(offer.pk, lines) for _ in range(4)])
    assert answers.count(500) == 1
    assert [type(answer) for answer in answers if answer != 500] == [CodesRefused] * 3
    assert AccessCode.objects.count() == 500


# -- The pages ------------------------------------------------------------------------------------


def test_import_serves_who_waited_and_says_what_it_did() -> None:
    offer = content_offer()
    failed = delivered(offer)
    assert failed.status == Status.FAILED
    staff = member(offer)
    page = shown(staff.get(address("access_codes", offer)))
    assert "0 free" in page

    answer = staff.post(address("access_codes", offer), {"codes": "code\nA1\nB2\n"}, follow=True)

    assert "2 codes imported, from “A1” to “B2”. 1 who waited" in shown(answer)
    assert "2 free" in shown(answer)
    assert DigitalContent.objects.get().gives_access_codes
    assert deliver_now(failed.purchase_id).status == Status.FULFILLED
    assert given(offer) == ["A1"]
    assert "1 free, 1 given" in shown(staff.get(address("change", offer)))


def test_file_of_codes_is_imported_all_or_none() -> None:
    offer = content_offer()
    staff = member(offer)
    url = address("access_codes", offer)
    good = SimpleUploadedFile("codes.csv", "\ufeffcode,for\r\nA1,x\r\n".encode())
    assert staff.post(url, {"file": good}).status_code == 302
    for data, said in (
        (b"A2\nA1", "Line 2: the pool has had this code already."),
        (b"A2\n\nA3", "Line 2: no code."),
        (b"A2\n\xff", "Line 2: this isn't UTF-8."),
    ):
        answer = staff.post(url, {"file": SimpleUploadedFile("codes.csv", data)})
        assert answer.status_code == 200
        assert said in shown(answer)
    both = {"file": SimpleUploadedFile("codes.csv", b"A2"), "codes": "A3"}
    assert "one of the two" in shown(staff.post(url, both))
    assert "one of the two" in shown(staff.post(url, {}))
    assert list(AccessCode.objects.values_list("code", flat=True)) == ["A1"]


def test_upload_replace_and_remove_the_file_of_an_offer() -> None:
    offer = content_offer()
    failed = delivered(offer)
    staff = member(offer)
    url = address("content_file", offer)
    assert "There is no file yet" in shown(staff.get(url))

    answer = staff.post(url, {"file": SimpleUploadedFile("talks.zip", b"talks")}, follow=True)

    assert "Buyers download talks.zip now. 1 who waited" in shown(answer)
    failed.refresh_from_db()
    assert failed.is_due
    assert "Buyers download talks.zip" in shown(staff.get(url)).replace("<strong>", "")
    assert staff.post(url, {"file": SimpleUploadedFile("b.zip", b"b")}).status_code == 302
    row = DigitalContent.objects.get()
    with row.file.open() as file:
        assert (row.file_name, file.read()) == ("b.zip", b"b")
    assert "Choose a file" in shown(staff.post(url, {}))
    assert staff.post(url, {"remove": "on"}).status_code == 302
    assert not DigitalContent.objects.get().file
    assert [entry.action_flag for entry in LogEntry.objects.filter(object_id=str(offer.pk))]


def test_content_is_set_up_on_the_page_of_its_offer() -> None:
    offer = content_offer()
    failed = delivered(offer)
    staff = member(offer)
    url = address("change", offer)
    form = filled(staff.get(url))
    one = "digital_content-0-"
    assert form[f"{one}url"] == ""

    wrong = staff.post(url, form | {f"{one}url": "http://plain.example/"})
    assert wrong.status_code == 200
    assert "Enter a valid URL." in shown(wrong)
    sent = {f"{one}url": "https://video.example/", f"{one}instructions": "Log in first."}
    assert staff.post(url, form | sent).status_code == 302

    row = DigitalContent.objects.get()
    assert (row.url, row.instructions) == ("https://video.example/", "Log in first.")
    failed.refresh_from_db()
    assert failed.is_due
    assert failed.attempts == 0


def test_address_and_file_exclude_each_other_and_a_form_keeps_the_file() -> None:
    offer = offer_with_file(b"x", "x.txt")
    staff = member(offer)
    url = address("change", offer)
    form = filled(staff.get(url))
    one = "digital_content-0-"
    refused = staff.post(url, form | {f"{one}url": "https://video.example/"})
    assert "remove that first" in shown(refused)
    assert staff.post(url, form | {f"{one}instructions": "New."}).status_code == 302
    row = DigitalContent.objects.get()
    assert (row.instructions, row.file_name) == ("New.", "x.txt")
    with pytest.raises(TypeError):
        row.save()


def test_offers_of_other_types_have_no_content() -> None:
    offer = OfferFactory()
    staff = member(offer)
    assert "digital_content" not in shown(staff.get(address("change", offer)))
    for name in ("content_file", "access_codes", "given_codes"):
        assert staff.get(address(name, offer)).status_code == 404


@pytest.mark.parametrize("name", ["content_file", "access_codes", "given_codes"])
def test_pages_of_content_are_for_whom_they_should(name: str) -> None:
    offer = content_offer()
    url = address(name, offer)
    looks = name == "given_codes"
    for role in Membership.Role:
        allowed = looks or role != Membership.Role.SUPPORT
        assert member(offer, role).get(url).status_code == (200 if allowed else 403)
    rival, attendee = member(content_offer()), Client()
    attendee.force_login(UserFactory())
    assert rival.get(url).status_code == 404
    for client in (attendee, Client()):
        assert client.get(url).headers["Location"].startswith("/admin/login/")
    if not looks:
        sent = {"codes": "A1", "file": SimpleUploadedFile("a.csv", b"A1")}
        for client in (rival, attendee, Client(), member(offer, Membership.Role.SUPPORT)):
            client.post(url, sent)
        assert not AccessCode.objects.exists()
        assert not DigitalContent.objects.exists()


def test_inlines_of_offers_are_scoped() -> None:
    assert all(issubclass(inline, ScopedInline) for each in INLINES.values() for inline in each)


# -- The pool -------------------------------------------------------------------------------------


def pool() -> tuple[Offer, Client, dict[str, AccessCode]]:
    """An offer with a free, a given and a revoked code, and somebody who manages it."""
    offer = content_offer()
    fill_pool(offer, 3)
    delivery.revoke(delivered(offer).pk, reason="", now=timezone.now(), source="admin")
    delivered(offer)
    states = {code.state: code for code in codes.with_state(AccessCode.objects.filter(offer=offer))}
    assert set(states) == {"free", "given", "revoked"}
    return offer, member(offer), states


def test_list_says_what_became_of_each_code() -> None:
    _, staff, states = pool()
    url = reverse("admin:fulfillment_accesscode_changelist")
    everything = shown(staff.get(url))
    assert all(code.code in everything for code in states.values())
    for state, code in states.items():
        only = shown(staff.get(url, {"state": state}))
        assert [other.code in only for other in states.values()] == [
            other is code for other in states.values()
        ]


def test_free_codes_are_deleted_and_given_ones_never() -> None:
    offer, staff, states = pool()
    url = reverse("admin:fulfillment_accesscode_changelist")
    for state, code in states.items():
        one = reverse("admin:fulfillment_accesscode_delete", args=[code.pk])
        if state != "free":
            assert staff.post(one, {"post": "yes"}).status_code == 403
    chosen = {"action": "delete_selected", "post": "yes"}
    everything = chosen | {"_selected_action": [code.pk for code in states.values()]}
    assert staff.post(url, everything).status_code == 403
    support = member(offer, Membership.Role.SUPPORT)
    support.post(url, chosen | {"_selected_action": [states["free"].pk]})
    assert AccessCode.objects.count() == 3
    staff.post(url, chosen | {"_selected_action": [states["free"].pk]})
    assert sorted(AccessCode.objects.values_list("code", flat=True)) == sorted(
        code.code for state, code in states.items() if state != "free"
    )


def test_code_given_since_the_page_was_opened_is_not_deleted() -> None:
    offer = content_offer()
    fill_pool(offer, 1)
    code = AccessCode.objects.get()
    delivered(offer)
    assert codes.delete_free(offer.pk, [code.pk]) == 0
    assert AccessCode.objects.filter(pk=code.pk).exists()


def test_export_of_given_codes_runs_no_formula() -> None:
    offer = content_offer()
    dangerous = ["=1+1", "+1", "-1", "@SUM(1)", "harmless=1"]
    codes.take_in(offer.pk, list(enumerate(dangerous, 1)))
    buyer = UserFactory(username="=cmd|' /C calc'!A0")
    fulfillment = delivered(offer, quantity=5, user=buyer)
    delivery.revoke(fulfillment.pk, reason="", now=timezone.now(), source="admin")

    answer = member(offer, Membership.Role.SUPPORT).get(address("given_codes", offer))

    assert answer.headers["Content-Type"] == "text/csv; charset=utf-8"
    rows = list(csv.DictReader(io.StringIO(answer.content.decode("utf-8-sig"), newline="")))
    assert [row["code"] for row in rows] == ["'=1+1", "'+1", "'-1", "'@SUM(1)", "harmless=1"]
    assert {row["buyer"] for row in rows} == {"'=cmd|' /C calc'!A0"}
    assert {row["state"] for row in rows} == {"revoked"}
    assert {row["purchase"] for row in rows} == {str(fulfillment.purchase_id)}


def test_code_that_was_seen_never_goes_back_into_the_pool() -> None:
    offer = content_offer()
    fill_pool(offer, 1)
    delivery.revoke(delivered(offer).pk, reason="", now=timezone.now(), source="admin")
    assert delivered(offer).status == Status.FAILED
    assert codes.counted(offer.pk) == {"free": 0, "given": 0, "revoked": 1}
    assert Fulfillment.objects.filter(access_codes__isnull=False).count() == 1
