"""The routes of the Hub's API, by subject."""
