"""The words for buying, what comes of it, and money that goes back."""

from rest_framework.exceptions import NotFound

from offers_project.openapi import examples
from offers_project.openapi.examples import example, page
from offers_project.openapi.words import (
    BOOKINGS,
    NO_OFFER,
    NO_PURCHASE,
    NOT_JSON,
    PURCHASES,
    REQUIRED,
    SELLING,
    STRIPE,
    Operation,
    wrong,
)

OPERATIONS: dict[str, Operation] = {
    # -- purchases --------------------------------------------------------------------------------
    "purchases_list": Operation(
        tag=PURCHASES,
        summary="List my purchases",
        description="The caller's own purchases, newest first, with what became of them.",
        meanings={"200": "A page of purchases."},
        answers={
            "200": {
                "purchases": example(
                    "One that waits for payment, and one of each kind that was paid for",
                    page(
                        examples.HELD,
                        examples.PAID,
                        examples.RECORDINGS,
                        examples.UPGRADE,
                        examples.BOOKED,
                    ),
                )
            }
        },
        errors=(
            wrong("status", "invalid_choice", '"open" is not a valid choice.'),
            NotFound("Invalid cursor"),
        ),
    ),
    "purchases_create": Operation(
        tag=PURCHASES,
        summary="Buy",
        description=(
            "Takes the units off sale for some minutes (until `reserved_until`) and opens a page "
            "at Stripe on which they are paid: send the buyer to `checkout_url`. Paid, it becomes "
            "`paid` by itself; not paid in time, `released`, and the units go back on sale. What "
            "is free is `paid` at once, without `checkout_url`.\n\n"
            "**Send an `Idempotency-Key`**, a new UUID for each click on Buy, and repeat the "
            "request with the same key when no answer arrives or the answer is a 503: at most one "
            "purchase is made. The same key and body get the same purchase back, for at least 24 "
            "hours, with 200 and `Idempotent-Replayed: true`. A request that was refused made "
            "nothing, so its key may be used again."
        ),
        requests={
            "two": example("Two hoodies", {"offer": examples.OFFER_ID, "quantity": 2}),
            "collected": example(
                "One, collected at the event",
                {"offer": examples.OFFER_ID, "quantity": 1, "delivery_method": "collection"},
            ),
        },
        meanings={
            "200": "The purchase that an earlier request with this key made, as it is now.",
            "201": "The units are held. Send the buyer to `checkout_url`.",
        },
        answers={
            "200": {
                "replayed": example("Still to be paid", examples.HELD),
                "paid": example("Paid meanwhile", examples.JUST_PAID),
            },
            "201": {
                "held": example("To be paid at `checkout_url`", examples.HELD),
                "free": example(
                    "What is free is paid at once",
                    {
                        **examples.JUST_PAID,
                        "unit_price": "0.00",
                        "total_price": "0.00",
                        "checkout_session_id": None,
                    },
                ),
            },
        },
        errors=(
            wrong("offer", "required", REQUIRED),
            wrong("quantity", "min_value", "Ensure this value is greater than or equal to 1."),
            wrong("quantity", "max_value", "At most 20 units can be bought at once."),
            wrong(
                "Idempotency-Key",
                "invalid",
                "Use 1 to 255 printable ASCII characters, for example a UUID.",
            ),
            NOT_JSON,
            NO_OFFER,
        ),
    ),
    "purchases_retrieve": Operation(
        tag=PURCHASES,
        summary="Show a purchase",
        description=(
            "One of the caller's own purchases. Ask again while it waits: one second after the "
            "buyer came back, then after 2, 4, 8 seconds and so on, at most every 15. `status` "
            "says whether it is paid; a moment later `fulfillment` says what became of it."
        ),
        meanings={"200": "The purchase."},
        answers={
            "200": {
                "held": example("Waits for payment", examples.HELD),
                "just_paid": example("Paid, not yet delivered", examples.JUST_PAID),
                "digital": example("A download", examples.RECORDINGS),
                "ticket": example("A better ticket", examples.UPGRADE),
                "physical": example("To be collected", examples.PAID),
                "service": example("A time was booked", examples.BOOKED),
                "released": example("Given back", examples.CANCELLED),
            }
        },
        errors=(NotFound(),),
    ),
    "purchases_cancel_create": Operation(
        tag=PURCHASES,
        summary="Give a hold back",
        description=(
            "Ends an unpaid purchase of the caller's now: its page at Stripe is closed, and the "
            "units go back on sale. Was the buyer faster and has paid, then the payment counts: "
            "409 `not_cancellable`."
        ),
        meanings={"200": "The purchase, which is `released` now."},
        answers={"200": {"cancelled": example("Given back", examples.CANCELLED)}},
        errors=(NO_PURCHASE,),
    ),
    # -- bookings ---------------------------------------------------------------------------------
    "purchases_slots_list": Operation(
        tag=BOOKINGS,
        summary="List times to choose from",
        description=(
            "Of a paid purchase of a service (`fulfillment.type` is `SERVICE`): the coming times "
            "that have room for all units of this purchase, earliest first. None: staff set a time."
        ),
        meanings={"200": "A page of times."},
        answers={"200": {"slots": example("One time", page(examples.SLOT))}},
        errors=(NO_PURCHASE,),
    ),
    "purchases_booking_create": Operation(
        tag=BOOKINGS,
        summary="Book a time",
        description=(
            "Books as many seats of a time as units were bought, or moves the booking there, until "
            "`can_change_until`. An invitation for the calendar comes by e-mail. The time that is "
            "booked already stays booked, so the same request again is harmless."
        ),
        requests={"slot": example("One of the listed times", {"slot": examples.SLOT_ID})},
        meanings={"200": "The purchase with its booking."},
        answers={"200": {"booked": example("Booked", examples.BOOKED)}},
        errors=(
            wrong("slot", "required", REQUIRED),
            wrong("slot", "invalid", "Must be a valid UUID."),
            NOT_JSON,
        ),
    ),
    "purchases_booking_destroy": Operation(
        tag=BOOKINGS,
        summary="Give a booked time back",
        description="Until `can_change_until`. Another time can be booked then.",
        meanings={"200": "The purchase without a time."},
        answers={"200": {"unbooked": example("To be booked again", examples.TO_BOOK)}},
        errors=(NO_PURCHASE,),
    ),
    # -- stripe -----------------------------------------------------------------------------------
    "webhooks_stripe_create": Operation(
        tag=STRIPE,
        summary="Receive an event of Stripe's",
        description=(
            "For Stripe alone, which signs what it sends (`Stripe-Signature`). The event is stored "
            "and then acted on; an event that is known already changes nothing."
        ),
        requests={"paid": example("A session was paid", examples.STRIPE_EVENT)},
        meanings={"200": "The event is stored."},
        answers={
            "200": {
                "processed": example(
                    "Stored, and acted on",
                    {"event": examples.STRIPE_EVENT["id"], "state": "processed"},
                )
            }
        },
    ),
    "purchases_refund_create": Operation(
        tag=SELLING,
        summary="Send money back",
        description=(
            "For owners and managers of the event's organization. Without `amount`, all that is "
            "left is sent back: the purchase is `refunding`, then `refunded`, and its units go "
            "back on sale, unless `restock` is false. A part leaves it `paid`, with its units.\n\n"
            "The money is sent after the answer. The same request again is the same refund, and is "
            "answered with `Idempotent-Replayed: true`: to send the same part a second time within "
            "five minutes, use another `Idempotency-Key` or another `reason`."
        ),
        requests={
            "all": example("All that is left", {}),
            "part": example("A part", {"amount": "10.00", "reason": "wrong size"}),
            "keep": example("All, and the units are gone", {"restock": False, "reason": "damaged"}),
        },
        meanings={"202": "It will be sent. Also the answer to a repetition."},
        answers={
            "202": {
                "all": example("All is on its way back", examples.REFUNDING),
                "part": example("A part is on its way back", examples.PAID),
            }
        },
        errors=(
            wrong("amount", "invalid", "A valid number is required."),
            NOT_JSON,
            NO_PURCHASE,
        ),
    ),
}
