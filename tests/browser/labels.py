"""The words on the pages that the walks read and press, in one place."""

# The login page
USERNAME = "E-mail address or user name"
PASSWORD = "Password"
LOG_IN = "Log in"

# The navigation and a list
SKIP = "Skip to content"
OFFERS = "Offers"
RUN = "Run"

# An offer's form
ADD_OFFER = "Add offer"
EVENT = "Event"
TITLE = "Title"
OFFER_TYPE = "Type"
PRICE = "Price"
CURRENCY = "Currency"
TOTAL = "Total"
SESSIONS = "Sessions"
TIERS = "Ticket tiers"
STARTS_AT = "Starts at"
EXPIRES_AT = "Expires at"
SAVE = "Save"

# A purchase's page
REFUND = "Refund"
SEND_MONEY_BACK = "Send the money back"

# The list of offers
ON_SALE = "On sale"
SOLD_OUT = "Sold out"
RELEASE_STUCK = "Release stuck reservations…"
RELEASE_TICKED = "Release the ticked ones"
FINISHED = "finished"

# Files
EXPORT = "Export"
SUBMIT = "Submit"
