"""``{{ upgrade.code|spaced }}``: a code as people can type it."""

from django import template

from fulfillment.codes import text

register = template.Library()
register.filter("spaced", text.spaced)
