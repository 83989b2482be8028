from django.apps import AppConfig


class FulfillmentConfig(AppConfig):
    name = "fulfillment"
    verbose_name = "Fulfilment"

    def ready(self) -> None:
        from fulfillment import bulk_actions  # noqa: F401 - importing registers them
