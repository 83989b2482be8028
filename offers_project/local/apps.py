from django.apps import AppConfig


class LocalRunConfig(AppConfig):
    name = "offers_project.local"
    label = "local_run"
