"""The first page of the back-office: how it sells, what is stuck, and whether all is well."""
