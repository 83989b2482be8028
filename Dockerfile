# The service, for production: web server, worker and beat are three commands of this one image.
# docker-compose.yml runs them; settings come from the environment alone.
FROM python:3.13-slim

ENV PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PROMETHEUS_MULTIPROC_DIR=/tmp/offers-metrics \
    MALLOC_ARENA_MAX=2 \
    GRANIAN_WORKERS=1 \
    GRANIAN_BLOCKING_THREADS=32

RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin offers

WORKDIR /srv/offers

# Before the code, so that a change of code installs nothing again.
COPY requirements.txt .
RUN pip install --no-cache-dir --root-user-action=ignore -r requirements.txt

COPY . .
# Collecting files asks neither the database nor Stripe: these values only let the settings load, and
# live no longer than this command.
RUN SECRET_KEY=build STRIPE_SECRET_KEY=build DATABASE_URL=postgres://build@127.0.0.1/build \
    python manage.py collectstatic --noinput

# A volume that is mounted here takes over this owner and mode.
RUN install --directory --owner=offers --mode=0700 .content

USER offers
EXPOSE 8000

# A name from ALLOWED_HOSTS, because Django refuses a request for any other.
HEALTHCHECK --interval=15s --timeout=5s --start-period=30s CMD ["python", "-c", "import http.client, os; host = os.environ.get('ALLOWED_HOSTS', '').split(',')[0].strip().lstrip('.*') or 'localhost'; c = http.client.HTTPConnection('127.0.0.1', 8000, timeout=4); c.request('GET', '/livez', headers={'Host': host}); raise SystemExit(c.getresponse().status != 200)"]

# HTTP/1 only, which a proxy speaks: a stream of HTTP/2 that is reset within its body keeps one of
# granian's threads for good. Asked to end, it goes on answering until the proxy has noticed, and then
# ends what it is at.
CMD ["python", "-I", "offers_project/draining.py", "granian", "--interface", "wsgi", "--host", "0.0.0.0", "--port", "8000", "--http", "1", "--respawn-failed-workers", "--workers-kill-timeout", "20", "offers_project.wsgi:application"]
