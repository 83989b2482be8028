"""Who gets into the back-office, who doesn't, and what those hear."""

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse

from offers.models import Membership
from tests.factories import MembershipFactory, UserFactory
from tests.test_permissions import browser_of

pytestmark = pytest.mark.django_db

INDEX = reverse("admin:index")
LOGIN = reverse("admin:login")
EVENTS = reverse("admin:offers_event_changelist")


def member(**fields: object) -> User:
    user: User = MembershipFactory(user=UserFactory(**fields)).user
    return user


def log_in(user: User, url: str = f"{LOGIN}?next={INDEX}") -> Client:
    client = Client()
    client.post(url, {"username": user.username, "password": "secret", "next": INDEX})
    return client


@pytest.mark.parametrize("role", Membership.Role)
def test_member_enters_without_the_staff_flag(role: str) -> None:
    user = UserFactory()
    MembershipFactory(user=user, role=role)
    client = log_in(user)
    assert not user.is_staff
    assert client.get(INDEX).status_code == 200
    assert client.get(EVENTS).status_code == 200


def test_superuser_enters_without_the_staff_flag() -> None:
    assert browser_of(UserFactory(is_superuser=True)).get(EVENTS).status_code == 200


def test_closed_account_stays_out() -> None:
    user = member(is_active=False)
    assert "No account here has this name or address" in (
        Client().post(LOGIN, {"username": user.username, "password": "secret"}).content.decode()
    )
    user.is_active = True
    user.save()
    client = log_in(user)
    assert client.get(INDEX).status_code == 200
    User.objects.update(is_active=False)
    assert client.get(INDEX).status_code == 302


def test_membership_that_ends_closes_the_door_at_once() -> None:
    user = member()
    client = browser_of(user)
    assert client.get(INDEX).status_code == 200
    Membership.objects.filter(user=user).delete()
    answer = client.get(INDEX)
    assert (answer.status_code, answer.headers["Location"]) == (302, f"{LOGIN}?next={INDEX}")


def test_attendee_hears_why_not_instead_of_being_asked_again() -> None:
    attendee = UserFactory(username="ada")
    client = Client()
    sent = {"username": "ada", "password": "secret", "next": INDEX}
    answer = client.post(f"{LOGIN}?next={INDEX}", sent, follow=True)
    assert answer.status_code == 200
    assert len(answer.redirect_chain) == 2
    text = answer.content.decode()
    assert "You are logged in as ada" in text
    assert "Ask an owner of your organization" in text
    MembershipFactory(user=attendee)
    assert client.get(f"{LOGIN}?next={EVENTS}").headers["Location"] == EVENTS


def test_stranger_is_only_asked_who_they_are() -> None:
    text = Client().get(LOGIN).content.decode()
    assert "Log in to the back-office" in text
    assert "You are logged in" not in text


def test_login_leads_into_the_back_office_and_to_no_other_site() -> None:
    user = member()
    sent = {"username": user.username, "password": "secret"}
    assert Client().post(LOGIN, sent).headers["Location"] == INDEX
    away = Client().post(LOGIN, sent | {"next": "https://example.com/"})
    assert away.headers["Location"] == INDEX


def test_staff_without_membership_hear_whom_to_ask() -> None:
    client = browser_of(UserFactory(is_staff=True))
    assert "works for no organization" in client.get(INDEX).content.decode()
    assert client.get(EVENTS).status_code == 403
    for other in (member(), UserFactory(is_superuser=True)):
        assert "works for no organization" not in browser_of(other).get(INDEX).content.decode()


def test_member_changes_the_password_and_logs_out() -> None:
    client = log_in(member())
    url = reverse("admin:password_change")
    assert client.get(url).status_code == 200
    new = "a-better-pass-phrase"
    sent = {"old_password": "secret", "new_password1": new, "new_password2": new}
    answer = client.post(url, sent)
    assert answer.headers["Location"] == reverse("admin:password_change_done")
    assert client.get(answer.headers["Location"]).status_code == 200
    answer = client.post(reverse("admin:logout"), follow=True)
    assert answer.status_code == 200
    assert client.get(INDEX).status_code == 302


def test_menu_of_a_member_leads_to_check_in_and_only_where_they_may() -> None:
    text = log_in(member()).get(EVENTS).content.decode()
    assert f'href="{reverse("check-in")}"' in text
    for closed in ("auth_user", "waffle_switch", "purchases_stripeevent"):
        assert f'href="{reverse(f"admin:{closed}_changelist")}"' not in text
    staff = browser_of(UserFactory(is_staff=True)).get(INDEX).content.decode()
    assert f'href="{reverse("check-in")}"' not in staff


@pytest.mark.parametrize(("path", "status"), [("/admin/nothing/", 404), (None, 403)])
def test_page_that_one_may_not_see_leads_back_to_the_back_office(
    path: str | None, status: int
) -> None:
    address = path or reverse("admin:kill_switch")
    answer = browser_of(member()).get(address)
    assert answer.status_code == status
    assert f'href="{reverse("admin:index")}"' in answer.content.decode()
