from django.contrib.admin.apps import AdminConfig


class BackOfficeConfig(AdminConfig):
    """Django's admin app with our site; it stands in INSTALLED_APPS in the admin's place."""

    default_site = "offers_project.back_office.site.BackOfficeSite"

    def ready(self) -> None:
        super().ready()
        # After every app's own pages, some of which it replaces.
        from offers_project.back_office import accounts, staff_log  # noqa: F401 - see above
