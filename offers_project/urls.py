"""Every address of the service."""

from django.contrib import admin
from django.contrib.auth.views import LogoutView
from django.urls import include, path
from django.views.i18n import set_language
from drf_spectacular.renderers import (
    OpenApiJsonRenderer,
    OpenApiJsonRenderer2,
    OpenApiYamlRenderer,
    OpenApiYamlRenderer2,
)
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerSplitView
from rest_framework.routers import SimpleRouter
from rest_framework_simplejwt.views import TokenObtainPairView, TokenRefreshView

from fulfillment.bookings import pages as bookings
from fulfillment.codes.pages import CodeImage, check_in, check_in_code
from fulfillment.digital.pages import content_page
from fulfillment.pages import purchase_page, success_page
from fulfillment.viewsets import PurchaseViewSet
from offers.live_stock import offers_live
from offers.throttling import LoginsPerAddress, LoginsPerName
from offers.viewsets import EventViewSet
from offers_project import health
from offers_project.accounts import pages as accounts
from offers_project.http_errors import refusing_with_a_page
from offers_project.login import AttendeeLogin, BackOfficeLogin
from offers_project.monitoring.exposition import metrics
from purchases import pages, purchase_pages
from purchases.viewsets import OfferViewSet, StripeWebhookView

router = SimpleRouter(use_regex_path=False)
router.register("events", EventViewSet)
router.register("offers", OfferViewSet)
router.register("purchases", PurchaseViewSet)

token = TokenObtainPairView.as_view(throttle_classes=[LoginsPerName, LoginsPerAddress])
refresh = TokenRefreshView.as_view(throttle_classes=[LoginsPerAddress])

# In JSON, which is YAML as well, unless YAML is asked for.
schema = SpectacularAPIView.as_view(
    permission_classes=[],
    renderer_classes=[
        OpenApiJsonRenderer2, OpenApiJsonRenderer, OpenApiYamlRenderer2, OpenApiYamlRenderer,
    ],
)  # fmt: skip

api = [
    # First, since nearly all requests are for these.
    path("", include(router.urls)),
    path("auth/token/", token, name="token"),
    path("auth/token/refresh/", refresh, name="token-refresh"),
    path("webhooks/stripe/", StripeWebhookView.as_view(), name="stripe-webhook"),
    path("schema/", schema, name="schema"),
    path(
        "docs/",
        # Split: its script is a file of its own, since the CSP forbids scripts within pages.
        SpectacularSwaggerSplitView.as_view(
            permission_classes=[], url_name="schema", http_method_names=["get", "head"]
        ),
        name="docs",
    ),
]

handler404 = "offers_project.http_errors.not_found"
handler500 = "offers_project.http_errors.server_failed"

urlpatterns = [
    path("api/v1/", include(api)),
    path("admin/login/", BackOfficeLogin.as_view()),
    path("admin/", admin.site.urls),
    path("", pages.events_page, name="events-page"),
    path("events/<slug:slug>/offers", pages.offers_page, name="offers-page"),
    path("events/<slug:slug>/offers/live", offers_live, name="offers-live"),
    path("events/<slug:slug>/offers/<uuid:offer_id>", pages.offer_page, name="offer-page"),
    path("events/<slug:slug>/offers/success", success_page, name="success-page"),
    path("purchases", purchase_pages.purchases_page, name="purchases-page"),
    path("purchases/<uuid:purchase_id>", purchase_page, name="purchase-page"),
    path("purchases/<uuid:purchase_id>/cancel", purchase_pages.cancel, name="purchase-cancel"),
    path("purchases/<uuid:purchase_id>/again", purchase_pages.again, name="purchase-again"),
    path("purchases/<uuid:purchase_id>/status", purchase_pages.status, name="purchase-status"),
    path(
        "content/<str:token>",
        refusing_with_a_page(content_page, template="fulfillment/not_opened.html"),
        name="content",
    ),
    path("purchases/<uuid:purchase_id>/code.svg", CodeImage.as_view(), name="purchase-code-svg"),
    path(
        "purchases/<uuid:purchase_id>/code.png",
        CodeImage.as_view(kind="png"),
        name="purchase-code-png",
    ),
    path("check-in", check_in, name="check-in"),
    path("check-in/<str:code>", check_in_code, name="check-in-code"),
    path("purchases/<uuid:purchase_id>/booking", bookings.book, name="booking-book"),
    path("purchases/<uuid:purchase_id>/booking/cancel", bookings.cancel, name="booking-cancel"),
    path("purchases/<uuid:purchase_id>/booking.ics", bookings.calendar_entry, name="booking-ics"),
    path("language", set_language, name="set-language"),
    path("login", AttendeeLogin.as_view(), name="login"),
    path("logout", LogoutView.as_view(), name="logout"),
    path("register", accounts.Register.as_view(), name="register"),
    path("register/sent", accounts.RegisterSent.as_view(), name="register-sent"),
    path("register/link/<str:token>", accounts.register_link, name="register-link"),
    path("register/password", accounts.FirstPassword.as_view(), name="register-password"),
    path("password/reset", accounts.ResetPassword.as_view(), name="password-reset"),
    path("password/reset/sent", accounts.ResetSent.as_view(), name="password-reset-sent"),
    path(
        "password/reset/<str:uidb64>/<str:token>",
        accounts.NewPassword.as_view(),
        name="password-reset-link",
    ),
    path("password/change", accounts.ChangePassword.as_view(), name="password-change"),
    path("livez", health.livez),
    path("readyz", health.readyz),
    path("metrics", metrics),
]
