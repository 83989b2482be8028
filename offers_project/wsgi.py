"""The WSGI entry point that granian (or any other server) loads."""

import gc
import os
import sys

from django.core.exceptions import ImproperlyConfigured
from django.core.wsgi import get_wsgi_application
from django.urls import get_resolver

from offers_project.unsized_bodies import with_length

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "offers_project.settings")

try:
    application = with_length(get_wsgi_application())
except ImproperlyConfigured as error:
    sys.exit(str(error))  # the sentence, as `manage.py` says it, and no traceback

# The first request would load the rest of the code: all views.
_ = get_resolver().url_patterns
# All of it stays. Python would otherwise look through it again and again for garbage, and not
# before there is a quarter as much of that: megabytes.
gc.collect()
gc.freeze()
gc.collect()  # finds nothing, and so Python expects little from now on
# And so a full collection may come more often than by default (700, 10, 10): four megabytes less,
# at the same processor time (docs/scaling.md).
gc.set_threshold(700, 5, 2)
