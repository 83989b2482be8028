"""What is left of an offer, as ``live.js`` will say it too."""

from django import template

from offers.live_stock import left_in_words

register = template.Library()

# {{ offer.inventory_available|left_in_words }}: "only 7 left", or nothing while there are many.
register.filter("left_in_words", left_in_words)
