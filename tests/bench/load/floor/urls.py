"""The floor's addresses."""

from django.urls import path

from tests.bench.load.floor import views

urlpatterns = [
    path("readyz", views.ready),
    path("sell/<int:stock_id>", views.sell),
    path("refuse/<int:stock_id>", views.refuse),
]
