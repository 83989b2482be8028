"""`make bench`: the back-office with 10,000 offers and 200,000 purchases, counted and explained."""
