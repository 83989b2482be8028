"""`make chaos`: the whole service under many buyers while its parts and Stripe fail.

`storm` runs it all, on the stack of `make run`. `buyers` and `organizer` are the people, who know
only the HTTP contract; `faults` is what goes wrong; `journal` keeps what people were told. After
that, `recovery` waits for quiet, `books` reads what PostgreSQL and Stripe have on record, and
`invariants` compares the three. Nothing here imports offers or purchases: it has to be right by the
measure of those outside.
"""
