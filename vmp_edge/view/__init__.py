"""Pictures for people: the live window, the overlay on a picture, and recordings."""
