"""``{{ order|label }}``: the lines of its address; ``{% if fulfillment|is_waiting %}``."""

from django import template

from fulfillment.shipping import addresses, checking

register = template.Library()
register.filter("label", addresses.label)
register.filter("is_waiting", checking.is_waiting)
