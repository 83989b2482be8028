"""`make bench-admin`: the back-office with many rows, its queries counted and explained."""
