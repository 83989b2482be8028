from django.apps import AppConfig


class PurchasesConfig(AppConfig):
    name = "purchases"
    verbose_name = "Purchases"

    def ready(self) -> None:
        from purchases import checks  # noqa: F401 - importing registers them
        from purchases.bulk import of_purchases  # noqa: F401 - as above
