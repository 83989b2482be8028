"""The floor's addresses."""

from django.urls import path

from tests.bench.load.floor import offer_list, views

urlpatterns = [
    path("readyz", views.ready),
    path("sell/<int:stock_id>", views.sell),
    path("offers/<slug:event>", offer_list.offers),
    path("refuse/<int:stock_id>", views.refuse),
]
