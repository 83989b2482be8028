from django import template

from purchases import mail

register = template.Library()
register.filter("one_line", mail.one_line)
