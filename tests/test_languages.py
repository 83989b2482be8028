"""The German catalogue: complete, up to date, compiled; and who is answered in which language."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from babel.messages.catalog import Catalog, Message
from babel.messages.mofile import read_mo
from babel.messages.pofile import read_po
from django.conf import settings
from django.test import Client
from django.utils import translation

from offers_project import http_errors
from tests.factories import MembershipFactory, OfferFactory, PurchaseFactory, UserFactory
from tests.visible_text import visible_text

ROOT = Path(__file__).resolve().parents[1]
CATALOGUE = Path("offers_project/locale/de/LC_MESSAGES/django.po")
TOOLS = ("make", "xgettext", "msgmerge", "msgfmt")
SOURCES = ("offers", "purchases", "fulfillment", "offers_project", "templates")
PLACEHOLDER = re.compile(r"%\(\w+\)[sd]|\{\w*\}|%[sd%]|</?\w+>")
Texts = dict[Any, Any]


def read(path: Path) -> Catalog:
    with path.open("rb") as file:
        return read_mo(file) if path.suffix == ".mo" else read_po(file, locale="de")


def messages(catalogue: Catalog) -> Iterator[Message]:
    return (message for message in catalogue if message.id)


def texts(catalogue: Catalog) -> Texts:
    plain = ((message.id, message.string) for message in messages(catalogue))
    # The forms of a plural are a list or a tuple, as Babel's readers like it.
    return {tuple_of(id_): tuple_of(string) for id_, string in plain}


def tuple_of(text: Any) -> Any:
    return text if isinstance(text, str) else tuple(text)


def pairs(message: Message) -> list[tuple[str, str]]:
    """Each form of the translation with the form of the msgid that it is made from."""
    if isinstance(message.id, str):
        return [(message.id, str(message.string))]
    one, several = message.id
    return [(one, message.string[0]), *((several, form) for form in message.string[1:])]


@pytest.fixture(scope="module")
def german() -> Catalog:
    return read(ROOT / CATALOGUE)


# -- The catalogue --------------------------------------------------------------------------------


def test_everything_is_translated_and_nothing_is_guessed(german: Catalog) -> None:
    assert len(list(messages(german))) > 300
    assert [m.id for m in messages(german) if m.fuzzy] == []
    assert [m.id for m in messages(german) if not all(form for _, form in pairs(m))] == []
    assert german.num_plurals == 2
    assert german.obsolete == {}


def test_catalogue_has_what_is_in_the_sources_and_nothing_else(
    german: Catalog, tmp_path: Path
) -> None:
    """`make messages`, in a copy of the sources, finds nothing new and nothing that is gone."""
    if missing := [tool for tool in TOOLS if not shutil.which(tool)]:
        said = f"No {', '.join(missing)}: install GNU gettext (Debian: apt-get install gettext)."
        pytest.fail(said, pytrace=False) if os.environ.get("CI") else pytest.skip(said)
    for folder in SOURCES:
        skipped = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=skipped)
    for file in ("manage.py", "Makefile"):
        shutil.copy(ROOT / file, tmp_path)
    # The environment that has no virtual environment of its own is taken for installed.
    make = ["make", "messages", "-o", ".venv/installed", f"BIN={Path(sys.executable).parent}"]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MAKE")}
    subprocess.run(make, cwd=tmp_path, env=environment, check=True, capture_output=True)
    assert texts(read(tmp_path / CATALOGUE)) == texts(german), "Run `make messages`, and translate."


def test_compiled_catalogue_is_that_of_the_texts(german: Catalog) -> None:
    compiled = texts(read((ROOT / CATALOGUE).with_suffix(".mo")))
    assert compiled == texts(german), "Run `make messages`."


def test_translations_keep_what_is_filled_in_and_the_markup(german: Catalog) -> None:
    for message in messages(german):
        for english, translated in pairs(message):
            expected = PLACEHOLDER.findall(english)
            assert sorted(PLACEHOLDER.findall(translated)) == sorted(expected), english


def test_translations_are_typeset_as_german_is(german: Catalog) -> None:
    for message in messages(german):
        for english, translated in pairs(message):
            for wrong in ('"', "'", " - ", "...", " …", "  "):
                assert wrong not in translated, (wrong, translated)
            assert translated.count("„") == translated.count("“"), translated
            assert english[-1:] != "." or translated[-1:] == ".", translated
            # The reader is du (docs/decisions.md).
            assert not re.search(r"\b(Sie|Ihnen|Ihre?[nmrs]?|Euch)\b", translated), translated


def test_catalogue_says_nothing_of_who_made_it_and_when() -> None:
    head = (ROOT / CATALOGUE).read_text(encoding="utf-8").partition("\n\n")[0]
    for noise in ("Date", "Translator", "Team", "@", "fuzzy", "/home", "/tmp"):
        assert noise not in head.replace("charset=UTF-8", "")


# -- Who is answered in which language ------------------------------------------------------------


@pytest.mark.django_db
def test_language_buttons_stay_on_the_page_and_are_remembered() -> None:
    offer = OfferFactory()
    path = f"/events/{offer.event.slug}/offers?placement=IN_EVENT"
    browser = Client()
    assert 'lang="en"' in browser.get(path).content.decode()
    for code, said in (("de", "Kaufen"), ("en", "Buy")):
        page = browser.get(path).content.decode()
        assert f'name="language" value="{code}"' in page
        [back] = re.findall(r'name="next" value="([^"]*)"', page)
        answer = browser.post("/language", {"language": code, "next": back})
        assert (answer.status_code, answer.headers["Location"]) == (302, path)
        # Whatever the browser asks for otherwise.
        shown = browser.get(path, headers={"Accept-Language": "fr, en;q=0.5, de;q=0.4"})
        assert f'<html lang="{code}">' in shown.content.decode()
        assert said in visible_text(shown.content.decode())


@pytest.mark.parametrize(
    ("asked", "answered"),
    [
        ("de", "de"),
        ("de-AT,de;q=0.9,en;q=0.8", "de"),
        ("fr,de;q=0.5,en;q=0.4", "de"),
        ("en-GB,de;q=0.5", "en"),
        ("fr", "en"),
        ("", "en"),
        ("*", "en"),
    ],
)
@pytest.mark.django_db
def test_page_is_in_the_language_that_the_browser_prefers(asked: str, answered: str) -> None:
    page = Client().get("/", headers={"Accept-Language": asked})
    assert page.headers["Content-Language"] == answered
    assert "Accept-Language" in page.headers["Vary"]
    assert f'<html lang="{answered}">' in page.content.decode()


@pytest.mark.django_db
def test_api_stays_english(client_of: Any) -> None:
    german = {"Accept-Language": "de", "Cookie": "django_language=de"}
    offer = OfferFactory(inventory_total=0)
    client = client_of(UserFactory())
    for form, said in (
        ({"offer": str(offer.pk)}, "This offer is sold out."),
        ({"offer": str(offer.pk), "quantity": 0}, "greater than or equal to 1"),
        ({"offer": str(offer.pk), "delivery_method": "x"}, "Use one of shipping, collection."),
        ({}, "This field is required."),
    ):
        Client().get("/", headers=german)  # in the same thread
        answer = client.post("/api/v1/purchases/", form, headers=german)
        assert said in answer.json()["errors"][0]["detail"]
    assert "nothing at this address" in Client().get("/api/v1/x", headers=german).content.decode()


@pytest.mark.django_db
def test_back_office_and_check_in_stay_english() -> None:
    offer = OfferFactory()
    PurchaseFactory(offer=offer)
    browser = Client(headers={"Accept-Language": "de"})
    assert "Log in to the back-office" in browser.get("/admin/login/").content.decode()
    browser.force_login(MembershipFactory(organization=offer.event.organization).user)
    for path in ("/admin/", "/admin/purchases/purchase/", "/admin/nowhere/", "/check-in"):
        page = browser.get(path, follow=True).content.decode()
        assert 'lang="en' in page
        assert not re.search(r"\b(und|der|die|das|Abmelden|Käufe)\b", visible_text(page)), path


@pytest.mark.django_db
def test_language_of_a_visitor_is_not_that_of_the_next() -> None:
    Client().get("/", headers={"Accept-Language": "de"})
    assert translation.get_language() == settings.LANGUAGE_CODE


# -- Pages that have no language to go by ---------------------------------------------------------


@pytest.mark.parametrize("status", [400, 500])
def test_pages_for_when_nothing_works_speak_both_languages(status: int) -> None:
    page = (ROOT / f"templates/{status}.html").read_text(encoding="utf-8")
    english, _, german = page.partition('<div lang="de">')
    assert '<html lang="en">' in english
    assert re.findall('href="(.*?)"', english) == re.findall('href="(.*?)"', german)
    assert "{" not in page


def test_page_of_a_busy_database_is_in_the_readers_language(rf: Any) -> None:
    with translation.override("de"):
        answer = http_errors.busy(rf.get("/"), RuntimeError("no connection"))
    page = answer.content.decode()
    assert '<html lang="de">' in page
    assert "Versuche es gleich noch einmal" in page
