"""The web console: a softphone page, served to browsers."""
