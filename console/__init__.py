"""The web console: a softphone page, served to browsers.

pages    the files of the page, under a strict policy
config   settings
service  wiring
"""
