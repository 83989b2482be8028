"""Pages about events, offers and deliveries: they open, fit, and have no barrier in them."""

from collections.abc import Callable

import pytest
from django.contrib.auth.models import User
from django.db import models
from django.test import Client

from tests.browser.every_page import every_model_of, look_at_model
from tests.browser.visitor import Visitor
from tests.test_admin_pages import one_of_each  # noqa: F401 - a fixture

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("one_of_each")]


@every_model_of("offers", "fulfillment")
def test_pages_about_a_model_open_fit_and_have_no_barrier(
    visit: Callable[..., Visitor], superuser: User, client: Client, model: type[models.Model]
) -> None:
    client.force_login(superuser)
    look_at_model(visit(superuser), client, model)
