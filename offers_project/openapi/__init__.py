"""The OpenAPI document: what DRF and drf-spectacular can't read from the views and serializers.

``errors``: which refusals an operation has. ``operations`` and ``examples``: its words, requests
and answers. ``webhooks``: what organizations' servers are sent. ``schema`` and ``document`` put
them in. ``tests/test_openapi.py`` holds the examples against the schema,
``tests/test_api_fuzzing.py`` each answer, and ``make lint`` the document against a linter's rules.
"""
