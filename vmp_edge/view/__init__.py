"""What people look at: the live window, the overlay on a picture, and recordings."""
