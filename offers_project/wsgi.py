"""The WSGI entry point that granian (or any other server) loads."""

import os
import sys

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "offers_project.settings")

# Seconds that a thread may run while others wait. Python's 5 ms are for throughput; one that has a
# row locked and the server's answer in hand would wait as long for each of those before it.
sys.setswitchinterval(0.0005)

application = get_wsgi_application()
