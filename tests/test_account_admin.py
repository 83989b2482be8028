"""The admin page of an account, for superusers."""

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse

from tests.factories import UserFactory
from tests.test_admin_permissions import filled
from tests.test_permissions import browser_of

pytestmark = pytest.mark.django_db

# What registering makes of an address that is one by RFC 5322.
LEGAL = "o'brien/sales@example.org"


@pytest.fixture
def superuser() -> Client:
    return browser_of(UserFactory(is_superuser=True, is_staff=True))


def save(superuser: Client, user: User, **changes: str | None) -> Any:
    """Send the form as the page shows it, with ``changes``; None is a box without its tick."""
    url = reverse("admin:auth_user_change", args=[user.pk])
    sent = filled(superuser.get(url)) | changes
    answer = superuser.post(url, {name: value for name, value in sent.items() if value is not None})
    user.refresh_from_db()
    return answer


def test_account_with_any_address_as_user_name_can_be_closed(superuser: Client) -> None:
    user = UserFactory(username=LEGAL, email=LEGAL)
    assert save(superuser, user, is_active=None, first_name="Nora").status_code == 302
    assert (user.username, user.first_name, user.is_active) == (LEGAL, "Nora", False)


@pytest.mark.parametrize("wrong", ["o'brien", "", "taken"])
def test_user_name_that_is_chosen_is_looked_at(superuser: Client, wrong: str) -> None:
    UserFactory(username="taken")
    user = UserFactory(username=LEGAL, email=LEGAL)
    answer = save(superuser, user, username=wrong)
    assert answer.status_code == 200
    assert "username" in answer.context["adminform"].form.errors
    assert user.username == LEGAL
    assert save(superuser, user, username="nora").status_code == 302
    assert user.username == "nora"
