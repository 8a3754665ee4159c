"""The admin page: rendered here, and a client of the API in the same process."""
