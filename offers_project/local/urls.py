"""Every address of the service, and those that only a local run has."""

from django.urls import include, path

from offers_project import urls
from offers_project.local.mailbox import pages

handler404, handler500 = urls.handler404, urls.handler500

mailbox = [
    path("", pages.index, name="mailbox"),
    path("<slug:name>", pages.letter, name="mailbox-letter"),
    path("<slug:name>/html", pages.html, name="mailbox-html"),
    path("<slug:name>/<int:number>", pages.attachment, name="mailbox-attachment"),
]

urlpatterns = [path("mail/", include(mailbox)), *urls.urlpatterns]
