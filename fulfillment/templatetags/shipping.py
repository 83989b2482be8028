"""``{{ order|label }}``: the lines of its address."""

from django import template

from fulfillment.shipping import addresses

register = template.Library()
register.filter("label", addresses.label)
