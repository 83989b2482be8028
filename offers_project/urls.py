"""Every address of the service."""

from django.contrib import admin
from django.urls import include, path
from django_prometheus.exports import ExportToDjangoView
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerView
from rest_framework.routers import DefaultRouter
from rest_framework_simplejwt.views import TokenObtainPairView, TokenRefreshView

from offers.throttling import LoginsPerAddress, LoginsPerName
from offers.viewsets import EventViewSet, OfferViewSet
from offers_project import health
from purchases.viewsets import PurchaseViewSet, StripeWebhookView

router = DefaultRouter(use_regex_path=False)
router.include_root_view = False
router.register("events", EventViewSet)
router.register("offers", OfferViewSet)
router.register("purchases", PurchaseViewSet)

login = TokenObtainPairView.as_view(throttle_classes=[LoginsPerName, LoginsPerAddress])

api = [
    path("auth/token/", login, name="token"),
    path("auth/token/refresh/", TokenRefreshView.as_view(), name="token-refresh"),
    path("webhooks/stripe/", StripeWebhookView.as_view(), name="stripe-webhook"),
    path("schema/", SpectacularAPIView.as_view(permission_classes=[]), name="schema"),
    path(
        "docs/",
        SpectacularSwaggerView.as_view(permission_classes=[], url_name="schema"),
        name="docs",
    ),
    path("", include(router.urls)),
]

urlpatterns = [
    path("api/v1/", include(api)),
    path("admin/", admin.site.urls),
    path("livez", health.livez),
    path("readyz", health.readyz),
    path("metrics", ExportToDjangoView),
]
