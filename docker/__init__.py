"""The recipe of the image for hosts in containers; files only."""
