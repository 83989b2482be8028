"""A stock and its sales, with no more columns than it takes to sell without overselling."""

from django.db import models


class Stock(models.Model):
    """What is left of one thing."""

    name = models.CharField(max_length=200)
    total = models.IntegerField()
    sold = models.IntegerField(default=0)

    class Meta:
        db_table = "floor_stock"

    def __str__(self) -> str:
        return self.name


class Sale(models.Model):
    """Who bought how many of it."""

    stock = models.ForeignKey(Stock, on_delete=models.CASCADE)
    buyer = models.IntegerField()
    quantity = models.IntegerField()
    created_at = models.DateTimeField()

    class Meta:
        db_table = "floor_sale"

    def __str__(self) -> str:
        return f"{self.quantity} of {self.stock_id}"
