from django.apps import AppConfig


class AccountsConfig(AppConfig):
    name = "offers_project.accounts"
    label = "accounts"
