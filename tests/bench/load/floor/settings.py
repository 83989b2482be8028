"""Django with nothing in it but the two tables and a pool as large as the service's."""

import environ

env = environ.Env()

SECRET_KEY = "of-a-floor-that-signs-nothing"
ALLOWED_HOSTS = ["127.0.0.1"]
INSTALLED_APPS = ["tests.bench.load.floor"]
MIDDLEWARE: list[str] = []
ROOT_URLCONF = "tests.bench.load.floor.urls"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
DATABASES = {"default": env.db_url("DATABASE_URL")}
DATABASES["default"]["OPTIONS"] = {
    "application_name": "floor",
    "pool": {"min_size": 1, "max_size": env.int("DB_POOL_SIZE"), "timeout": 5},
}
