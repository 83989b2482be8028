"""Every setting, each environment variable read once (docs: README, ``.env.example``).

Production is the default. ``LOCAL_RUN`` is set by ``make run`` and the tests only, ``DEBUG`` by a
developer; both allow plain HTTP and a missing key, nothing else changes.
"""

import json
import logging
import os
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import environ
from csp.constants import NONE, SELF
from django.core.exceptions import ImproperlyConfigured

from offers_project import queues

BASE_DIR = Path(__file__).resolve().parent.parent

env = environ.Env()
if (BASE_DIR / ".env").is_file():
    environ.Env.read_env(BASE_DIR / ".env")

_local_run = Path(os.environ.get("DATA_DIR") or BASE_DIR / ".local") / "run.json"
if not os.environ.get("DATABASE_URL") or os.path.isfile(_local_run):  # noqa: PTH113 - never raises
    # Only a machine without a configured database, or with a local run, gets here, so production
    # never imports this (and the names above are written here again).
    from offers_project.local import environment

    try:
        environment.adopt()
    except environment.NoLocalRun as error:
        if not env.bool("OFFERS_OFFLINE", default=False):
            raise ImproperlyConfigured(str(error)) from error
        os.environ |= {"DATABASE_URL": "sqlite://:memory:", "LOCAL_RUN": "1"}

DEBUG = env.bool("DEBUG", default=False)
LOCAL_RUN = env.bool("LOCAL_RUN", default=False)
PRODUCTION = not (DEBUG or LOCAL_RUN)


def required_in_production(name: str, how_to_get_one: str, otherwise: str) -> str:
    """A secret that production refuses to start without."""
    value = env.str(name, default="")
    if not value and PRODUCTION:
        raise ImproperlyConfigured(f"{name} is not set: {how_to_get_one}.")
    return value or otherwise


def positive(name: str, default: float, *, most: float = 1e6) -> float:
    """A number above zero; anything else stops the start and names the setting."""
    text = env.str(name, default=str(default))
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= most:
        raise ImproperlyConfigured(f"{name} is {text!r}: use a number above 0, at most {most:g}.")
    return value


def whole(name: str, default: int) -> int:
    """The same for what is counted."""
    value = positive(name, default)
    if not value.is_integer():
        raise ImproperlyConfigured(f"{name} is {value:g}: use a whole number above 0.")
    return int(value)


def whole_or_none(name: str, default: int) -> int:
    """What is counted, or 0 for none."""
    return 0 if env.str(name, default=str(default)) == "0" else whole(name, default)


def rate(name: str, default: str) -> str:
    """So many in so much time, as django-ratelimit has it."""
    text = env.str(name, default=default)
    if not re.fullmatch(r"[1-9]\d*/([1-9]\d*)?[smhd]", text):
        raise ImproperlyConfigured(f"{name} is {text!r}: use a rate like 10/m (per s, m, h or d).")
    return text


def listed(name: str, default: list[str]) -> list[str]:
    """Comma-separated values; a blank beside a comma belongs to none of them."""
    return [value.strip() for value in env.list(name, default=default) if value.strip()]


def json_object(name: str) -> dict[str, Any]:
    """Named values, as JSON has them; anything else stops the start and names the setting."""
    text = env.str(name, default="") or "{}"
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise ImproperlyConfigured(f'{name} is no JSON object: use one like {{"name": "value"}}.')
    return value


SECRET_KEY = required_in_production(
    "SECRET_KEY",
    "put at least 50 random characters into the environment or .env",
    otherwise="insecure-and-for-development-only-" + "0" * 32,
)
# Exists once this web server was asked to end; set by draining.py alone.
DRAINING_FILE = env.str("DRAINING_FILE", default="")
ALLOWED_HOSTS = listed("ALLOWED_HOSTS", [] if PRODUCTION else ["127.0.0.1", "localhost"])

# -- Stripe ---------------------------------------------------------------------------------------
STRIPE_SECRET_KEY = required_in_production(
    "STRIPE_SECRET_KEY",
    "take a restricted key (rk_…) from Stripe's dashboard, Developers > API keys",
    otherwise="",
)
STRIPE_WEBHOOK_SECRETS = listed("STRIPE_WEBHOOK_SECRETS", [])
STRIPE_API_BASE = env.str("STRIPE_API_BASE", default="https://api.stripe.com")
# One retry and these time-outs (seconds) keep a purchase under 15 s when Stripe hangs.
STRIPE_CONNECT_TIMEOUT = 2.0
STRIPE_READ_TIMEOUT = 5.0
STRIPE_NETWORK_RETRIES = 1
# Of one process, and fewer than its threads: the others serve what needs no Stripe.
STRIPE_CONCURRENT_CALLS = whole("STRIPE_CONCURRENT_CALLS", 24)
_threads = env.int("GRANIAN_BLOCKING_THREADS", default=0)
if 0 < _threads <= STRIPE_CONCURRENT_CALLS:
    raise ImproperlyConfigured(
        f"STRIPE_CONCURRENT_CALLS is {STRIPE_CONCURRENT_CALLS}: use a number below {_threads}, "
        "which is GRANIAN_BLOCKING_THREADS, or Stripe could keep every thread waiting."
    )
# Requests that a process works on at once: not those that wait for Stripe, or for what others read,
# or that waited half a second for their turn (offers/turns.py).
REQUESTS_AT_ONCE = whole("REQUESTS_AT_ONCE", 3)
# Holds of one offer that a process makes in one transaction; 1 makes each in its own.
HOLDS_TOGETHER = whole("HOLDS_TOGETHER", 16)
# Holds that a sweep ends at once: at 300 ms a call, as many as Stripe takes of a test mode's key.
SWEEP_THREADS = whole("SWEEP_THREADS", 8)

# -- Selling --------------------------------------------------------------------------------------
FRONTEND_URL = env.str("FRONTEND_URL", default="").rstrip("/")
# A session at Stripe lives a day at most, and must outlive the hold.
RESERVATION_MINUTES = positive("RESERVATION_MINUTES", 15, most=23 * 60)
MAX_QUANTITY_PER_PURCHASE = whole("MAX_QUANTITY_PER_PURCHASE", 20)
MAX_OPEN_HOLDS_PER_USER = whole("MAX_OPEN_HOLDS_PER_USER", 3)
PURCHASE_RATE_LIMIT = rate("PURCHASE_RATE_LIMIT", "10/m")
PURCHASE_RATE_LIMIT_IP = rate("PURCHASE_RATE_LIMIT_IP", "600/m")
LOGIN_RATE_LIMIT = rate("LOGIN_RATE_LIMIT", "10/m")
LOGIN_RATE_LIMIT_IP = rate("LOGIN_RATE_LIMIT_IP", "300/m")
LETTER_RATE_LIMIT = rate("LETTER_RATE_LIMIT", "5/h")
LETTER_RATE_LIMIT_IP = rate("LETTER_RATE_LIMIT_IP", "300/h")

# -- Calling organizations' endpoints -------------------------------------------------------------
# Plain HTTP and this machine itself: for trying out and for tests.
WEBHOOK_ALLOW_LOOPBACK = env.bool("WEBHOOK_ALLOW_LOOPBACK", default=LOCAL_RUN)
if WEBHOOK_ALLOW_LOOPBACK and PRODUCTION:
    raise ImproperlyConfigured(
        "WEBHOOK_ALLOW_LOOPBACK is set: in production, organizations could call this machine's own "
        "services. Remove it."
    )
# -- Content that buyers download -----------------------------------------------------------------
FILES = "django.core.files.storage.FileSystemStorage"
CONTENT_LINK_HOURS = positive("CONTENT_LINK_HOURS", 24, most=24 * 365)
CONTENT_DIR = BASE_DIR / (env.str("CONTENT_DIR", default="") or ".content")
CONTENT_STORAGE = env.str("CONTENT_STORAGE", default="") or FILES
CONTENT_STORAGE_OPTIONS = json_object("CONTENT_STORAGE_OPTIONS")
if CONTENT_STORAGE == FILES:
    # Nobody's but the web server's, and at no address.
    CONTENT_STORAGE_OPTIONS = {
        "location": CONTENT_DIR,
        "file_permissions_mode": 0o600,
        "directory_permissions_mode": 0o700,
        **CONTENT_STORAGE_OPTIONS,
    }

# -- Django ---------------------------------------------------------------------------------------
INSTALLED_APPS = [
    # Its templates replace those of the two below it.
    "unfold.apps.BasicAppConfig",
    "unfold.contrib.filters",
    "unfold.contrib.forms",
    "unfold.contrib.import_export",
    "unfold.contrib.simple_history",
    "offers_project.back_office.apps.BackOfficeConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "whitenoise.runserver_nostatic",
    "django.contrib.staticfiles",
    "csp",
    "django_prometheus",
    "django_structlog",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "drf_standardized_errors",
    "import_export",
    "rest_framework",
    "simple_history",
    # Its command replaces the one of waffle.
    "offers",
    "purchases",
    "fulfillment",
    "offers_project.accounts",
    "waffle",
]
if LOCAL_RUN:
    INSTALLED_APPS.append("offers_project.local")

MIDDLEWARE = [
    "offers_project.monitoring.requests.Before",
    "offers.turns.few_at_once",
    "django.middleware.security.SecurityMiddleware",
    "offers_project.headers.closed_doors",
    "offers_project.headers.unkept_unless_said",
    "offers_project.headers.ContentSecurityPolicy",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "offers_project.headers.RequestLog",
    "offers_project.nul_characters.refuse_nul_characters",
    "offers_project.database_outage.BusyDatabaseMiddleware",
    "offers_project.browsers.Session",
    "offers_project.languages.page_language",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "offers_project.browsers.Authentication",
    "offers_project.browsers.Messages",
    "simple_history.middleware.HistoryRequestMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "offers_project.monitoring.requests.After",
]

ROOT_URLCONF = "offers_project.local.urls" if LOCAL_RUN else "offers_project.urls"
WSGI_APPLICATION = "offers_project.wsgi.application"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in (
        "UserAttributeSimilarityValidator",
        "MinimumLengthValidator",
        "CommonPasswordValidator",
        "NumericPasswordValidator",
    )
]
if LOCAL_RUN:
    # Demo users have their name as their password: nothing to protect, and 63 of them to make.
    PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
AUTHENTICATION_BACKENDS = ["offers_project.login.ByMembership"]
LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "purchases-page"
LOGOUT_REDIRECT_URL = "login"
# Seconds that the link in a letter works, the one of a registration too.
PASSWORD_RESET_TIMEOUT = 24 * 3600

LANGUAGE_CODE = "en"
LANGUAGES = [("en", "English"), ("de", "Deutsch")]
LOCALE_PATHS = [BASE_DIR / "offers_project" / "locale"]
LANGUAGE_COOKIE_HTTPONLY = True
LANGUAGE_COOKIE_SAMESITE = "Lax"
LANGUAGE_COOKIE_SECURE = PRODUCTION
LANGUAGE_COOKIE_AGE = 365 * 24 * 3600  # seconds
TIME_ZONE = "UTC"
USE_TZ = True

STATIC_URL = "static/"
STATIC_ROOT = BASE_DIR / ".static" if PRODUCTION else None
# A production image collects the files once; elsewhere they are served from the packages.
WHITENOISE_USE_FINDERS = not PRODUCTION
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "content": {"BACKEND": CONTENT_STORAGE, "OPTIONS": CONTENT_STORAGE_OPTIONS},
    "staticfiles": {
        "BACKEND": (
            "whitenoise.storage.CompressedManifestStaticFilesStorage"
            if PRODUCTION
            else "django.contrib.staticfiles.storage.StaticFilesStorage"
        )
    },
}

_email = env.email_url("EMAIL_URL", default="smtp://127.0.0.1:25")
if LOCAL_RUN and _email["EMAIL_BACKEND"] == "django.core.mail.backends.filebased.EmailBackend":
    _email["EMAIL_BACKEND"] = "offers_project.local.mailbox.backend.EmailBackend"
vars().update(_email)
DEFAULT_FROM_EMAIL = env.str("DEFAULT_FROM_EMAIL", default="webmaster@localhost")
EMAIL_TIMEOUT = 10  # seconds; without one a mail server that hangs would keep the worker's threads

# -- Spreadsheets in the back-office --------------------------------------------------------------
# What a buyer called themselves must not run as a formula when an organizer opens the file.
IMPORT_EXPORT_ESCAPE_FORMULAE_ON_EXPORT = True
IMPORT_EXPORT_USE_TRANSACTIONS = True
SIMPLE_HISTORY_DATE_INDEX = False  # entries are found by their offer

# -- PostgreSQL -----------------------------------------------------------------------------------
# Milliseconds. A purchase that waits longer for the offer's row answers 503 `busy`.
LOCK_TIMEOUT_MS = whole("LOCK_TIMEOUT_MS", 4000)
STATEMENT_TIMEOUT_MS = whole_or_none("STATEMENT_TIMEOUT_MS", 15000)
# Of one process, whose other threads wait for one: those that have one stand in line at the row of
# the offer that everybody wants, where a longer line is a slower one.
DB_POOL_SIZE = whole_or_none("DB_POOL_SIZE", 8)
# Seconds that a request waits for a free connection of the pool before it is refused as `busy`; a
# server that can't be reached is not waited for.
DB_POOL_TIMEOUT = positive("DB_POOL_TIMEOUT", 5)
# `transaction`: between us and PostgreSQL is a pooler such as PgBouncer, which gives a transaction
# any of its connections. Nothing may be kept in the session then: no prepared statement, no
# cursor between transactions, and no setting, so the time-outs are the role's (`store_timeouts`).
DATABASE_POOLER = env.str("DATABASE_POOLER", default="none")
if DATABASE_POOLER not in {"none", "transaction"}:
    raise ImproperlyConfigured(f"DATABASE_POOLER is {DATABASE_POOLER!r}: use none or transaction.")
HAS_SESSIONS = DATABASE_POOLER == "none"
# psycopg's: prepare what a connection has sent so often, which is what offers/prepared.py sends.
PREPARE_THRESHOLD = 5 if HAS_SESSIONS else None

DATABASES = {"default": env.db_url("DATABASE_URL")}
# A streaming replica of it, for lists (offers/replica.py); how many seconds it may be behind.
if env.str("DATABASE_REPLICA_URL", default=""):
    DATABASES["replica"] = env.db_url("DATABASE_REPLICA_URL")
    DATABASE_ROUTERS = ["offers.replica.Router"]
DATABASE_REPLICA_MAX_LAG = positive("DATABASE_REPLICA_MAX_LAG", 2)
if DATABASE_REPLICA_MAX_LAG <= 1:
    raise ImproperlyConfigured(
        "DATABASE_REPLICA_MAX_LAG must be above 1: it is looked at each second."
    )
for _name, _database in DATABASES.items():
    if _database["ENGINE"] != "django.db.backends.postgresql":
        if env.bool("OFFERS_OFFLINE", default=False):
            continue
        _setting = "DATABASE_URL" if _name == "default" else "DATABASE_REPLICA_URL"
        raise ImproperlyConfigured(f"{_setting} must name a PostgreSQL database (postgres://…).")
    # Django's own, with a pool that knows what to do when the server is away or was restarted.
    _database["ENGINE"] = "offers_project.postgresql"
    _database["DISABLE_SERVER_SIDE_CURSORS"] = not HAS_SESSIONS
    _database["OPTIONS"] = {
        # Seconds and milliseconds, for a server that doesn't even refuse.
        "connect_timeout": 3,
        "tcp_user_timeout": 5000,
        **_database.get("OPTIONS", {}),
        "prepare_threshold": PREPARE_THRESHOLD,
        "pool": (
            {
                "min_size": 1,
                "max_size": DB_POOL_SIZE,
                "timeout": DB_POOL_TIMEOUT,
                "reconnect_timeout": 0,
            }
            if DB_POOL_SIZE
            else False
        ),
    }
    if HAS_SESSIONS:
        _database["OPTIONS"]["options"] = (
            f"-c lock_timeout={LOCK_TIMEOUT_MS} -c statement_timeout={STATEMENT_TIMEOUT_MS}"
        )

# -- Redis: only ever makes things fast (docs/decisions.md) ----------------------------------------
REDIS_URL = env.str("REDIS_URL", default="redis://127.0.0.1:6379/0")
REDIS_TIMEOUT = 0.1  # seconds, to connect and for an answer
REDIS_BREAKER_SECONDS = positive("REDIS_BREAKER_SECONDS", 5)

_redis_cache = {
    "BACKEND": "offers.caching.BreakerRedisCache",
    "LOCATION": REDIS_URL,
    "KEY_PREFIX": "offers",
    "OPTIONS": {
        "SOCKET_CONNECT_TIMEOUT": REDIS_TIMEOUT,
        "SOCKET_TIMEOUT": REDIS_TIMEOUT,
        # The breaker decides when to try again; redis-py's own retries would add to the wait.
        "CONNECTION_POOL_KWARGS": {"retry": None, "retry_on_timeout": False},
    },
}
CACHES = {
    "default": _redis_cache,
    "ratelimit": {
        **_redis_cache,
        "BACKEND": "offers.caching.CountingRedisCache",
        "KEY_PREFIX": "limit",
        "OPTIONS": {**_redis_cache["OPTIONS"], "FALLBACK": "process"},
    },
    # Counts of this process alone: what rate limits fall back to while Redis is away.
    "process": {
        "BACKEND": "django.core.cache.backends.locmem.LocMemCache",
        "LOCATION": "process",
        # The default of 300 would forget counters as soon as that many people come.
        "OPTIONS": {"MAX_ENTRIES": 100_000},
    },
    # The kill switch must reach every process within seconds, with or without Redis.
    "switches": {
        "BACKEND": "django.core.cache.backends.locmem.LocMemCache",
        "LOCATION": "switches",
        "TIMEOUT": 2,
    },
}
SILENCED_SYSTEM_CHECKS = [
    # django-ratelimit knows only its own list of cache backends; ours is a django-redis one, whose
    # increments are atomic, and the fallback to a process's own counter is meant.
    "django_ratelimit.E003",
    "django_ratelimit.W001",
]
RATELIMIT_USE_CACHE = "ratelimit"
# A counter that vanished between two calls, with Redis, is a new counter and no refusal.
RATELIMIT_FAIL_OPEN = True
# The header in which a proxy you trust puts the client's address, e.g. HTTP_X_REAL_IP.
RATELIMIT_IP_META_KEY = env.str("CLIENT_IP_META_KEY", default="REMOTE_ADDR")
# So much of an address is the network, the rest each host's own choice: RFC 4291, section 2.5.4.
RATELIMIT_IPV6_MASK = 64

WAFFLE_CACHE_NAME = "switches"
WAFFLE_SWITCH_DEFAULT = True  # `purchases` sells unless somebody switched it off
WAFFLE_CREATE_MISSING_SWITCHES = False

# -- Celery ---------------------------------------------------------------------------------------
CELERY_BROKER_URL = REDIS_URL
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BROKER_CONNECTION_MAX_RETRIES = None
CELERY_BROKER_TRANSPORT_OPTIONS = {
    # Who publishes hears at once that the broker is away; the worker's consumer waits for it.
    "max_retries": 0,
    "socket_connect_timeout": 0.5,
    "socket_timeout": 5,
    "socket_keepalive": True,
    "visibility_timeout": queues.VISIBILITY_TIMEOUT.total_seconds(),
    # As they are listed: a free thread takes what is urgent.
    "queue_order_strategy": "priority",
}
CELERY_TASK_QUEUES = queues.QUEUES
CELERY_TASK_ROUTES = {task: {"queue": queue} for task, queue in queues.ROUTES.items()}
CELERY_TASK_DEFAULT_QUEUE = queues.DEFAULT
CELERY_TASK_CREATE_MISSING_QUEUES = False
# A message is done with when its task is. Every task can run twice, and one whose worker was killed
# comes back, unless a sweep was due meanwhile: then it is too old (`expires`) and is dropped.
CELERY_TASK_ACKS_LATE = True
CELERY_TASK_REJECT_ON_WORKER_LOST = True
# With the line above: no more messages than threads, so none waits behind a long task.
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_TASK_SOFT_TIME_LIMIT = queues.SOFT_TIME_LIMIT.total_seconds()
CELERY_TASK_TIME_LIMIT = queues.TIME_LIMIT.total_seconds()
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_PUBLISH_RETRY = False
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_BEAT_SCHEDULER = "offers_project.celery.BrokerlessScheduler"
# -- API ------------------------------------------------------------------------------------------
REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "offers_project.tokens.TokenAuthentication",
        "offers_project.login.SessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["offers_project.parsers.CarefulJSONParser"],
    "DEFAULT_CONTENT_NEGOTIATION_CLASS": "offers_project.negotiation.UsuallyJSON",
    "DEFAULT_PAGINATION_CLASS": "offers.pagination.NewestFirst",
    "DEFAULT_SCHEMA_CLASS": "offers_project.openapi.schema.OperationSchema",
    "EXCEPTION_HANDLER": "drf_standardized_errors.handler.exception_handler",
    "TEST_REQUEST_DEFAULT_FORMAT": "json",
}
DRF_STANDARDIZED_ERRORS = {
    "EXCEPTION_HANDLER_CLASS": "offers_project.http_errors.DomainErrorHandler",
    # Those that offers_project/openapi may give an operation.
    "ALLOWED_ERROR_STATUS_CODES": "400 401 403 404 406 409 413 415 422 429 503".split(),
}
SIMPLE_JWT = {
    "ACCESS_TOKEN_LIFETIME": timedelta(minutes=positive("ACCESS_TOKEN_MINUTES", 60)),
    "REFRESH_TOKEN_LIFETIME": timedelta(days=7),
    # A new password ends every token, as it ends every login session.
    "CHECK_REVOKE_TOKEN": True,
    "TOKEN_REFRESH_SERIALIZER": "offers_project.login.CheckedRefresh",
}
SPECTACULAR_SETTINGS = {
    "TITLE": "Offers",
    "VERSION": "1.0.0",
    "OAS_VERSION": "3.1.1",
    "SERVE_INCLUDE_SCHEMA": False,
    "SCHEMA_PATH_PREFIX": "/api/v1",
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    # The list of 80 schemas is closed at first: operations show what they use.
    "SWAGGER_UI_SETTINGS": {"deepLinking": True, "defaultModelsExpandDepth": 0},
    "COMPONENT_SPLIT_REQUEST": True,
    "ENUM_NAME_OVERRIDES": {
        **{
            name: f"drf_standardized_errors.openapi_serializers.{name}.choices"
            for name in ("ValidationErrorEnum", "ClientErrorEnum", "ServerErrorEnum")
        },
        "BadRequestTypeEnum": "offers_project.openapi.errors.BAD_REQUEST_TYPES",
        "PurchaseStatusEnum": "purchases.states.Status",
        "FulfillmentStatusEnum": "fulfillment.states.Status",
        "ReleaseReasonEnum": "purchases.states.ReleaseReason",
    },
    "SERVERS": [{"url": "/", "description": "This server."}],
    "POSTPROCESSING_HOOKS": [
        "drf_standardized_errors.openapi_hooks.postprocess_schema_enums",
        "offers_project.openapi.document.complete",
    ],
}

# -- What browsers may do -------------------------------------------------------------------------
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = PRODUCTION
# No script of ours reads them: forms and the API's docs are given the token by the server.
SESSION_COOKIE_HTTPONLY = CSRF_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = CSRF_COOKIE_SAMESITE = "Lax"
SECURE_REFERRER_POLICY = "same-origin"
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [SELF],
        "object-src": [NONE],
        "base-uri": [NONE],
        "frame-ancestors": [NONE],
        # An offer's picture may be anywhere; those of admin and of the API's docs are in their CSS.
        "img-src": [SELF, "https:", "data:"],
        # Buy is a form that Stripe's page answers, by a redirect, at an address of its own or of a
        # domain that the organizer has there.
        "form-action": [
            SELF,
            "https:",
            *([] if PRODUCTION else ["http://127.0.0.1:*", "http://localhost:*"]),
        ],
    }
}

# -- Transport security ---------------------------------------------------------------------------
SECURE_SSL_REDIRECT = env.bool("SECURE_SSL_REDIRECT", default=PRODUCTION)
# Probes and scrapes come from inside, over plain HTTP.
SECURE_REDIRECT_EXEMPT = [r"^livez$", r"^readyz$", r"^metrics$"]
SECURE_HSTS_SECONDS = 31_536_000 if PRODUCTION else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = env.bool("SECURE_HSTS_INCLUDE_SUBDOMAINS", default=PRODUCTION)
SECURE_HSTS_PRELOAD = env.bool("SECURE_HSTS_PRELOAD", default=PRODUCTION)
# Only behind a proxy that sets the header itself: anybody else could claim to have come by TLS.
if env.bool("BEHIND_PROXY", default=True):
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
CSRF_TRUSTED_ORIGINS = [FRONTEND_URL] if FRONTEND_URL else []

# -- Metrics --------------------------------------------------------------------------------------
# The name is prometheus_client's, which looks at it when it is imported: after this file.
METRICS_DIR = env.str("PROMETHEUS_MULTIPROC_DIR", default="")
if METRICS_DIR:
    Path(METRICS_DIR).mkdir(parents=True, exist_ok=True)
else:
    os.environ.pop("PROMETHEUS_MULTIPROC_DIR", None)  # to prometheus_client, empty is a folder too
# Of a worker, which has no other; 0 is none.
WORKER_METRICS_PORT = env.int("WORKER_METRICS_PORT", default=0)

# -- Logging --------------------------------------------------------------------------------------
LOG_LEVEL = env.str("LOG_LEVEL", default="INFO").upper()
LOG_FORMAT = env.str("LOG_FORMAT", default="json" if PRODUCTION else "console")
DJANGO_STRUCTLOG_CELERY_ENABLED = True
DJANGO_STRUCTLOG_IP_LOGGING_ENABLED = False
# One line a request, when it is answered.
DJANGO_STRUCTLOG_STATUS_START_LOG_LEVEL = logging.DEBUG

from offers_project.back_office.look import UNFOLD  # noqa: E402, F401 - a setting of 130 lines
from offers_project.logging import configure  # noqa: E402 - needs the two settings above
from offers_project.schedule import SWEEPS as CELERY_BEAT_SCHEDULE  # noqa: E402, F401 - a setting

LOGGING = configure(level=LOG_LEVEL, style=LOG_FORMAT)
