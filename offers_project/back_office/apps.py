from django.contrib.admin.apps import AdminConfig

from offers import xlsx_format


class BackOfficeConfig(AdminConfig):
    """Django's admin app with our site; it stands in INSTALLED_APPS in the admin's place."""

    default_site = "offers_project.back_office.site.BackOfficeSite"

    def ready(self) -> None:
        # Before the admin's modules, which load import-export.
        xlsx_format.register()
        super().ready()
        # After every app's own pages, some of which it replaces.
        from offers_project.back_office import accounts, staff_log  # noqa: F401 - see above
