"""The report: one HTML page about one tuning database, which needs nothing but a browser.

::

    store, peers -> gather -> ReportView (views) -> charts, render -> one file

Views hold facts and no layout; the page and the JSON of the command are two drawings of them.
"""
