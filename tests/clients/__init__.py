"""Clients that are generated from the OpenAPI document, its linter, and Node.js for both."""
